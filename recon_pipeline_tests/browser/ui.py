"""What a person does in Dagster's UI, in verbs; found by what is written on the page where that is possible."""

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import FloatRect, Locator, Page, expect

from recon_pipeline.automation.ended_runs import check_page

_RUN_MS = 120_000
_MARGIN = 20
_ENDED = re.compile(r"^(Success|Failure|Canceled)$")


@dataclass(frozen=True)
class Ui:
    """A browser at the UI's address.

    Attributes:
        pictures: Folder for pictures of the pages, or None for none.
    """

    page: Page
    address: str
    pictures: Path | None

    def open(self, path: str) -> None:
        """Go to a page."""
        self.page.goto(f"{self.address}{path}")

    def open_lineage(self) -> None:
        """Go to the graph of all assets, and wait until it is drawn."""
        self.open("/asset-groups")
        expect(self.nodes.first).to_be_visible()

    def open_checks(self, asset: str, check: str) -> None:
        """Go to a check's page by the link of its alert, and wait until it says how the check ended."""
        self.open(check_page([asset], check))
        expect(self.text("Latest execution")).to_be_visible()
        expect(self.text("Evaluation result")).to_be_visible()

    def open_month_of_check(self, month: str) -> None:
        """On a check's page, go to its result for that month."""
        self.page.get_by_role("tab", name="Partitions").last.click()  # the first is that of the asset
        self.page.get_by_text(month, exact=True).filter(visible=True).last.click()

    @property
    def nodes(self) -> Locator:
        """The assets in the graph."""
        return self.page.locator("foreignObject")

    def text(self, text: str | re.Pattern[str], *, exact: bool = False) -> Locator:
        """The first place where that is written."""
        return self.page.get_by_text(text, exact=exact).first

    def fact(self, name: str) -> Locator:
        """The row of a table that starts with that name."""
        return self.page.get_by_role("row").filter(has_text=re.compile(f"^{name}")).first

    def switch(self, automation: str) -> tuple[Locator, Locator]:
        """An automation's switch on the page Automation: what shows its state, and what is clicked."""
        row = self.page.get_by_role("link", name=automation).locator("..")
        # The first checkbox selects the row.
        return row.get_by_role("checkbox").nth(1), row.locator("label").nth(1)

    def materialize(self, months: str) -> str:
        """Materialize what the page shows for these partitions, and watch the run end; see `choose` and `launch`."""
        return self.launch(self.choose(months))

    def choose(self, months: str) -> Locator:
        """Open the dialog Materialize of what the page shows, and choose partitions in it.

        Args:
            months: As written in the dialog, `2026-01` or `[2026-01...2026-06]`.

        Returns:
            The dialog, ready to launch.
        """
        self.page.get_by_role("button", name=re.compile("Materialize")).first.click()
        dialog = self.page.get_by_role("dialog")
        # The page of a job asks first where an asset before it was never materialized.
        confirm = self.page.get_by_role("button", name="Confirm")
        expect(confirm.or_(dialog.get_by_placeholder("ex: ")).first).to_be_visible()
        if confirm.is_visible():
            confirm.click()
        partitions = dialog.get_by_placeholder("ex: ")
        partitions.fill(months)
        partitions.press("Enter")
        expect(dialog.get_by_text(re.compile(r"^[1-9]\d* partitions?$")).first).to_be_visible()
        return dialog

    def configure(self, dialog: Locator, config: str) -> Locator:
        """Write a config into the dialog's editor; `save_config` then goes back to the dialog.

        Returns:
            The editor.
        """
        dialog.get_by_text("Config", exact=True).click()
        dialog.get_by_role("button", name="Add config").click()
        editor = self.page.get_by_role("dialog").filter(has_text="Config Editor")
        text = editor.locator(".CodeMirror").first
        expect(editor.get_by_text("No missing config")).to_be_visible()
        text.click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(config)
        expect(text).to_contain_text(config.split(":")[0])
        expect(editor.get_by_text("No errors")).to_be_visible()
        return editor

    def save_config(self, editor: Locator) -> None:
        """Close the editor of a config."""
        editor.get_by_role("button", name="Save config").click()
        expect(editor).to_be_hidden()

    def launch(self, dialog: Locator) -> str:
        """Launch what is chosen, and watch the run end.

        Returns:
            What the run's page says in the end: Success, Failure or Canceled.
        """
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url("**/runs/**")
        if "/runs/b/" in self.page.url:
            self._open_only_run_of_backfill()
        outcome = self.text(_ENDED)
        expect(outcome).to_be_visible(timeout=_RUN_MS)
        return outcome.inner_text()

    def filter_log(self, text: str) -> None:
        """On a run's page, show only the log's lines with that text: of a long log the page draws a part only."""
        log_filter = self.page.get_by_placeholder("Filter…")
        log_filter.fill(text)
        log_filter.press("Enter")

    def picture(self, name: str, *parts: Locator, to_right_edge: bool = False, margin_below: int = _MARGIN) -> None:
        """Save a picture of the part of the page that holds these, if pictures are wanted."""
        if self.pictures is None:
            return
        self.pictures.mkdir(parents=True, exist_ok=True)
        for part in parts:
            expect(part).to_be_visible()
        boxes = [box for part in parts if (box := part.bounding_box()) is not None]
        width = (self.page.viewport_size or {"width": 0})["width"]
        left = max(0, min(box["x"] for box in boxes) - _MARGIN)
        top = max(0, min(box["y"] for box in boxes) - _MARGIN)
        right = width if to_right_edge else max(box["x"] + box["width"] for box in boxes) + _MARGIN
        bottom = max(box["y"] + box["height"] for box in boxes) + margin_below
        clip = FloatRect(x=left, y=top, width=right - left, height=bottom - top)
        self.page.screenshot(path=self.pictures / f"{name}.png", clip=clip, animations="disabled")

    def _open_only_run_of_backfill(self) -> None:
        """From a backfill's page to the page of its one run, once the daemon has started it."""
        self.page.get_by_role("tab", name="Runs").click()
        runs = self.page.locator("a[href^='/runs/']").filter(has_text=re.compile(r"^[0-9a-f]{8}$"))
        expect(runs).to_have_count(1, timeout=_RUN_MS)
        runs.click()
        self.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
