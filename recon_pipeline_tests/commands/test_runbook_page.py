"""The runbook's commands print what the page shows: they are run in its order on one database, between its incidents.

A comment `<!-- then: name -->` in the page names an entry of `INCIDENTS`. Ids, times and durations are compared by
kind, and a line `…` stands for lines that the page leaves out.
After a deliberate change: RECON_TEST_WRITE_RUNBOOK=1 pytest recon_pipeline_tests/commands/test_runbook_page.py
writes what is printed now into the page.
"""

import os
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recon_pipeline.faces import console
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing, Period

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
SEPTEMBER: Period = (datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC))
CUSTOMERS = [f"cus_{number:06}" for number in range(281, 289)]
DENIED = "cus_000287"
_STEP = re.compile(
    r"<!-- then: (?P<incident>[\w ]+) -->|```console\n\$ (?P<command>recon [^\n]*)\n(?P<shown>.*?)```", re.DOTALL
)
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b")


def use_september(billing: Billing) -> None:
    """Eight customers; one of the free plan has used 40 of its 50, and a batch of 16 came late."""
    for number, customer in enumerate(CUSTOMERS):
        for day in range(0, 20 if customer == DENIED else 6):
            at = SEPTEMBER[0] + timedelta(days=day, hours=9 + number)
            billing.add_event(
                customer, 2 + day % 2 * (number % 3), period=SEPTEMBER, event_timestamp=at, created_at=at,
                request_id=f"app-{number}-{day:04}", metadata='{"device_id": "lock-17"}',
            )  # fmt: skip
    late = SEPTEMBER[0] + timedelta(days=21, hours=3)
    for number in range(4):
        billing.add_event(
            DENIED, 4, period=SEPTEMBER, event_timestamp=late, created_at=late + timedelta(hours=14),
            request_id=f"retry:{number:04}", metadata='{"device_id": "gateway-3"}',
        )  # fmt: skip
    billing.query(
        "insert into billing_usage_counters "
        "(gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count) "
        "select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity) "
        "from billing_usage_events group by 1, 2, 3, 4, 5"
    )
    billing.subscribe(CUSTOMERS[0], period=SEPTEMBER)


def lose_increments(billing: Billing) -> None:
    billing.query("update billing_usage_counters set usage_count = usage_count / 2")


def replay_a_queue(billing: Billing) -> None:
    billing.query(
        "update billing_usage_counters set usage_count = usage_count + 30 where gateway_customer_id = any(%s)",
        [CUSTOMERS[2], DENIED],
    )


def a_constraint_is_added(billing: Billing) -> None:
    billing.query(
        f"alter table billing_usage_counters add constraint no_more_than_20 "
        f"check (gateway_customer_id <> '{CUSTOMERS[4]}' or usage_count <= 20)"
    )
    billing.add_event(CUSTOMERS[4], 9, period=SEPTEMBER, event_timestamp=SEPTEMBER[0], request_id="app-4-0009")


def the_constraint_is_dropped(billing: Billing) -> None:
    billing.query("alter table billing_usage_counters drop constraint no_more_than_20")


INCIDENTS: dict[str, Callable[[Billing], None]] = {
    "increments are lost": lose_increments,
    "a queue is replayed": replay_a_queue,
    "a constraint is added": a_constraint_is_added,
    "the constraint is dropped": the_constraint_is_dropped,
}


@pytest.fixture
def story(make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch) -> Billing:
    monkeypatch.setenv("RECON_START_PERIOD", "2026-09")
    monkeypatch.setenv("RECON_MAX_REPAIRS", "5")
    for one in (console.out, console.err):
        monkeypatch.setattr(one, "_width", 110)
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    billing = make_billing()
    use_september(billing)
    return billing


def translated(text: str, ids: dict[str, str]) -> str:
    """The text with the ids of this run in the place of the page's."""
    return re.sub("|".join(ids), lambda found: ids[found[0]], text) if ids else text


def matches(shown: list[str], said: list[str]) -> bool:
    """Whether these lines are those of the page, which may leave lines out."""
    pattern = "\n".join("(?:.*\n)*?.*" if line == "…" else re.escape(line) for line in shown)
    return re.fullmatch(pattern, "\n".join(said)) is not None


def kind_of(text: str) -> list[str]:
    """The lines of an output with what differs from run to run taken out."""
    for pattern, kind in (
        (r"postgresql://\S+", "DATABASE"),
        (_ID.pattern, "ID"),
        (r"\b(20\d\d-)?\d\d-\d\d \d\d:\d\d(:\d\d)?\b", "TIME"),
        (r"\b[\d.]+ s\b", "DURATION"),
        (r"[─━]+", "─"),
        (r"[ \t]+", " "),
    ):
        text = re.sub(pattern, kind, text)
    return [line.strip() for line in text.strip().splitlines()]


def test_every_command_of_the_runbook_prints_what_the_page_shows(
    story: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    ids: dict[str, str] = {}
    written: list[str] = []
    end, commands = 0, 0
    monkeypatch.chdir(tmp_path)
    for step in _STEP.finditer(page):
        written.append(page[end : step.start()])
        end = step.end()
        if step["incident"]:
            INCIDENTS[step["incident"]](story)
            written.append(step[0])
            continue
        commands += 1
        command = translated(step["command"], ids)
        output = recon(*shlex.split(command)[1:])
        said = re.sub(r"postgresql://\S+", "postgresql://recon_pipeline@billing-db:5432/app", output.out + output.err)
        said = "\n".join(line.rstrip() for line in said.strip().splitlines())
        for there, here in zip(_ID.findall(step["shown"]), _ID.findall(said), strict=False):
            ids |= {there: here, there[:8]: here[:8]}
        is_so = matches(kind_of(step["shown"]), kind_of(said))
        written.append(translated(step[0], ids) if is_so else f"```console\n$ {command}\n{said}\n```")
        assert is_so or os.environ.get("RECON_TEST_WRITE_RUNBOOK"), f"{command}\n{said}"
    if os.environ.get("RECON_TEST_WRITE_RUNBOOK"):
        PAGE.write_text("".join(written) + page[end:], encoding="utf-8")
    assert commands > 8
