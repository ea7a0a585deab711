"""A sealed month costs a tick nothing while nothing of it is new, and what the tick remembers of it is always true."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from recon_pipeline.store.counters import remembered_since_seals, since_seals
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import new_run
from recon_pipeline_tests.reconciliation.seals import reopen, seal
from recon_pipeline_tests.reconciliation.test_sealed_months import IN_MAY, LATER, ONE, OTHER, fill, run

KEYS = 3_000
USED_BY_MANY = f"""
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end
    )
    select 'stripe', 'many-' || n, 'remote_commands', 'many-' || n, 10, '2025-05-01 00:00Z', '2025-06-01 00:00Z'
    from generate_series(1, {KEYS}) as n;
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    )
    select 'stripe', 'many-' || n, 'remote_commands', '2025-05-01 00:00Z', '2025-06-01 00:00Z', 10
    from generate_series(1, {KEYS}) as n;
    analyze;
"""
LATER_STILL = {
    **LATER,
    "an event that is called otherwise": f"""
        update billing_usage_events set request_id = request_id || ' again' where quantity = 6 and {IN_MAY}
    """,
    "one that comes as another leaves": f"""
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end
        )
        select gateway_name, gateway_customer_id, usage_type, request_id || ' new', quantity, period_start, period_end
        from billing_usage_events where quantity = 6 and {IN_MAY};
        delete from billing_usage_events where quantity = 6 and request_id not like '% new' and {IN_MAY}
    """,
}
RESTORED = f"""
    delete from billing_usage_events where {IN_MAY};
    insert into billing_usage_events select * from kept
"""
_FETCHED = b"""
    select coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0)::bigint, pg_stat_force_next_flush()::text
    from pg_class
    where relnamespace in ('public'::regnamespace, 'recon'::regnamespace)
"""
_PAGES = "select pg_relation_size('recon.sealed_counter') / current_setting('block_size')::bigint"


@contextmanager
def blocks_fetched() -> Iterator[list[int]]:
    """How many blocks of tables and indexes each transaction of the product reads, as its own session counts them."""
    found: list[int] = []

    def count(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        found.append(driver.execute(_FETCHED).fetchone()[0])

    event.listen(Engine, "commit", count)
    try:
        yield found
    finally:
        event.remove(Engine, "commit", count)


def blocks_of_tick() -> int:
    with blocks_fetched() as found:
        assert run().success
    return sum(found)


def said() -> tuple[bool, str | None, str]:
    """What a tick says of sealed months."""
    check = run().check("sealed_months_hold")
    return check.passed, check.description, str(check.metadata.get("sample"))


def said_afresh(billing: Billing) -> tuple[bool, str | None, str]:
    """What it says if nothing is remembered."""
    billing.query("update recon.usage_month set since_seal = null")
    return said()


@pytest.fixture(params=["sealed", "archived"])
def closed(request: pytest.FixtureRequest, make_billing_in_mode: MakeBilling, tmp_path: Path, mode: str) -> Billing:
    """May is sealed, maybe archived too; June is open; a tick has seen that."""
    billing = fill(make_billing_in_mode(mode))
    seal(billing)
    if request.param == "archived":
        archive(billing, tmp_path)
    assert run().check("sealed_months_hold").passed
    return billing


@pytest.mark.parametrize("late", [0, 1])
def test_an_idle_tick_reads_no_more_blocks_once_a_month_is_sealed(make_billing_in_mode: MakeBilling, late: int) -> None:
    billing = fill(make_billing_in_mode("incremental"))
    billing.connection.execute(USED_BY_MANY.encode())
    before = [blocks_of_tick() for _ in range(2)][-1]
    seal(billing)
    for number in range(late):
        billing.add_event(f"late-{number}", 5)
    for _ in range(2):
        blocks_of_tick()
    pages = billing.value(_PAGES)
    after = blocks_of_tick()
    assert pages > 30, pages
    assert after < before + pages, (before, after)
    assert run().check("sealed_months_hold").passed is (late == 0)


@pytest.mark.parametrize("mode", ["incremental"])
def test_a_tick_says_of_sealed_months_what_it_would_say_if_it_remembered_nothing(closed: Billing) -> None:
    closed.connection.execute(f"create table kept as select * from billing_usage_events where {IN_MAY}".encode())
    found = said()
    for name, later in LATER_STILL.items():
        for happens in (later, RESTORED):
            closed.connection.execute(happens.encode())
            before, found = found, said()
            assert found == said_afresh(closed), (name, happens, before)
    closed.record(ONE, 3)
    found = said()
    assert not found[0]
    assert found == said() == said_afresh(closed)


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_a_run_for_one_customer_leaves_no_old_answer_behind(closed: Billing) -> None:
    for customer in (ONE, OTHER):
        closed.record(customer, 5)
        found = run(customers=[customer]).check("sealed_months_hold")
        assert not found.passed
        assert said() == said_afresh(closed)


@pytest.mark.parametrize("mode", ["incremental"])
def test_what_was_remembered_of_a_seal_says_nothing_of_the_next_one(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    billing = fill(make_billing_in_mode(mode))
    seal(billing)
    billing.record(ONE, 5)
    assert not said()[0]
    reopen(billing)
    assert run().record.outcome == "clean"
    billing.set_counter(ONE, 15)
    seal(billing)
    assert said()[0]
    reopen(billing)
    seal(billing)
    billing.query("delete from billing_usage_events where quantity = 5")
    assert not said()[0]


def late_event(billing: Billing) -> None:
    """Comes, is summed up by another run, and that has ended."""
    billing.add_event(ONE, 5)
    new_run(billing.url).aggregate()


@pytest.mark.parametrize("mode", ["incremental"])
@pytest.mark.parametrize("at", [since_seals.since_seals, remembered_since_seals.recall], ids=["after", "before"])
def test_what_a_tick_found_is_not_kept_if_the_sums_were_written_meanwhile(
    closed: Billing, monkeypatch: pytest.MonkeyPatch, at: Callable[..., Any]
) -> None:
    waiting = [late_event]

    def meanwhile(*args: Any) -> Any:
        found = at(*args)
        if waiting:
            waiting.pop()(closed)
        return found

    closed.query("update recon.usage_month set since_seal = null")
    module = since_seals if at is since_seals.since_seals else remembered_since_seals
    with monkeypatch.context() as patch:
        patch.setattr(module, at.__name__, meanwhile)
        run()
    assert waiting == []
    assert closed.query("select from recon.usage_month where partition = '2025-05' and since_seal is not null") == []
    found = said()
    assert (found[0], found) == (False, said_afresh(closed))


@pytest.mark.parametrize("mode", ["incremental"])
def test_nothing_is_kept_while_another_run_writes_sums_and_the_tick_does_not_wait(
    closed: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed.query("update recon.usage_month set since_seal = null")
    found = since_seals.since_seals
    with closed.session() as other, monkeypatch.context() as patch:

        def meanwhile(*args: Any) -> Any:
            other.query("select from recon.event_log for update")
            return found(*args)

        patch.setattr(since_seals, "since_seals", meanwhile)
        assert run().checks["sealed_months_hold"].passed
        assert closed.query("select from recon.usage_month where since_seal is not null") == []
    assert said() == said_afresh(closed)


@pytest.mark.parametrize("mode", ["incremental"])
def test_a_tick_reads_an_archive_only_if_something_of_its_month_is_new(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = fill(make_billing_in_mode(mode))
    seal(billing)
    folder = tmp_path / "archive"
    archive(billing, folder)
    billing.record(ONE, 5)
    found = said()
    assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 5 units" in (found[1] or "")
    folder.rename(tmp_path / "elsewhere")
    assert said() == found
    billing.record(OTHER, 5)
    assert "manifest.json is missing." in (said()[1] or "")
    assert "manifest.json is missing." in (said()[1] or ""), "what could not be read is not remembered"
    (tmp_path / "elsewhere").rename(folder)
    assert "2025-05 of stripe:remote_commands: 2 keys, by 2 events and 10 units" in (said()[1] or "")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each node of a plan."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def test_the_first_tick_after_an_archive_compares_each_key_with_its_seal_alone(
    make_billing_in_mode: MakeBilling, tmp_path: Path
) -> None:
    billing = fill(make_billing_in_mode("incremental"))
    billing.connection.execute(USED_BY_MANY.encode())
    assert run().success
    seal(billing)
    archive(billing, tmp_path)
    plans: list[dict[str, Any]] = []

    def explain(_: Any, cursor: Any, sent: str, parameters: Any, *__: Any) -> None:
        if sent.startswith("/* recon:sums_since_archive */"):
            cursor.execute(f"explain (analyze, format json) {sent}", parameters)
            plans.append(cursor.fetchone()[0][0]["Plan"])

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        assert run().check("sealed_months_hold").passed
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    (plan,) = plans
    assert max(one["Actual Rows"] for one in nodes(plan)) >= KEYS
    assert sum(one.get("Rows Removed by Join Filter", 0) for one in nodes(plan)) <= KEYS
