"""Replay of half a year in one run or month by month, a month that failed by itself, and a tick in the middle."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterRunStatus,
    RunsFilter,
    build_schedule_context,
)

from recon_pipeline.assets.months import BILLING_MONTHS, range_tags
from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline.store.counters import repair
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import ACCOUNTED, Billing, Period
from recon_pipeline_tests.reconciliation.traffic import background, wait_until
from recon_pipeline_tests.support.defined import reconcile_every_5_minutes

MONTHS = months_between(BillingMonth.parse("2025-03"), BillingMonth.parse("2025-08"))
KEYS = [month.key for month in MONTHS]
AS_ONE_RUN = [part for key in KEYS for part in ("--period", key)]
BROKEN = MONTHS[2]
LEFT = "events_stay_in_the_log"
MATCH = "counters_match_event_sums"
SHOWN = "gateway_customer_id, period_start, kind, usage_count_before, usage_count_after"
LOSE_THE_CONNECTION = """
    create function break_down() returns trigger language plpgsql as $$
    begin
        if new.period_start >= '2025-05-01Z' and new.period_start < '2025-06-01Z' then
            perform pg_terminate_backend(pg_backend_pid());
        end if;
        return new;
    end $$;
    create trigger break_down before update on billing_usage_counters for each row execute function break_down();
"""
REFUSE_A_REPAIR = """
    alter table billing_usage_counters add constraint broken
    check (gateway_customer_id <> 'lost' or period_start <> '2025-05-01Z' or usage_count < 15) not valid
"""


def periods(month: BillingMonth) -> tuple[Period, Period]:
    """The calendar month, and one that begins in its middle and ends in the next month."""
    return (month.start, month.end), (month.start + timedelta(days=14), month.end + timedelta(days=14))


def let_drift(billing: Billing, months: Sequence[BillingMonth] = MONTHS) -> list[tuple[Any, ...]]:
    """Each kind of drift in each month; returns the rows that the ledger must hold in the end."""
    repairs: list[tuple[Any, ...]] = []
    with billing.session() as session:
        for number, month in enumerate(months):
            calendar, subscribed = periods(month)
            session.record("right", number + 1, period=calendar)
            session.record("subscriber", 3, period=subscribed)
            for quantity in (number + 1, 12):
                session.add_event("lost", quantity, period=calendar)
            session.add_counter("lost", 12, period=calendar)
            session.add_event("doubled", 7, period=calendar)
            session.add_counter("doubled", 14 + number, period=calendar)
            session.add_event("absent", 5 + number, period=subscribed)
            session.add_counter("ghost", 40, period=calendar)
            repairs += [
                ("lost", calendar[0], "under", 12, 13 + number),
                ("doubled", calendar[0], "over", 14 + number, 7),
                ("absent", subscribed[0], "missing", None, 5 + number),
                ("ghost", calendar[0], "orphan", 40, 0),
            ]
    return sorted(repairs, key=str)


def ledger(billing: Billing) -> list[tuple[Any, ...]]:
    """Its rows without the order and the runs in which they were written."""
    return sorted(billing.ledger(SHOWN), key=str)


def every_counter(billing: Billing) -> list[tuple[Any, ...]]:
    return billing.query(
        "select gateway_customer_id, period_start, usage_count from billing_usage_counters order by 1, 2"
    )


def drift_count(billing: Billing) -> int:
    """How many keys differ from the log, asked by a statement of the test's own."""
    key = "gateway_customer_id, period_start, period_end"
    return billing.value(
        f"select count(*) from billing_usage_counters full join "
        f"(select {key}, sum(quantity) as event_sum from billing_usage_events group by {key}) as log using ({key}) "
        "where coalesce(usage_count, 0) <> coalesce(event_sum, 0)"
    )


def run_of(instance: DagsterInstance, tags: dict[str, str]) -> Any:
    """A run of the job as the UI or the schedule would start it, with these tags."""
    from recon_pipeline.definitions import defs

    return defs.resolve_job_def("reconcile").execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def replay_each(instance: DagsterInstance, months: Sequence[BillingMonth] = MONTHS) -> dict[str, bool]:
    """As a backfill of the job does, one run for each partition; returns which ended well."""
    return {month.key: run_of(instance, {"dagster/partition": month.key}).success for month in months}


def test_half_a_year_in_one_run_and_month_by_month_give_the_same_counters_and_the_same_ledger(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    in_one_run = make_billing()
    expected = let_drift(in_one_run)
    whole = recon("reconcile", *AS_ONE_RUN, "--json")
    assert whole.exit_code == 0
    assert (len(whole.json["run_ids"]), whole.json["partitions"]) == (1, KEYS)

    by_month = make_billing()
    assert let_drift(by_month) == expected
    assert replay_each(run_history) == dict.fromkeys(KEYS, True)

    assert ledger(by_month) == ledger(in_one_run) == expected
    assert every_counter(by_month) == every_counter(in_one_run)
    assert drift_count(by_month) == drift_count(in_one_run) == 0
    figures = "sum({0})::bigint as {0}"
    for name in ("drift_count", "rows_repaired", "over_quota_transitions", "counters_scanned"):
        total = f"select {figures.format(name)} from recon.reconciliation_run"
        assert by_month.value(total) == in_one_run.value(total) == whole.json[name]
    assert by_month.query("select distinct outcome from recon.reconciliation_run") == [("clean",)]


def test_of_one_run_over_months_each_month_shows_its_own_figures_in_dagster(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing()
    let_drift(billing, MONTHS[:2])
    billing.record("right", 1, period=periods(MONTHS[2])[0])

    run = run_of(run_history, range_tags(MONTHS[0], MONTHS[2]))

    drift = {"drift_count": 4, "missing": 1, "under": 1, "over": 1, "orphan": 1}
    of_months = (drift, drift, dict.fromkeys(drift, 0))
    assert figures_of(run, "counter_drift", *drift) == dict(zip(KEYS, of_months, strict=False))
    for asset, name, counts in (
        ("usage_aggregates", "events", (6, 6, 1)),
        ("repaired_counters", "rows_repaired", (4, 4, 0)),
    ):
        assert figures_of(run, asset, name) == {
            month: {name: count} for month, count in zip(KEYS, counts, strict=False)
        }
    whole: Any = materializations(run, "counter_drift")[KEYS[2]].metadata["all_months"].value
    assert whole["drift_count"] == 8


def test_of_one_run_over_months_each_month_has_its_own_result_of_the_last_check(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing(REFUSE_A_REPAIR)
    let_drift(billing)

    run = run_of(run_history, range_tags(MONTHS[0], MONTHS[-1]))

    evaluated = [one for one in run.get_asset_check_evaluations() if one.check_name == MATCH]
    broken = evaluated[MONTHS.index(BROKEN)]
    assert [(one.partition, one.passed) for one in evaluated] == [(key, key != BROKEN.key) for key in KEYS]
    assert [one.metadata["mismatch_count"].value for one in evaluated] == [int(one is broken) for one in evaluated]
    assert evaluated[0].description == f"All counters of {KEYS[0]} equal their event sums."
    assert str(broken.description).startswith(f"1 counters of {BROKEN.key} differ from their event sums.")
    assert statuses(run_history) == {key: "FAILED" if key == BROKEN.key else "SUCCEEDED" for key in KEYS}

    billing.query("alter table billing_usage_counters drop constraint broken")
    run_of(run_history, {"dagster/partition": BROKEN.key})

    assert statuses(run_history) == dict.fromkeys(KEYS, "SUCCEEDED")


def test_of_one_run_over_months_each_month_has_its_own_result_of_what_left_the_log(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing()
    for month in MONTHS:
        for customer in ("a", "b"):
            billing.record(customer, 3, period=periods(month)[0])
    run_of(run_history, range_tags(MONTHS[0], MONTHS[-1]))
    billing.query("delete from billing_usage_events where period_start = %s", periods(BROKEN)[0][0])

    run = run_of(run_history, range_tags(MONTHS[0], MONTHS[-1]))

    evaluated = [one for one in run.get_asset_check_evaluations() if one.check_name == LEFT]
    assert [(one.partition, one.passed) for one in evaluated] == [(key, key != BROKEN.key) for key in KEYS]
    broken = evaluated[MONTHS.index(BROKEN)]
    assert f"\n{BROKEN.key}: 2 events of 6 units, of 2 counters.\n" in str(broken.description)
    sample: Any = broken.metadata["sample"].value
    assert [row.data["gateway_customer_id"] for row in sample.records] == ["a", "b"]
    shown = {key: "FAILED" if key == BROKEN.key else "SUCCEEDED" for key in KEYS}
    assert statuses(run_history, "counter_drift", LEFT) == shown

    others = [month for month in MONTHS if month != BROKEN]
    for month in others:
        run_of(run_history, {"dagster/partition": month.key})
    assert statuses(run_history, "counter_drift", LEFT) == shown, "nothing that left that month came again"

    approved = recon("reconcile", *AS_ONE_RUN, "--approve-run", run.run_id, "--approve", "INC-1: test accounts")
    assert approved.exit_code == 0, approved.said

    assert statuses(run_history, "counter_drift", LEFT) == dict.fromkeys(KEYS, "SUCCEEDED")


def statuses(instance: DagsterInstance, asset: str = "repaired_counters", check: str = MATCH) -> dict[str, str]:
    """What the UI shows of a check, by month; other tests may have evaluated it for other months."""
    key = AssetCheckKey(AssetKey(asset), check)
    states = instance.event_log_storage.get_asset_check_state([(key, BILLING_MONTHS)])
    found = {
        month: status.name
        for status, subset in states[key].subsets.items()
        for month in _months_in(subset)
        if month in KEYS
    }
    return dict(sorted(found.items()))


def _months_in(subset: Any) -> set[str]:
    return set() if subset.is_empty else set(subset.subset_value.get_partition_keys())


def materializations(run: Any, asset: str) -> dict[str, AssetMaterialization]:
    """What a run recorded of an asset, by month."""
    return {str(one.partition): one for one in run.asset_materializations_for_node(asset)}


def figures_of(run: Any, asset: str, *names: str) -> dict[str, dict[str, Any]]:
    """These figures of an asset, by month."""
    return {
        month: {name: one.metadata[name].value for name in names} for month, one in materializations(run, asset).items()
    }


def test_a_month_whose_run_failed_is_retried_alone_and_all_is_as_if_nothing_had_failed(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    months = MONTHS[1:4]
    billing = make_billing(LOSE_THE_CONNECTION)
    expected = let_drift(billing, months)

    ended = replay_each(run_history, months)

    assert [key for key, success in ended.items() if not success] == [BROKEN.key]
    of_broken = [row for row in expected if BROKEN.start <= row[1] < BROKEN.end]
    assert ledger(billing) == [row for row in expected if row not in of_broken]
    assert drift_count(billing) == len(of_broken)
    (failed,) = run_history.get_runs(RunsFilter(tags={"dagster/partition": BROKEN.key}), limit=1)
    assert failed.status is DagsterRunStatus.FAILURE

    billing.query("drop trigger break_down on billing_usage_counters")
    retried = recon("reconcile", "--period", BROKEN.key, "--json")

    assert (retried.exit_code, retried.json["rows_repaired"]) == (0, len(of_broken))
    assert ledger(billing) == expected
    assert drift_count(billing) == 0


def test_a_key_that_fails_in_one_month_of_a_single_run_is_reported_and_its_month_retried_alone(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(REFUSE_A_REPAIR)
    expected = let_drift(billing)

    whole = recon("reconcile", *AS_ONE_RUN, "--json")

    refused = [row for row in expected if (row[0], row[1]) == ("lost", BROKEN.start)]
    assert (whole.exit_code, whole.json["reconcile_failures"]) == (1, 1)
    assert ledger(billing) == [row for row in expected if row not in refused]

    billing.query("alter table billing_usage_counters drop constraint broken")
    retried = recon("reconcile", "--period", BROKEN.key, "--json")

    assert (retried.exit_code, retried.json["rows_repaired"]) == (0, 1)
    assert ledger(billing) == expected
    assert drift_count(billing) == 0


class Stop:
    """Stops the repair of the run of a thread after its first chunk, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self._stopped_thread: int | None = None
        original = Repairer.free_keys

        def stopping(repairer: Repairer, chunk: range) -> list[int]:
            if chunk[0] > 1 and threading.get_ident() == self._stopped_thread:
                self.reached.set()
                assert self.released.wait(60), "nobody released the replay"
            return original(repairer, chunk)

        monkeypatch.setattr(repair, "CHUNK_KEYS", 20)
        monkeypatch.setattr(Repairer, "free_keys", stopping)

    def replay(self, instance: DagsterInstance) -> Any:
        """Replay it all in this thread, with the stop in it."""
        self._stopped_thread = threading.get_ident()
        return run_of(instance, range_tags(MONTHS[0], MONTHS[-1]))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    stop = Stop(monkeypatch)
    yield stop
    stop.released.set()


def test_a_tick_in_the_middle_of_a_replay_does_not_wait_for_it_and_nothing_is_repaired_twice(
    billing: Billing, run_history: DagsterInstance, stop: Stop
) -> None:
    expected = let_drift(billing)
    counted = {(row[0], row[1]): row[2] for row in every_counter(billing)}
    with background() as start:
        replay = start(stop.replay, run_history)
        wait_until(lambda: stop.reached.is_set() or replay.done(), seconds=60)
        assert not replay.done()
        repaired_before_tick = len(ledger(billing))
        assert 0 < repaired_before_tick < len(expected)
        for month in MONTHS:
            billing.record("lost", 2, period=periods(month)[0])

        ticked = reconcile_every_5_minutes.evaluate_tick(
            build_schedule_context(instance=run_history, scheduled_execution_time=datetime.now(UTC))
        )
        requests = ticked.run_requests or []
        assert requests, ticked.skip_message
        assert all(run_of(run_history, dict(request.tags)).success for request in requests)

        assert not replay.done()
        assert drift_count(billing) == 0
        stop.released.set()

    assert replay.result().success
    checks = [one for one in replay.result().get_asset_check_evaluations() if one.check_name == MATCH]
    assert [(one.asset_key, one.partition, one.passed) for one in checks] == [
        (AssetKey("repaired_counters"), key, True) for key in KEYS
    ]
    assert drift_count(billing) == 0
    repaired = ledger(billing)
    assert len({row[:2] for row in repaired}) == len(repaired) == len(expected)
    for row in billing.query(ACCOUNTED.replace("counter.gateway_customer_id,", "counter.*,")):
        added = 2 if row.gateway_customer_id == "lost" else 0
        before = counted.get((row.gateway_customer_id, row.period_start), 0)
        assert row.counted == before + added + row.repaired
