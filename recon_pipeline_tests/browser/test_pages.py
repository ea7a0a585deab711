"""The pages of `recon serve` in a real browser, on a desk and on a phone, in light and in dark."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect

from recon_pipeline_tests.browser.application import Application
from recon_pipeline_tests.browser.history import BLOCKED, SHOWN, History
from recon_pipeline_tests.support.dagster import DAGSTER_YAML
from recon_pipeline_tests.support.serving import Server, serving

pytestmark = pytest.mark.browser

SECRET = "reading-hunter2secret"
NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/nothing"
DESK, PHONE = (1280, 900), (360, 740)
HOSTILE = "../<img src=x onerror=\"document.title='owned'\">&?#%2F/ä"


@pytest.fixture(scope="module")
def server(application: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application.play()
    home = tmp_path_factory.mktemp("pages")
    shutil.copy(DAGSTER_YAML, home)
    variables = {
        "DATABASE_URL": application.url,
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": NOBODY,
        "RECON_READ_SECRET": SECRET,
        "RECON_UI_URL": "http://127.0.0.1:3000",
    }
    with serving(home, **variables) as running:
        yield running
        assert "Traceback" not in running.said()
        assert "hunter2" not in running.said()


@pytest.fixture
def history(application: Application) -> Iterator[History]:
    """A database on which nothing has happened yet."""
    with psycopg.connect(application.url, autocommit=True) as connection:
        history = History(connection)
        history.forget()
        yield history


@pytest.fixture(params=[(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """Somebody who has logged in."""
    (width, height), scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        http_credentials={"username": "me", "password": SECRET},
    )
    yield context
    context.close()


def look(context: BrowserContext, server: Server, path: str = "/") -> Page:
    """Open a page: whatever it shows, it asks nobody else, runs no script and fits the screen."""
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"http://127.0.0.1:{server.port}{path}", wait_until="networkidle")
    assert len([url for url in asked if not url.startswith("data:")]) == 1, asked
    assert [text for text in complaints if "Content Security Policy" in text] == []
    assert page.locator("script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the right"
    return page


def test_a_browser_asks_for_the_secret_and_shows_nothing_without_it(
    browser: Browser, server: Server, history: History
) -> None:
    with browser.new_context() as stranger:
        page = stranger.new_page()
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # its answer to a challenge, with nobody there
            page.goto(f"http://127.0.0.1:{server.port}/")


def test_before_the_first_run_the_page_says_what_to_type(
    context: BrowserContext, server: Server, history: History
) -> None:
    page = look(context, server)
    expect(page.get_by_role("heading", level=1)).to_have_text("No run was made on this database yet")
    expect(page.locator("p.command")).to_have_text("recon reconcile --all --dry-run")


def test_when_all_is_well_the_page_says_so_first_and_shows_a_week(
    context: BrowserContext, server: Server, history: History
) -> None:
    history.week()
    history.run("clean", ago=timedelta(minutes=3), drift=2)
    page = look(context, server)
    expect(page.get_by_role("heading", level=1)).to_have_text("Every counter matches")
    expect(page).to_have_title("OK: Every counter matches")
    expect(page.get_by_text("in the run 3 minutes ago")).to_be_visible()
    chart = page.get_by_role("img", name="Drifted keys from")
    assert chart.locator("rect.found").count() > 20
    assert chart.locator("rect.silent").count() >= 1, "a span without a run is seen"
    assert chart.locator("rect.left:not([height='0.0%'])").count() == 1


def test_a_block_is_the_first_thing_to_be_seen_with_the_command_that_approves_it(
    context: BrowserContext, server: Server, history: History, pictures: Path | None
) -> None:
    history.week()
    history.run("clean", ago=timedelta(minutes=3), drift=2)
    history.run("blocked", ago=timedelta(minutes=1), drift=779, error=BLOCKED, run_id=SHOWN)
    history.alarm("drift_is_within_budgets", "error", BLOCKED, ago=timedelta(minutes=1))
    page = look(context, server)
    expect(page).to_have_title("FAILING: " + page.get_by_role("heading", level=1).inner_text())
    expect(page.get_by_role("heading", level=1)).to_contain_text("drift_is_within_budgets fails")
    command = page.locator("p.command").first
    expect(command).to_have_text('recon reconcile --all --approve-run 0c1d7a52 --approve "your reason"')
    assert is_on_screen(page, command.bounding_box())
    expect(page.get_by_role("link", name="Open in Dagster")).to_have_attribute(
        "href", "http://127.0.0.1:3000/assets/counter_drift?view=checks&checkDetail=drift_is_within_budgets"
    )
    take(page, pictures, "overview")


def is_on_screen(page: Page, box: object) -> bool:
    size = page.viewport_size
    return isinstance(box, dict) and size is not None and box["y"] + box["height"] <= size["height"]


def take(page: Page, pictures: Path | None, name: str) -> None:
    """A picture of what is on the screen first, if one is wanted."""
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        is_phone = page.viewport_size == {"width": PHONE[0], "height": PHONE[1]}
        page.screenshot(path=pictures / f"{name}{'-phone' if is_phone else ''}.png", full_page=not is_phone)


def test_a_run_that_failed_and_runs_that_stopped_say_why(
    context: BrowserContext, server: Server, history: History
) -> None:
    history.run("clean", ago=timedelta(minutes=25))
    history.run("failed", ago=timedelta(minutes=20), error="Connection refused\nWhat to do: start it.")
    page = look(context, server)
    expect(page.get_by_role("heading", level=1)).to_have_text("2 things fail")
    expect(page.get_by_role("heading", name="The latest run failed")).to_be_visible()
    expect(page.get_by_text("What to do: start it.")).to_be_visible()
    expect(page.get_by_role("heading", name="No run has succeeded for 15 minutes")).to_be_visible()


def test_soon_after_the_first_run_began_nobody_reads_that_runs_are_missing_for_long(
    context: BrowserContext, server: Server, history: History
) -> None:
    history.run("compared", ago=timedelta(minutes=2))
    page = look(context, server)
    expect(page.get_by_role("heading", level=1)).to_have_text("No run has succeeded yet")
    expect(page.get_by_text("The first run on this database began 2 minutes ago.")).to_be_visible()
    expect(page).to_have_title("! No run has succeeded yet")
    history.run("compared", ago=timedelta(minutes=16))
    page = look(context, server)
    expect(page).to_have_title("FAILING: No run has succeeded yet")
    expect(
        page.get_by_text("The first run on this database began 16 minutes ago. Drift is not detected.")
    ).to_be_visible()


def test_a_pause_and_hundreds_of_holds_are_shown_and_the_latest_are_folded(
    context: BrowserContext, server: Server, history: History
) -> None:
    history.run("paused", ago=timedelta(minutes=4), drift=5)
    history.pause("INC-77")
    history.hold(300)
    page = look(context, server)
    expect(page.get_by_role("heading", level=1)).to_have_text("Repairs are paused")
    expect(page.get_by_role("heading", name="Open holds: 300")).to_be_visible()
    expect(page.get_by_role("link", name="cus_000020")).to_be_visible()
    expect(page.get_by_role("link", name="cus_000021")).to_be_hidden()
    page.get_by_text("280 more").click()
    expect(page.get_by_role("link", name="cus_000300")).to_be_visible()


def test_a_customer_is_explained_from_a_search_and_by_address(
    context: BrowserContext, server: Server, history: History, application: Application
) -> None:
    with psycopg.connect(application.url) as connection:
        row = connection.execute(
            "select gateway_customer_id from billing_usage_events group by 1 order by count(*) desc, 1 limit 1"
        ).fetchone()
    assert row is not None
    page = look(context, server)
    page.get_by_label("customer id").fill(row[0])
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(row[0])
    expect(page.get_by_role("img", name="adds up to")).to_be_visible()
    expect(page.get_by_text("event sum", exact=True).first).to_be_visible()
    page = look(context, server, f"/customers/{row[0]}")
    expect(page.get_by_role("heading", level=1)).to_have_text(row[0])
    page.get_by_role("link", name="stripe:remote_commands").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(row[0])


def test_a_customers_id_is_text_wherever_it_is_shown_and_leads_to_the_customer(
    context: BrowserContext, server: Server, history: History, application: Application
) -> None:
    with psycopg.connect(application.url, autocommit=True) as connection:
        connection.execute(
            "insert into billing_usage_counters (gateway_name, gateway_customer_id, usage_type, period_start, "
            "period_end, usage_count) select 'stripe', %s, 'remote_commands', date_trunc('month', now()), "
            "date_trunc('month', now()) + interval '1 month', 3 on conflict do nothing",
            (HOSTILE,),
        )
    history.hold_one(HOSTILE, "<b>because</b>")
    page = look(context, server)
    expect(page.get_by_text("<b>because</b>")).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(
        look(context, server, f"/customers/{quote('x/' + HOSTILE, safe='')}").get_by_role("heading", level=1)
    ).to_have_text("This was not found")
    assert page.locator("img:not([role])").count() == 0


@pytest.mark.parametrize(
    "path", ["/customers", "/customers?id=", "/customers/nobody", "/customers/a%00b", "/customers?id=a&period=May"]
)
def test_what_is_not_there_is_a_page_that_says_what_to_do(
    context: BrowserContext, server: Server, history: History, path: str
) -> None:
    page = look(context, server, path)
    expect(page.get_by_text("What to do: ")).to_be_visible()


def test_a_database_that_cannot_be_used_is_a_page_without_a_secret(
    context: BrowserContext, server: Server, history: History, application: Application
) -> None:
    with psycopg.connect(application.url, autocommit=True) as connection:
        connection.execute("alter table recon.schema_version rename to elsewhere")
        try:
            page = look(context, server)
        finally:
            connection.execute("alter table recon.elsewhere rename to schema_version")
    expect(page.get_by_role("heading", level=1)).to_have_text("The billing database is of another release")
    expect(page.get_by_text("What to do: ")).to_contain_text("recon init")
