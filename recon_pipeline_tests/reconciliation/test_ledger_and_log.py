"""Every change is accounted for in an append-only ledger; the log is sacred, and need not be changeable."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from recon_pipeline.store.counters import repair
from recon_pipeline_tests.reconciliation.billing import BIGINT_MAX, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import reconcile
from recon_pipeline_tests.support.acceptance import accept_usages
from recon_pipeline_tests.support.assets import run_assets

LEAST = """
    grant usage on schema public to {role};
    grant select on billing_usage_events, billing_subscriptions, billing_usage_counters to {role};
    grant insert, update (usage_count, updated_at) on billing_usage_counters to {role};
    grant create on database {database} to {role};
"""
ROW = "'stripe', 'remote_commands', 'a', '2025-05-01 00:00Z', '2025-06-01 00:00Z'"


def let_every_kind_drift(billing: Billing) -> None:
    billing.add_event("missing", 10)
    billing.add_event("over", 10)
    billing.add_counter("over", 60)
    billing.add_counter("orphan", 4)
    billing.add_event("under", 10)
    billing.add_counter("under", 3)
    billing.record("right", 7)


def test_the_ledger_says_what_every_counter_was_and_became(billing: Billing) -> None:
    let_every_kind_drift(billing)

    reconcile(billing.url)

    assert sorted(billing.ledger("gateway_customer_id, kind, usage_count_before, usage_count_after, usage_delta")) == [
        ("missing", "missing", None, 10, 10),
        ("orphan", "orphan", 4, 0, -4),
        ("over", "over", 60, 10, -50),
        ("under", "under", 3, 10, 7),
    ]
    assert billing.value("select count(distinct run_id) from recon.counter_repair") == 1
    assert billing.value(
        "select bool_and(repaired_at between now() - interval '1 minute' and now()) from recon.counter_repair"
    )


def test_a_second_run_over_repaired_counters_writes_nothing(billing: Billing) -> None:
    let_every_kind_drift(billing)
    reconcile(billing.url)
    before = billing.query("select *, xmin from billing_usage_counters order by id")

    reconcile(billing.url)

    assert billing.query("select *, xmin from billing_usage_counters order by id") == before
    assert len(billing.ledger()) == 4


@pytest.mark.parametrize(
    "change",
    [
        "update recon.counter_repair set run_id = 'other'",
        "update recon.counter_repair set usage_count_after = 0 where false",
        "delete from recon.counter_repair",
        "truncate recon.counter_repair",
    ],
)
def test_the_ledger_refuses_every_change(billing: Billing, change: str) -> None:
    let_every_kind_drift(billing)
    reconcile(billing.url)

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"):
        billing.query(change)

    assert len(billing.ledger()) == 4


@pytest.mark.parametrize(
    ("before", "after", "limit", "delta", "over", "under"),
    [
        (None, 49, 50, 49, False, False),
        (None, 50, 50, 50, True, False),
        (49, 50, 50, 1, True, False),
        (50, 51, 50, 1, False, False),
        (50, 49, 50, -1, False, True),
        (51, 50, 50, -1, False, False),
        (0, 10, None, 10, None, None),
        (0, BIGINT_MAX, BIGINT_MAX, BIGINT_MAX, True, False),
        (0, BIGINT_MAX - 1, BIGINT_MAX, BIGINT_MAX - 1, False, False),
        (-(2**63), BIGINT_MAX, 1, 2**64 - 1, True, False),
    ],
)
def test_deltas_and_transitions_of_the_ledger_follow_from_its_counts(
    billing: Billing,
    before: int | None,
    after: int,
    limit: int | None,
    delta: int,
    *,
    over: bool | None,
    under: bool | None,
) -> None:
    billing.query(
        "insert into recon.counter_repair (run_id, gateway_name, usage_type, gateway_customer_id, period_start, "
        f"period_end, kind, usage_count_before, usage_count_after, usage_limit) "
        f"values ('r', {ROW}, 'over', %s, %s, %s)",
        before,
        after,
        limit,
    )

    columns = "usage_delta, over_quota_transition, under_quota_transition"
    (found,) = billing.ledger(columns)
    assert found[0] == delta
    assert (bool(found[1]), bool(found[2])) == (bool(over), bool(under))


@contextmanager
def least_privileged(billing: Billing) -> Iterator[str]:
    """The URL for a role that owns schema `recon` and may do nothing to the application's tables but what it must."""
    role = f"recon_test_{secrets.token_hex(4)}"
    url = urlsplit(billing.url)
    _, at, host = url.netloc.rpartition("@")
    billing.query(f"create role {role} login")
    try:
        billing.connection.execute(LEAST.format(role=role, database=url.path[1:]).encode())
        billing.query("drop schema recon cascade")
        yield url._replace(netloc=f"{role}{at or '@'}{host}").geturl()
    finally:
        billing.query(f"drop owned by {role}")
        billing.query(f"drop role {role}")


def test_the_whole_pipeline_works_for_the_least_privileged_role_and_leaves_the_log_as_it_was(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon_pipeline.store.postgres.database import BillingDatabase
    from recon_pipeline.store.records.migrate import upgrade

    let_every_kind_drift(billing)
    billing.subscribe("over")
    log = billing.log_checksum()
    with least_privileged(billing) as url:
        with BillingDatabase(url).connection(any_schema_version=True) as connection:
            upgrade(connection)
        accept_usages(url)
        monkeypatch.setenv("DATABASE_URL", url)

        result = run_assets()

        assert result.success, result.errors
        assert result.check("counters_match_event_sums").passed
        assert billing.counters() == {"missing": 10, "orphan": 0, "over": 10, "right": 7, "under": 10}
        assert len(billing.ledger()) == 4
        assert billing.log_checksum() == log
        for change in ("update billing_usage_events set quantity = 1", "delete from billing_usage_events"):
            with psycopg.connect(url) as ours, pytest.raises(psycopg.errors.InsufficientPrivilege):
                ours.execute(change)


def test_a_ledger_of_the_version_before_is_kept_and_added_to(billing: Billing) -> None:
    from alembic import command

    from recon_pipeline.store.postgres.database import BillingDatabase, begin
    from recon_pipeline.store.records import migrate

    billing.query("drop schema recon cascade")
    billing.query("create schema recon")
    with BillingDatabase(billing.url).connection(any_schema_version=True) as connection:
        with begin(connection):
            config = migrate._config()
            config.attributes["connection"] = connection
            command.upgrade(config, "0002")
        key = "gateway_name, usage_type, gateway_customer_id, period_start, period_end"
        billing.query(
            f"insert into recon.counter_repair (run_id, {key}, kind, usage_count_before, usage_count_after) "
            f"values ('r', {ROW}, 'over', 5, 3), ('s', {ROW}, 'over', 3, 2)"
        )
        billing.query(
            f"insert into recon.counter_drift (run_id, ordinal, {key}, kind, usage_count, settled_sum, visible_sum, "
            f"outcome) values ('r', 1, {ROW}, 'over', 5, 3, 3, 'repaired')"
        )
        before = billing.ledger("id, run_id, repaired_at, gateway_customer_id, usage_count_before, usage_count_after")
        assert migrate.upgrade(connection)
        assert repair.summarize(connection, "r").repaired == 1

    let_every_kind_drift(billing)
    reconcile(billing.url)

    after = billing.ledger("id, run_id, repaired_at, gateway_customer_id, usage_count_before, usage_count_after")
    assert after[:2] == before
    assert len(after) == 2 + 4


def test_no_event_is_changed_whatever_is_repaired(make_billing: MakeBilling) -> None:
    billing = make_billing(
        """
        create function refuse() returns trigger language plpgsql as $$
            begin raise exception 'the log is sacred'; end $$;
        create trigger sacred before update or delete or truncate on billing_usage_events
            for each statement execute function refuse();
        """
    )
    let_every_kind_drift(billing)
    log = billing.log_checksum()

    assert reconcile(billing.url).repaired == 4

    assert billing.log_checksum() == log


def test_nothing_of_a_counter_changes_but_its_count_and_the_time_of_its_update(billing: Billing) -> None:
    let_every_kind_drift(billing)
    kept = (
        "select id, gateway_name, gateway_customer_id, usage_type, period_start, period_end, created_at "
        "from billing_usage_counters where gateway_customer_id <> 'missing' order by id"
    )
    before = billing.query(kept)
    billing.query("update billing_usage_counters set updated_at = '2020-01-01 00:00Z'")

    reconcile(billing.url)

    assert billing.query(kept) == before
    touched = (
        "select gateway_customer_id from billing_usage_counters where updated_at > now() - interval '1 hour' order by 1"
    )
    assert [row[0] for row in billing.query(touched)] == ["missing", "orphan", "over", "under"]
