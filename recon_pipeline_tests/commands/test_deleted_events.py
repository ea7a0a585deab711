"""An application marks an event as deleted, and leaves it in the log: whether it counts, only the owner knows."""

import os
from unittest.mock import patch

import pytest

from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
MARKS = {"deleted_at": ("timestamptz", "now()"), "is_deleted": ("boolean not null default false", "true")}
EVERY_MARK = pytest.mark.parametrize("mark", MARKS)
COUNTS = {"RECON_DELETED_EVENTS": "sum"}


@pytest.fixture
def marking(make_billing: MakeBilling, orchestrated: None, mode: str, mark: str) -> Billing:
    """Of 15 units in May, the application has marked 10 as deleted and taken them from the counter of one customer.

    The counter of another still has the marked event; a third one has none, and lost an increment.
    """
    billing = make_billing(template="prepared" if mode == "incremental" else "prepared_full")
    kind, value = MARKS[mark]
    billing.query(f"alter table billing_usage_events add {mark} {kind}")
    for customer in ("honoured", "ignored"):
        billing.record(customer, 10, request_id=f"{customer}-1")
        billing.record(customer, 5)
    billing.record("other", 7)
    assert reconcile().record.outcome == "clean"
    billing.query(f"update billing_usage_events set {mark} = {value} where request_id like '%-1'")
    billing.set_counter("honoured", 5)
    billing.set_counter("other", 3)
    return billing


def reconcile(**variables: str) -> AssetsRun:
    with patch.dict(os.environ, variables):
        return run_assets()


@EVERY_MODE
@EVERY_MARK
def test_a_counter_without_a_marked_event_is_not_raised_and_doctor_says_how_to_decide(
    marking: Billing, mark: str
) -> None:
    for _ in range(2):
        ended = reconcile()
        assert (ended.record.outcome, ended.record.mismatch_count) == ("not_clean", 1)
        said = str(ended.checks["counters_match_event_sums"].description)
        assert f"1 of its events are marked as deleted ({mark}): take them out of the log if they do not count" in said
        assert marking.counters() == {"honoured": 5, "ignored": 15, "other": 7}

    output = recon("doctor", "--json")
    (finding,) = (one for one in output.json["findings"] if one["requirement"] == "deleted events")
    assert finding["verdict"] == "note"
    assert "set RECON_DELETED_EVENTS=sum" in finding["mend"]
    assert f"Nobody has said whether events that {mark} marks as deleted count" in str(output.json["assumptions"])


@EVERY_MODE
@pytest.mark.parametrize("mark", ["deleted_at"])
def test_declared_to_count_it_is_summed_like_any_other(marking: Billing, mark: str) -> None:
    assert reconcile(**COUNTS).record.outcome == "clean"

    assert marking.counters() == {"honoured": 15, "ignored": 15, "other": 7}
    output = recon("doctor", "--json", **COUNTS)
    assert f"Events that {mark} marks as deleted count as others do" in str(output.json["assumptions"])


@EVERY_MODE
@pytest.mark.parametrize("mark", ["deleted_at"])
def test_taken_out_of_the_log_it_needs_nothing_where_the_counter_does_not_have_it(marking: Billing, mark: str) -> None:
    assert reconcile().record.outcome == "not_clean"
    marking.query(f"delete from billing_usage_events where {mark} is not null and gateway_customer_id = 'honoured'")

    assert reconcile().record.outcome == "clean"

    assert marking.counters() == {"honoured": 5, "ignored": 15, "other": 7}


def test_a_log_without_such_a_column_is_not_asked_about(billing: Billing) -> None:
    output = recon("doctor", "--json", RECON_DELETED_EVENTS="refuse")

    assert "deleted events" not in {one["requirement"] for one in output.json["findings"]}
    assert "Every row of the log is an event that counts" in str(output.json["assumptions"])


def test_another_value_than_refuse_and_sum_is_refused() -> None:
    output = recon("doctor", RECON_DELETED_EVENTS="skip")

    assert output.exit_code == 2
    assert "RECON_DELETED_EVENTS is 'skip', which is neither refuse nor sum." in output.said
    assert "Set RECON_DELETED_EVENTS=sum if events that are marked as deleted count, or unset it." in output.said
