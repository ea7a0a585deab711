"""Overlap is safe: runs that overlap on one month, however started, corrupt nothing and count nothing twice."""

import random
from collections import Counter
from concurrent.futures import Future
from threading import Barrier
from typing import Any

from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline_tests.reconciliation.billing import ACCOUNTED, Billing, customers
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import background, writers
from recon_pipeline_tests.support.assets import run_assets

RUNS_AT_ONCE, ROUNDS = 3, 8
CUSTOMERS = customers(30)


def test_overlapping_runs_under_live_traffic_count_nothing_twice(billing: Billing) -> None:
    sabotaged: Counter[str] = Counter()
    choices = random.Random(9)  # noqa: S311 - not a secret
    with writers(billing, CUSTOMERS, threads=2) as added:
        for _ in range(ROUNDS):
            for customer in choices.sample(CUSTOMERS, 15):
                (changed,) = billing.query(
                    "update billing_usage_counters set usage_count = usage_count + 1000 "
                    "where gateway_customer_id = %s returning 1000",
                    customer,
                ) or [(0,)]
                sabotaged[customer] += changed[0]
            with background() as start:
                for _ in range(RUNS_AT_ONCE):
                    start(reconcile, billing.url)
    reconcile(billing.url)

    assert billing.counters() == billing.event_sums()
    assert sum(sabotaged.values()) > 0
    for customer, counted, repaired in billing.query(ACCOUNTED):
        assert counted == added[customer] + sabotaged[customer] + repaired


def test_two_repairs_of_the_same_drift_change_each_counter_once(billing: Billing) -> None:
    for customer in CUSTOMERS:
        billing.add_event(customer, 10)
    for customer in CUSTOMERS[:20]:
        billing.add_counter(customer, 99)
    together = Barrier(RUNS_AT_ONCE)

    def compare_together_then_repair() -> RepairOutcome:
        run = new_run(billing.url)
        assert run.compare().summary.drift_count == len(CUSTOMERS)
        together.wait(timeout=30)
        return run.repair()

    with background() as start:
        futures: list[Future[Any]] = [start(compare_together_then_repair) for _ in range(RUNS_AT_ONCE)]
    outcomes = [future.result() for future in futures]

    assert mismatch_count(billing.url) == 0
    assert sorted(row[0] for row in billing.ledger()) == CUSTOMERS
    assert sum(outcome.repaired for outcome in outcomes) == len(CUSTOMERS)
    assert all(outcome.failed == outcome.untouched == 0 for outcome in outcomes)


def test_missing_counters_are_made_in_the_one_order_in_which_every_run_locks(billing: Billing) -> None:
    billing.query("create sequence made; alter table billing_usage_counters add made bigint default nextval('made')")
    for customer in reversed(CUSTOMERS):
        billing.add_event(customer, 10)

    reconcile(billing.url)

    made = billing.query("select gateway_customer_id from billing_usage_counters order by made")
    assert [row.gateway_customer_id for row in made] == CUSTOMERS


def test_a_run_that_verified_does_not_wait_for_one_that_is_adding_to_the_same_months(billing: Billing) -> None:
    billing.record("a", 10)
    run = new_run(billing.url)
    run.compare()
    run.repair()
    answer = run.verify()
    with billing.session() as other_run:
        other_run.query("select from recon.event_log for update")
        run.note_verified(answer)

    assert billing.value("select count(*) from recon.usage_month where counters_verified_below is not null") == 0


def test_a_job_that_meets_another_while_it_adds_to_the_aggregates_does_not_wait_for_it_and_succeeds(
    job_billing: Billing,
) -> None:
    job_billing.add_event("a", 10)
    run_assets()
    job_billing.add_event("a", 5)
    job_billing.add_event("b", 7)
    with job_billing.session() as other_run:
        other_run.query("select from recon.event_log for update")
        result = run_assets()

    assert result.success, result.errors
    assert result.check("counters_match_event_sums").passed
    assert job_billing.counters() == {"a": 15, "b": 7}


def test_a_stale_comparison_does_no_harm(billing: Billing) -> None:
    billing.record("a", 10)
    billing.set_counter("a", 3)
    stale = new_run(billing.url)
    stale.compare()
    reconcile(billing.url)
    billing.record("a", 5)

    outcome = stale.repair()

    assert (outcome.repaired, outcome.in_sync) == (0, 1)
    assert billing.counters() == {"a": 15}
    assert billing.ledger() == [("a", "under", 3, 10)]


def test_a_run_over_one_customer_and_a_run_over_all_do_not_disturb_each_other(billing: Billing) -> None:
    for customer in CUSTOMERS:
        billing.add_event(customer, 10)
    one, every = new_run(billing.url, customers=(CUSTOMERS[3],)), new_run(billing.url)
    one.compare()
    every.compare()

    assert one.repair().repaired == 1
    assert every.repair().repaired == len(CUSTOMERS) - 1
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)
