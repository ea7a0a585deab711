"""One `recon dev`, one Chromium and one billing database for all tests here: starting them costs half a minute."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.browser.application import Application
from recon_pipeline_tests.browser.dev import eventually, running_dev
from recon_pipeline_tests.browser.ui import Ui
from recon_pipeline_tests.support.dagster import make_dagster_tables
from recon_pipeline_tests.support.postgres import PostgresServer

# Read when tests are collected: `clean_environment` takes it away before the first of them runs.
_PICTURES = os.environ.get("RECON_PICTURES")

_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--disable-component-update",
)
_PAGE_MS = 45_000
_UNFINISHED = """
    select (select count(*) from runs where status in ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED'))
        + (select count(*) from job_ticks where status = 'STARTED')
"""


@pytest.fixture(scope="module")
def months() -> tuple[BillingMonth, BillingMonth, BillingMonth]:
    """The first month of the story that is played, the last full one and the current one."""
    now = datetime.now(UTC)
    return _months_back(now, 6), _months_back(now, 1), _months_back(now, 0)


@pytest.fixture(scope="module")
def application(postgres_server: PostgresServer) -> Application:
    """An application without any usage yet."""
    return Application.install(postgres_server.create_database())


@pytest.fixture(scope="module")
def dagster_url(postgres_server: PostgresServer) -> str:
    """Dagster's database."""
    return postgres_server.create_database(postgres_server.template("dagster", make_dagster_tables))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(_CHROMIUM_ARGUMENTS))
        expect.set_options(timeout=_PAGE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures() -> Path | None:
    """The folder for pictures of pages, or None for none."""
    return Path(_PICTURES).absolute() if _PICTURES else None


@pytest.fixture(scope="module")
def browser_page(browser: Browser) -> Page:
    """A page in it."""
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.set_default_timeout(_PAGE_MS)
    return page


@pytest.fixture(scope="module")
def ui(
    browser_page: Page,
    application: Application,
    dagster_url: str,
    months: tuple[BillingMonth, ...],
    pictures: Path | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ui]:
    """The UI of a `recon dev`, as it is after its start."""
    environment = {
        "DATABASE_URL": application.url,
        "DAGSTER_PG_URL": dagster_url,
        "RECON_START_PERIOD": months[0].key,
    }
    with running_dev(tmp_path_factory.mktemp("browser") / "home", environment) as address:
        yield Ui(browser_page, address, pictures)


@pytest.fixture(scope="module")
def quiet_ui(ui: Ui, dagster_url: str) -> Ui:
    """The same with the schedule switched off by hand, so that nothing is repaired but by the test.

    It is on until then: that is the first thing seen.
    """
    ui.open("/automation")
    state, switch = ui.switch("reconcile_every_5_minutes")
    expect(state).to_be_checked()
    switch.click()
    expect(state).not_to_be_checked()
    eventually(lambda: _unfinished(dagster_url) == 0, seconds=120, what=lambda: "a run of the schedule does not end")
    return ui


def _unfinished(dagster_url: str) -> int:
    with psycopg.connect(dagster_url) as connection:
        row = connection.execute(_UNFINISHED.encode()).fetchone()
    assert row is not None
    return row[0]


def _months_back(now: datetime, count: int) -> BillingMonth:
    year, month = divmod(now.year * 12 + now.month - 1 - count, 12)
    return BillingMonth.parse(f"{year:04}-{month + 1:02}")
