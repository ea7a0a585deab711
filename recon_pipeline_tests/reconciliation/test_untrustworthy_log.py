"""It refuses to be fooled: nothing is repaired from a log that cannot be trusted; the error names cause and fix."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from recon_pipeline.core.errors import ReconError, UntrustworthyLogError
from recon_pipeline.core.findings import Verdict
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.requirements import check_database
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, PrivateServer
from recon_pipeline_tests.reconciliation.increments import tick
from recon_pipeline_tests.reconciliation.product import new_run, reconcile, run_job
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until_blocked
from recon_pipeline_tests.support.assets import run_assets

ROW_SECURITY = """
    alter table {table} enable row level security;
    create policy nobody on {table} using (false);
"""
GRANTS = """
    grant select on billing_usage_events, billing_subscriptions to {role};
    grant select, insert, update on billing_usage_counters to {role};
    grant all on schema recon to {role};
    grant all on all tables in schema recon to {role};
    grant usage on all sequences in schema recon to {role};
"""


def let_drift(billing: Billing) -> None:
    billing.record("a", 10)
    billing.set_counter("a", 4)


def refusal(url: str) -> UntrustworthyLogError:
    with pytest.raises(UntrustworthyLogError) as caught:
        reconcile(url)
    assert caught.value.changed == "No counter was changed."
    return caught.value


@contextmanager
def role(billing: Billing, options: str = "") -> Iterator[str]:
    """The URL for a role that may do what the pipeline needs and has these options."""
    name = f"recon_test_{secrets.token_hex(4)}"
    billing.query(f"create role {name} login {options}")
    try:
        billing.connection.execute(GRANTS.format(role=name).encode())
        url = urlsplit(billing.url)
        _, at, host = url.netloc.rpartition("@")
        yield url._replace(netloc=f"{name}{at or '@'}{host}").geturl()
    finally:
        billing.query(f"drop owned by {name}")
        billing.query(f"drop role {name}")


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters", "billing_subscriptions"])
def test_row_level_security_that_is_active_for_our_role_is_refused(billing: Billing, table: str) -> None:
    let_drift(billing)
    billing.connection.execute(ROW_SECURITY.format(table=table).encode())

    with role(billing) as url:
        error = refusal(url)

    assert f"Row level security is active on {table}" in error.what
    assert "bypassrls" in error.fix
    assert billing.counters() == {"a": 4}


def test_row_level_security_that_is_forced_on_the_owner_is_refused(billing: Billing) -> None:
    let_drift(billing)
    with role(billing) as url:
        name = urlsplit(url).username
        billing.query("alter table billing_usage_events enable row level security")
        billing.query(f"alter table billing_usage_events owner to {name}")
        assert reconcile(url).repaired == 1, "an owner whom row security does not concern works"
        billing.query("alter table billing_usage_events force row level security")

        assert "Row level security" in refusal(url).what

        billing.query("alter table billing_usage_events owner to current_user")


FULL_SIGHT = """
    alter table billing_usage_events enable row level security;
    alter table billing_usage_counters enable row level security;
    alter table billing_subscriptions enable row level security;
    create policy reads on billing_usage_events for select to {role} using (true);
    create policy writes on billing_usage_counters to {role} using (true) with check (true);
    create policy reads on billing_subscriptions for select to {role} using (true);
"""


def let_see_all(billing: Billing, url: str, *, role_name: str | None = None) -> str:
    """Policies by which the role of that URL sees every row; returns the role's name."""
    name = urlsplit(url).username or ""
    billing.connection.execute(FULL_SIGHT.format(role=role_name or name).encode())
    return name


@pytest.mark.parametrize("to", [None, "public"])
def test_policies_that_let_our_role_see_every_row_are_full_sight(billing: Billing, to: str | None) -> None:
    let_drift(billing)
    billing.add_event("b", 3)
    with role(billing) as url:
        let_see_all(billing, url, role_name=to)
        outcome = reconcile(url)
        with BillingDatabase(url).transaction() as connection:
            verdicts = {one.requirement: one.verdict for one in check_database(connection)}

    assert outcome.repaired == 2
    assert billing.counters() == {"a": 10, "b": 3}
    assert verdicts["billing_usage_counters row level security"] is Verdict.PASS


@pytest.mark.parametrize(
    ("change", "table"),
    [
        (
            "create policy narrow on billing_usage_events as restrictive using (gateway_customer_id <> 'a')",
            "billing_usage_events",
        ),
        (
            "create policy narrow on billing_subscriptions as restrictive to {others} using (false)",
            "billing_subscriptions",
        ),
        ("alter policy reads on billing_usage_events using (gateway_customer_id <> 'a')", "billing_usage_events"),
        ("alter policy reads on billing_usage_events to {others}", "billing_usage_events"),
        ("alter policy writes on billing_usage_counters with check (usage_count < 5)", "billing_usage_counters"),
        (
            "drop policy writes on billing_usage_counters; "
            "create policy reads on billing_usage_counters for select using (true)",
            "billing_usage_counters",
        ),
        ("drop policy reads on billing_subscriptions", "billing_subscriptions"),
    ],
)
def test_a_policy_that_could_hide_a_row_is_refused(billing: Billing, change: str, table: str) -> None:
    """A membership of our role can end in the middle of a run, with no table locked: it must not count."""
    let_drift(billing)
    with role(billing) as url, role(billing) as others:
        name, group = let_see_all(billing, url), urlsplit(others).username
        billing.query(f"grant {group} to {name}")
        billing.connection.execute(change.format(others=group).encode())

        error = refusal(url)

    assert f"Row level security is active on {table} for role {name}" in error.what
    assert ("The restrictive policy narrow narrows" in error.what) == ("restrictive" in change)
    assert billing.counters() == {"a": 4}


def test_the_policy_that_a_refusal_asks_for_is_what_was_missing(billing: Billing) -> None:
    let_drift(billing)
    with role(billing) as url:
        let_see_all(billing, url)
        for table in ("billing_usage_events", "billing_usage_counters", "billing_subscriptions"):
            billing.query(f"drop policy {'writes' if table.endswith('counters') else 'reads'} on {table}")
            billing.connection.execute(refusal(url).fix.split("as the owner of the table: ")[1].encode())

        assert reconcile(url).repaired == 1


def test_a_view_of_subscriptions_is_refused_where_policies_apply(billing: Billing) -> None:
    billing.query("alter table billing_subscriptions rename to all_subscriptions")
    billing.query("create view billing_subscriptions as select * from all_subscriptions")
    let_drift(billing)
    with role(billing) as url:
        name = urlsplit(url).username
        assert reconcile(url).repaired == 1, "without row level security a view is fine"
        for table in ("billing_usage_events", "billing_usage_counters"):
            billing.query(f"alter table {table} enable row level security")
            billing.query(f"create policy all_rows on {table} to {name} using (true) with check (true)")

        assert "billing_subscriptions is a view, and row level security is active" in refusal(url).what


def test_no_policy_changes_while_it_is_relied_on(billing: Billing) -> None:
    with role(billing) as url:
        let_see_all(billing, url)
        with BillingDatabase(url).transaction() as connection:
            see_every_row(connection, "billing_usage_counters")
            billing.query("set lock_timeout = 200")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                billing.query("drop policy writes on billing_usage_counters")
            billing.query("reset lock_timeout")


def test_a_role_with_bypassrls_works(billing: Billing) -> None:
    let_drift(billing)
    billing.connection.execute(ROW_SECURITY.format(table="billing_usage_events").encode())

    with role(billing, "bypassrls") as url:
        outcome = reconcile(url)

    assert outcome.repaired == 1
    assert billing.counters() == {"a": 10}


def test_a_standby_is_refused(private_server: PrivateServer) -> None:
    with private_server.billing() as billing:
        let_drift(billing)
    private_server.become_standby()

    error = refusal(billing.url)

    assert "is a standby" in error.what
    assert "primary" in error.fix


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("drop table billing_usage_events", "There is no table billing_usage_events"),
        ("drop table billing_usage_counters", "There is no table billing_usage_counters"),
        ("alter table billing_usage_events drop column quantity", "billing_usage_events has no column quantity"),
        ("alter table billing_usage_events rename created_at to made_at", "has no column created_at"),
        (
            "alter table billing_usage_counters drop column updated_at",
            "billing_usage_counters has no column updated_at",
        ),
        ("alter table billing_subscriptions drop column status", "billing_subscriptions has no column status"),
        (
            "alter table billing_usage_events alter period_start type timestamp",
            "billing_usage_events.period_start is timestamp without time zone, not timestamp with time zone",
        ),
        ("alter table billing_usage_events alter quantity type float8", "quantity is double precision"),
        ("alter table billing_usage_counters alter period_end type timestamp", "billing_usage_counters.period_end is"),
        (
            "alter table billing_usage_counters alter usage_count type numeric",
            "usage_count is numeric, not bigint or integer",
        ),
        (
            "alter table billing_usage_counters drop constraint if exists "
            "billing_usage_counters_gateway_name_gateway_customer_id_usa_key",
            "billing_usage_counters has no unique key",
        ),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_refused(make_billing: MakeBilling, broken: str, what: str) -> None:
    error = refusal(make_billing(broken).url)

    assert what in error.what
    assert error.fix


@pytest.mark.parametrize(
    "index",
    [
        "create unique index on billing_usage_counters "
        "(gateway_name, gateway_customer_id, usage_type, period_start, period_end) where usage_count > 0",
        "create unique index on billing_usage_counters "
        "(gateway_name, lower(gateway_customer_id), usage_type, period_start, period_end)",
        "alter table billing_usage_counters add constraint late unique "
        "(gateway_name, gateway_customer_id, usage_type, period_start, period_end) deferrable",
        "create unique index on billing_usage_counters "
        "(gateway_name, gateway_customer_id, usage_type, period_start, period_end, id)",
    ],
)
def test_a_key_that_is_not_unique_at_every_moment_is_no_unique_key(make_billing: MakeBilling, index: str) -> None:
    billing = make_billing(
        "alter table billing_usage_counters drop constraint "
        f"billing_usage_counters_gateway_name_gateway_customer_id_usa_key; {index}"
    )

    assert "has no unique key" in refusal(billing.url).what


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters", "billing_subscriptions"])
def test_a_table_that_our_role_may_not_read_is_refused(billing: Billing, table: str) -> None:
    let_drift(billing)
    with role(billing) as url:
        name = urlsplit(url).username
        billing.query(f"revoke select on {table} from {name}")

        error = refusal(url)

    assert f"may not read {table}" in error.what
    assert error.fix.startswith(f"grant select on {table}")


def test_a_missing_privilege_to_write_fails_each_key_with_its_error(billing: Billing) -> None:
    let_drift(billing)
    with role(billing) as url:
        billing.query(f"revoke update on billing_usage_counters from {urlsplit(url).username}")

        outcome = reconcile(url)

    assert (outcome.repaired, outcome.failed) == (0, 1)
    assert "permission denied" in billing.value("select error from recon.counter_drift")
    assert billing.counters() == {"a": 4}


def test_a_schema_that_was_never_prepared_is_reported_with_its_fix(make_billing: MakeBilling) -> None:
    with pytest.raises(ReconError) as caught:
        reconcile(make_billing("drop schema recon cascade").url)

    assert "recon init" in caught.value.fix


def test_a_refused_log_fails_the_job_in_the_words_of_the_error(job_billing: Billing) -> None:
    let_drift(job_billing)
    job_billing.query("alter table billing_usage_events alter period_start type timestamp")

    result = run_assets()

    assert not result.success
    assert "What to do: Check that search_path" in result.errors
    assert job_billing.value("select count(*) from recon.counter_drift") == 0
    assert job_billing.counters() == {"a": 4}


def test_an_empty_log_beside_counters_blocks_the_job_until_a_person_approves(job_billing: Billing) -> None:
    let_drift(job_billing)
    job_billing.query("truncate billing_usage_events")

    blocked = run_assets()

    assert not blocked.success
    check = blocked.check("event_log_is_visible")
    assert not check.passed
    assert "Not one event of stripe:remote_commands is visible" in (check.description or "")
    would_change: Any = check.metadata["would_change"].value
    assert [row.data["gateway_customer_id"] for row in would_change.records] == ["a"]
    assert job_billing.counters() == {"a": 4}
    assert job_billing.ledger() == []
    assert job_billing.value("select outcome from recon.reconciliation_run") == "blocked"

    shown = run_assets(approve_reason="the customer was erased", approved_by="ada")

    assert shown.success
    assert shown.check("events_stay_in_the_log").metadata["count"].value == 1
    assert job_billing.counters() == {"a": 4}, "that the log is empty was all that anybody was shown"
    approved = run_assets(approve_reason="the customer was erased", approved_by="ada")
    assert approved.success
    assert job_billing.counters() == {"a": 0}
    assert job_billing.ledger() == [("a", "orphan", 4, 0)]
    assert job_billing.query(
        "select approved_by, approved_reason, outcome from recon.reconciliation_run where run_id = %s", approved.run_id
    ) == [("ada", "the customer was erased", "clean")]


def test_an_empty_log_is_asked_over_all_months_and_customers(job_billing: Billing) -> None:
    job_billing.add_counter("a", 4)
    job_billing.query(
        "select record_billing_usage_event("
        "'stripe', 'b', 'remote_commands', 'r', '2026-01-01 00:00Z', '2026-02-01 00:00Z')"
    )

    result = run_assets(customers=["a"])

    assert result.check("event_log_is_visible").passed
    assert job_billing.counters() == {"a": 0}


def test_materializing_only_the_repair_does_not_get_around_the_empty_log(job_billing: Billing) -> None:
    let_drift(job_billing)
    job_billing.query("truncate billing_usage_events")

    result = run_job(only="repaired_counters")

    assert not result.success
    assert job_billing.counters() == {"a": 4}
    assert job_billing.ledger() == []


def test_an_empty_log_with_counters_of_0_is_an_empty_project(job_billing: Billing) -> None:
    job_billing.add_counter("a", 0)

    result = run_assets()

    assert result.success
    assert result.check("counters_match_event_sums").passed


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("alter table billing_usage_events rename column quantity to amount", "no column quantity"),
        ("alter table billing_usage_counters alter usage_count type numeric", "usage_count is numeric"),
        (
            "alter table billing_usage_counters drop constraint "
            "billing_usage_counters_gateway_name_gateway_customer_id_usa_key",
            "no unique key",
        ),
        ("alter table billing_subscriptions rename column status to state", "no column status"),
        ("create schema elsewhere; alter table billing_usage_events set schema elsewhere", "no table"),
    ],
)
def test_a_change_of_the_tables_between_two_steps_of_one_run_is_noticed(
    billing: Billing, change: str, refused: str
) -> None:
    database = BillingDatabase(billing.url, keeps_connection=True)
    with database.transaction() as connection:
        require_trustworthy(connection)
        known = connection.info[BillingTables]
    with database.transaction() as connection:
        require_trustworthy(connection)
        assert connection.info[BillingTables] is known, "nothing changed, so nothing was looked up again"

    billing.connection.execute(change.encode())

    with database.transaction() as connection, pytest.raises(UntrustworthyLogError, match=refused):
        require_trustworthy(connection)
    database.close()


def test_a_role_that_loses_its_sight_of_rows_between_two_steps_of_one_run_is_refused(billing: Billing) -> None:
    """No table changes when a role loses BYPASSRLS, so what was looked up before would still seem to hold."""
    billing.connection.execute(ROW_SECURITY.format(table="billing_usage_events").encode())
    with role(billing, "bypassrls") as url:
        database = BillingDatabase(url, keeps_connection=True)
        with database.transaction() as connection:
            require_trustworthy(connection)
            name = connection.exec_driver_sql("select current_user").scalar_one()

        billing.query(f"alter role {name} nobypassrls")

        with database.transaction() as connection, pytest.raises(UntrustworthyLogError, match="Row level security"):
            require_trustworthy(connection)
        database.close()


def test_a_table_that_admits_repeated_request_ids_from_now_on_is_read_that_way(billing: Billing) -> None:
    database = BillingDatabase(billing.url, keeps_connection=True)
    with database.transaction() as connection:
        assert require_trustworthy(connection).refuses_repetitions

    billing.query("alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key")

    with database.transaction() as connection:
        assert not require_trustworthy(connection).refuses_repetitions
    database.close()


FOREIGN = "create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;"
LOG_COLUMNS = """
    id uuid, gateway_name text, gateway_customer_id text, usage_type text, request_id text, quantity integer,
    period_start timestamptz, period_end timestamptz, event_timestamp timestamptz, created_at timestamptz
"""


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        (
            f"{FOREIGN} drop table billing_usage_events; "
            f"create foreign table billing_usage_events ({LOG_COLUMNS}) server nowhere",
            "billing_usage_events is a foreign table: it can neither be locked nor read at one snapshot",
            "Point DATABASE_URL at the database that holds billing_usage_events itself",
        ),
        (
            f"{FOREIGN} drop table billing_usage_events; "
            f"create table billing_usage_events ({LOG_COLUMNS}) partition by range (period_start); "
            "create table here partition of billing_usage_events default; "
            "create foreign table elsewhere partition of billing_usage_events "
            "for values from ('2020-01-01') to ('2021-01-01') server nowhere",
            "elsewhere is a foreign table, and a part of billing_usage_events",
            "alter table billing_usage_events detach partition elsewhere;",
        ),
        (
            "alter table billing_usage_events rename to log; "
            "create materialized view billing_usage_events as select * from log",
            "billing_usage_events is a materialized view, which is as old as its last refresh",
            "Let search_path find the table billing_usage_events itself",
        ),
        (
            "create table heir () inherits (billing_usage_counters)",
            "Table heir inherits from billing_usage_counters without being a partition of it",
            "alter table heir no inherit billing_usage_counters;",
        ),
    ],
)
def test_a_table_of_a_kind_that_cannot_be_worked_with_is_refused_with_the_fix(
    billing: Billing, change: str, what: str, fix: str
) -> None:
    billing.connection.execute(change.encode())

    error = refusal(billing.url)

    assert what in error.what
    assert fix in error.fix
    with BillingDatabase(billing.url).transaction() as connection:
        found = [one for one in check_database(connection) if one.verdict is Verdict.FAIL]
    assert [(what in one.detail, fix in (one.fix or "")) for one in found if "kind" in one.requirement] == [
        (True, True)
    ]


def test_counters_that_get_an_inheriting_table_between_two_steps_are_refused(billing: Billing) -> None:
    """A counter of an inheriting table is a second one of its key: setting one right makes the other wrong."""
    let_drift(billing)
    database = BillingDatabase(billing.url, keeps_connection=True)
    with database.connection() as connection, decision(connection):
        pass
    billing.query("create table heir (like billing_usage_counters including all) inherits (billing_usage_counters)")
    billing.query("insert into heir select * from billing_usage_counters")

    with (
        pytest.raises(UntrustworthyLogError, match="inherits"),
        database.connection() as connection,
        decision(connection),
    ):
        pass
    database.close()
    assert refusal(billing.url)
    assert billing.query("select usage_count from billing_usage_counters") == [(4,), (4,)]

    billing.query("alter table heir no inherit billing_usage_counters")
    assert reconcile(billing.url).repaired == 1


def test_partitions_of_the_counters_are_no_heirs(billing: Billing) -> None:
    billing.connection.execute(
        b"""
        create table parted (like billing_usage_counters including defaults) partition by range (period_start);
        create table whole partition of parted default;
        alter table parted add unique (gateway_name, gateway_customer_id, usage_type, period_start, period_end);
        drop table billing_usage_counters;
        alter table parted rename to billing_usage_counters;
        """
    )
    billing.add_event("a", 10)

    assert reconcile(billing.url).repaired == 1


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_subscriptions_may_be_a_view_of_any_kind(billing: Billing, kind: str) -> None:
    """LOCK TABLE takes no materialized view; limits need no lock."""
    billing.query("alter table billing_subscriptions rename to contracts")
    billing.query(f"create {kind} billing_subscriptions as select * from contracts")
    let_drift(billing)

    assert reconcile(billing.url).repaired == 1


MIGRATIONS = (
    "alter table billing_usage_events alter quantity type bigint",
    "alter table billing_usage_events add column tag uuid default gen_random_uuid()",
    "create temporary table kept as select * from billing_usage_events; truncate billing_usage_events; "
    "insert into billing_usage_events select * from kept",
    "alter table billing_usage_counters add column tag uuid default gen_random_uuid()",
)


@pytest.mark.parametrize("migration", MIGRATIONS)
@pytest.mark.parametrize("step", ["compare", "verify"])
def test_a_migration_that_a_step_waits_for_never_makes_it_see_an_empty_table(
    billing: Billing, migration: str, step: str
) -> None:
    """A snapshot from before a rewriting ALTER sees none of the rows: every right counter was set to 0."""
    for customer in "abc":
        billing.record(customer, 10)
    tick(billing.url)
    run = new_run(billing.url)
    if step == "verify":
        run.compare()
    with billing.session() as application, background() as start:
        application.connection.execute(migration.encode())
        waiting = start(run.compare if step == "compare" else run.verify)
        wait_until_blocked(billing, PRODUCT)
        application.connection.commit()
        found = waiting.result(timeout=20)

    assert (found.summary.drift_count if step == "compare" else found.mismatch_count) == 0
    tick(billing.url)
    assert (billing.counters(), billing.ledger()) == (dict.fromkeys("abc", 10), [])


@pytest.mark.parametrize("migration", MIGRATIONS)
def test_a_repair_that_meets_a_migration_between_two_steps_sets_counters_to_what_the_log_says(
    billing: Billing, migration: str
) -> None:
    for customer in "abc":
        billing.record(customer, 10)
    billing.set_counter("a", 3)
    run = new_run(billing.url)
    assert run.compare().summary.drift_count == 1
    with billing.session() as application, background() as start:
        application.connection.execute(migration.encode())
        waiting = start(run.repair)
        wait_until_blocked(billing, PRODUCT)
        application.connection.commit()
        assert waiting.result(timeout=20).repaired == 1

    assert billing.counters() == dict.fromkeys("abc", 10)
    assert billing.ledger() == [("a", "under", 3, 10)]


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters", "billing_subscriptions"])
def test_a_run_that_finds_a_table_locked_for_long_is_put_off_and_changes_nothing(
    job_billing: Billing, table: str
) -> None:
    let_drift(job_billing)
    with job_billing.session() as application:
        application.query(f"lock table {table}")
        result = run_assets()
        application.connection.rollback()

    assert not result.success
    assert "The run was put off" in result.errors
    assert (job_billing.counters(), job_billing.ledger()) == ({"a": 4}, [])
    assert run_assets().success
    assert job_billing.counters() == {"a": 10}
