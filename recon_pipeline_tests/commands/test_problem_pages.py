"""What the pages of `recon serve` show while the billing database cannot be used; they come back by themselves."""

from collections.abc import Generator
from contextlib import contextmanager
from html import unescape

import pytest

from recon_pipeline.faces.serve.access import Secrets
from recon_pipeline.faces.serve.app import create_app
from recon_pipeline.faces.serve.guard import Guard
from recon_pipeline.faces.serve.pages import add_pages
from recon_pipeline.faces.serve.runner import Runner
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import OwnServer, migrate
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.serving import Caller, Reply, serving_here

SECRET = "reading-hunter2secret"
NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/nothing"
RELOADS = '<meta http-equiv="refresh" content="60">'
PATHS = ["/", "/customers/a"]


@contextmanager
def pages(url: str) -> Generator[Caller]:
    """The pages of a server on that database."""
    settings, database, guard = read_settings(), BillingDatabase(url), Guard(Secrets(reading=(SECRET,)))
    app = create_app(Runner(settings, database), guard, settings.scope, version="1")
    add_pages(app, database, settings, guard, ui_url="")
    with serving_here(app) as caller:
        yield caller


def look(caller: Caller, path: str) -> Reply:
    """The page, as a browser of somebody who has logged in gets it."""
    return caller.get(path, Authorization=f"Bearer {SECRET}")


def test_a_page_about_a_database_that_is_down_loads_itself_again_and_advises_no_run() -> None:
    with pages(NOBODY) as caller:
        for path in PATHS:
            page = look(caller, path)
            assert page.status == 503
            assert RELOADS in page.body
            assert "<h1>The billing database is down</h1>" in page.body
            assert "What to do: Check that the server runs and that DATABASE_URL names it.</p>" in page.body
            assert "run again" not in page.body
            assert "hunter2" not in page.body


@pytest.mark.parametrize(
    ("closed", "opened", "title"),
    [
        (
            "alter role pages nologin",
            "alter role pages login",
            "The billing database does not let recon serve in",
        ),
        (
            "alter table billing_usage_events enable row level security; alter role pages nobypassrls",
            "alter role pages bypassrls",
            "The billing database cannot be used",
        ),
    ],
)
def test_a_page_that_the_database_refused_is_503_and_the_next_one_is_whole(
    own_server: OwnServer, closed: str, opened: str, title: str
) -> None:
    url = own_server.create_database("pages", migrate)
    with connected(url, autocommit=True) as connection:
        connection.execute("drop role if exists pages")
        connection.execute("create role pages login bypassrls in role pg_read_all_data, pg_write_all_data")
        connection.execute(
            "insert into billing_usage_counters values (default, 'stripe', 'a', 'remote_commands',"
            " '2026-11-01Z', '2026-12-01Z', 3)"
        )
        with pages(url.replace("postgres@", "pages@")) as caller:
            connection.execute(closed.encode())
            refused = [look(caller, path) for path in PATHS]
            connection.execute(opened.encode())
            served = [look(caller, path) for path in PATHS]

    assert [page.status for page in (*refused, *served)] == [503, 503, 200, 200]
    for page in refused:
        assert RELOADS in page.body
        assert f"<h1>{title}</h1>" in unescape(page.body)


def test_pages_name_the_installation_in_title_and_heading(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    billing.record("a", 3)
    with pages(billing.url) as caller:
        unnamed = [look(caller, path).body for path in (*PATHS, "/customers/nobody")]
        monkeypatch.setenv("RECON_NAME", "eu")
        named = [look(caller, path).body for path in (*PATHS, "/customers/nobody")]

    for before, after in zip(unnamed, named, strict=True):
        assert "<title>eu: " not in before
        assert '<a href="/">recon</a>' in before
        assert "<title>eu: " in after
        assert '<a href="/">recon eu</a>' in after


def test_the_page_of_a_customer_says_that_the_latest_run_was_blocked(billing: Billing) -> None:
    billing.add_event("a", 5)
    billing.add_counter("a", 3)
    command = 'recon reconcile --period 2025-05 --approve-run 1 --approve "your reason"'
    billing.query(
        "insert into recon.reconciliation_run (run_id, scope, first_partition, last_partition, mode, outcome, error,"
        " started_at, finished_at) values ('1', '{stripe:remote_commands}', '2025-05', '2025-05', 'full', 'blocked',"
        " %s, now(), now())",
        f"Blocked: 1 counter.\nNo counter was changed.\nWhat to do: Look. If it is right:\n{command}",
    )
    with pages(billing.url) as caller:
        page = unescape(look(caller, "/customers/a?period=2025-05").body)

    assert "<p>The latest run over this customer was blocked.</p>" in page
    assert "<p>Blocked: 1 counter.</p>" in page
    assert f'<p class="command"><code>{command}</code></p>' in page
