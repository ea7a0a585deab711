"""A month is sealed once it is over and right, in one piece; the chain of seals shows whatever is changed of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters import reopening, sealing
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.seals import corrections_of, reopen, seal, verify
from recon_pipeline_tests.support.assets import run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
CUSTOMERS = customers(4)
ONE = CUSTOMERS[0]
APPEND_ONLY = "alter table recon.{0} {1} trigger {0}_is_append_only"


@pytest.fixture
def used(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    """Everyone used 10 in May, in two events; one customer nothing, and one has a counter of 0."""
    billing = make_billing_in_mode(mode)
    for customer in CUSTOMERS:
        billing.record(customer, 4)
        billing.record(customer, 6)
    billing.add_counter("idle", 0)
    assert run_assets().record.outcome == "clean"
    return billing


def by_hand(billing: Billing, table: str, change: str) -> None:
    """Change what is only ever added to, as somebody with all privileges can."""
    billing.query(APPEND_ONLY.format(table, "disable"))
    billing.query(change)
    billing.query(APPEND_ONLY.format(table, "enable"))


@EVERY_MODE
def test_a_seal_keeps_the_sum_and_the_number_of_events_of_each_key(used: Billing) -> None:
    (done,) = seal(used)
    written = done.record.seal
    assert (written.kind, written.partition, written.acted_by) == ("sealed", "2025-05", "ada")
    assert (written.key_count, written.nonzero_count, written.event_count, written.usage_count) == (4, 4, 8, 40)
    rows = used.query("select gateway_customer_id, usage_count, event_count from recon.sealed_counter order by 1")
    assert rows == [(customer, 10, 2) for customer in CUSTOMERS]
    assert corrections_of(used) == {}
    assert verify(used).misfit is None


@EVERY_MODE
def test_the_checksum_is_of_the_events_in_whichever_order_and_not_of_what_does_not_count(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    checksums: list[str] = []
    for quantities in ((4, 6), (6, 4), (5, 5)):
        billing = make_billing_in_mode(
            mode, "alter table billing_usage_events drop constraint billing_usage_events_check"
        )
        for quantity in quantities:
            billing.record(ONE, quantity, request_id=f"of {quantity}" if quantity != 5 else None)
        billing.query("update billing_usage_events set event_timestamp = '2025-05-07 12:00Z'")
        billing.add_event(ONE, 9, period=(MAY[0], MAY[0]), request_id=str(quantities))
        checksums.append(seal(billing)[0].record.seal.checksum)
    assert checksums[0] == checksums[1] != checksums[2]


@EVERY_MODE
def test_a_seal_can_neither_be_changed_nor_deleted(used: Billing) -> None:
    seal(used)
    for table in ("month_seal", "sealed_counter"):
        for change in (
            f"update recon.{table} set usage_count = 1",
            f"delete from recon.{table}",
            f"truncate recon.{table}",
        ):
            with pytest.raises(Exception, match=f"recon.{table} is append only"):
                used.query(change)


NOT_YET: dict[str, tuple[Callable[[Billing], object], str]] = {
    "a counter that differs": (
        lambda billing: billing.set_counter(ONE, 9),
        "2025-05 of stripe:remote_commands cannot be sealed: 1 counters are not what the log adds up to, for example "
        f"of customer {ONE} (9, and not 10).",
    ),
    "a counter that is missing": (
        lambda billing: billing.query("delete from billing_usage_counters where gateway_customer_id = %s", ONE),
        "1 counters are not what the log adds up to, for example of customer "
        f"{ONE} (none, and not 10).",
    ),
    "a key that is open": (
        lambda billing: billing.query(
            "insert into recon.open_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end,"
            " reason) values (%s, %s, %s, %s, %s, 'held')", GATEWAY, USAGE, ONE, *MAY,
        ),
        "2025-05 of stripe:remote_commands cannot be sealed: 1 of its keys are open (1 held), for example of customer "
        f"{ONE}.",
    ),
    "a period that has not ended": (
        lambda billing: billing.record("yearly", 5, period=(MAY[0], datetime(2125, 5, 31, tzinfo=UTC))),
        "2025-05 of stripe:remote_commands cannot be sealed: a period that began in it ends on 2125-05-31.",
    ),
}  # fmt: skip


@EVERY_MODE
@pytest.mark.parametrize(("state", "sentence"), NOT_YET.values(), ids=NOT_YET)
def test_a_month_that_is_not_over_or_not_right_is_not_sealed_and_the_refusal_says_why(
    used: Billing, state: Callable[[Billing], object], sentence: str
) -> None:
    state(used)
    with pytest.raises(NotSealedError) as refused:
        seal(used)
    assert sentence in refused.value.what
    assert refused.value.changed == "No counter was changed, and no seal was written."
    assert "recon seal --period 2025-05 again." in refused.value.fix
    assert used.query("select * from recon.month_seal") == used.query("select * from recon.sealed_counter") == []


@EVERY_MODE
def test_the_current_month_is_not_sealed(used: Billing) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    with pytest.raises(NotSealedError, match="the month is not over, and periods may still begin in it"):
        seal(used, month)


@EVERY_MODE
def test_a_sealed_month_is_not_sealed_again_and_an_open_one_not_reopened(used: Billing) -> None:
    with pytest.raises(NotSealedError, match="2025-05 is not sealed, so there is nothing to reopen"):
        reopen(used)
    seal(used)
    with pytest.raises(NotSealedError, match=r"2025-05 is sealed already, by ada on \d{4}-\d\d-\d\d \d\d:\d\d UTC\."):
        seal(used)


@EVERY_MODE
def test_a_usage_that_is_added_to_the_scope_is_sealed_by_itself(used: Billing) -> None:
    seal(used)
    both = (MeteredUsage(GATEWAY, USAGE), MeteredUsage(GATEWAY, "sms_messages"))
    assert [one.record.usage.usage_type for one in seal(used, scope=both)] == ["sms_messages"]
    with pytest.raises(NotSealedError):
        seal(used, scope=both)


@EVERY_MODE
def test_all_usages_of_a_scope_are_sealed_or_none(used: Billing) -> None:
    used.query(
        "insert into billing_usage_counters (gateway_name, gateway_customer_id, usage_type, period_start, period_end,"
        " usage_count) values (%s, %s, 'sms_messages', %s, %s, 3)", GATEWAY, ONE, *MAY,
    )  # fmt: skip
    with pytest.raises(NotSealedError, match="of stripe:sms_messages cannot be sealed"):
        seal(used, scope=(MeteredUsage(GATEWAY, USAGE), MeteredUsage(GATEWAY, "sms_messages")))
    assert used.query("select * from recon.sealed_counter") == []


@EVERY_MODE
def test_of_two_sessions_that_seal_at_once_one_is_refused(used: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    mark: Any = sealing.next_seal
    calls: list[None] = []

    def other_session_first(connection: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            seal(used)
        return mark(connection)

    monkeypatch.setattr(sealing, "next_seal", other_session_first)
    with pytest.raises(ReconError) as refused:
        seal(used)
    assert refused.value.what == (
        "Another session sealed or reopened a month while 2025-05 of stripe:remote_commands was."
    )
    assert used.value("select count(*) from recon.month_seal") == 1
    assert verify(used).misfit is None


@EVERY_MODE
def test_the_seal_after_a_reopening_says_what_changed(used: Billing) -> None:
    seal(used)
    used.record(ONE, 5)
    assert run_assets().record.outcome == "clean"
    reopen(used)
    assert run_assets().record.outcome == "clean"
    assert used.counter(ONE) == 15
    (again,) = seal(used)
    assert (again.keys_changed, again.units_changed) == (1, 5)
    assert again.since is not None
    assert again.since.seal.reason == "TICKET-7: wrong price"
    assert used.query("select kind from recon.month_seal order by id") == [("sealed",), ("reopened",), ("sealed",)]
    assert (verify(used).checked, verify(used).misfit) == (3, None)


NOT_ITS_SUMS = "The sealed sums of seal {first} (2025-05 of stripe:remote_commands) are not those that it was made of."
TAMPERED = {
    "a sealed sum": (
        "sealed_counter",
        "update recon.sealed_counter set usage_count = 11 where gateway_customer_id = 'customer_0001'",
        NOT_ITS_SUMS,
    ),
    "two sealed sums that add up to the same": (
        "sealed_counter",
        "update recon.sealed_counter set usage_count = usage_count + case gateway_customer_id"
        " when 'customer_0001' then 1 when 'customer_0002' then -1 else 0 end",
        NOT_ITS_SUMS,
    ),
    "a key that is taken out": (
        "sealed_counter",
        "delete from recon.sealed_counter where gateway_customer_id = 'customer_0001'",
        NOT_ITS_SUMS,
    ),
    "who sealed": (
        "month_seal",
        "update recon.month_seal set acted_by = 'eve' where kind = 'sealed'",
        "is not what was written: its chain does not fit its content.",
    ),
    "a row that is taken out": (
        "month_seal",
        "delete from recon.month_seal where kind = 'reopened'",
        "does not follow the seal before it: a row was taken out or changed.",
    ),
}


@EVERY_MODE
@pytest.mark.parametrize(("table", "change", "said"), TAMPERED.values(), ids=TAMPERED)
def test_whatever_is_changed_of_a_seal_is_found_and_the_first_is_named(
    used: Billing, table: str, change: str, said: str
) -> None:
    (first,) = seal(used)
    reopen(used)
    seal(used)
    assert verify(used).misfit is None
    by_hand(used, table, change)
    assert said.format(first=first.record.id) in (verify(used).misfit or "")


@EVERY_MODE
def test_a_sealed_event_that_is_gone_is_found_in_every_mode_and_one_that_came_late_is_a_correction(
    used: Billing, mode: str
) -> None:
    seal(used)
    used.record(ONE, 5, period=JUNE)
    assert verify(used).misfit is None
    used.record(ONE, 5)
    if mode == "incremental":
        assert verify(used).misfit is None, "it came later, which its transaction tells"
    used.query("delete from billing_usage_events where quantity = 6")
    assert verify(used).misfit == (
        "The log does not have what was sealed of 2025-05 of stripe:remote_commands any more: 4 keys differ, the first "
        f"of customer {ONE} (2 events of 10 units were sealed, "
        + ("1 of 4 are there)." if mode == "incremental" else "2 of 9 are there).")
    )


@EVERY_MODE
def test_an_event_that_changed_without_changing_a_sum_is_a_correction_of_0(used: Billing, mode: str) -> None:
    seal(used)
    used.query(
        "update billing_usage_events set request_id = 'other' where quantity = 6 and gateway_customer_id = %s", ONE
    )
    found = corrections_of(used)
    what = "changed or rewritten" if mode == "incremental" else "came later or changed"
    assert [(one.difference, [event.what for event in one.events]) for one in found.values()] == [("0", [what])]
    assert verify(used).misfit is not None


@EVERY_MODE
def test_a_reopening_that_a_seal_overtakes_is_refused_and_the_chain_still_fits(
    used: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(used)
    draw: Any = reopening.next_seal

    def overtaken(connection: Any) -> Any:
        drawn = draw(connection)
        seal(used, "2025-06")
        return drawn

    with monkeypatch.context() as patched:
        patched.setattr(reopening, "next_seal", overtaken)
        with pytest.raises(ReconError) as refused:
            reopen(used)
    assert refused.value.what == (
        "Another session sealed or reopened a month while 2025-05 of stripe:remote_commands was."
    )
    assert verify(used).misfit is None
    reopen(used)
    seal(used)
    assert (verify(used).checked, verify(used).misfit) == (4, None)


@EVERY_MODE
def test_sealed_sums_that_somebody_adds_beforehand_are_not_sealed(used: Billing) -> None:
    used.query(
        "insert into recon.sealed_counter (seal_id, gateway_customer_id, period_start, period_end, usage_count,"
        " event_count, credit_units, event_checksum)"
        " select nextval(pg_get_serial_sequence('recon.month_seal', 'id')) + 1, 'planted', %s, %s, 500, 1, 0, 0",
        *MAY,
    )
    with pytest.raises(ReconError, match="somebody added them by hand, and they would be billed"):
        seal(used)
    (done,) = seal(used)
    assert done.record.seal.usage_count == 40
    assert (
        verify(used).misfit
        == "recon.sealed_counter has 1 rows without a seal: a seal was taken out, or rows were added."
    )


@EVERY_MODE
def test_that_the_newest_seals_were_taken_out_shows_to_who_has_kept_a_chain(used: Billing) -> None:
    seal(used)
    reopen(used)
    kept = verify(used).head
    assert verify(used, kept_chain=kept).misfit is None
    by_hand(used, "month_seal", "delete from recon.month_seal where kind = 'reopened'")
    assert verify(used).misfit is None
    assert verify(used, kept_chain=kept).misfit == (
        f"No seal has the chain {kept}: seals were taken out, or it is of another database."
    )


@EVERY_MODE
def test_a_run_that_reads_everything_repairs_nothing_to_a_seal_that_somebody_changed(used: Billing) -> None:
    (first,) = seal(used)
    change = f"update recon.sealed_counter set usage_count = 500 where gateway_customer_id = '{ONE}'"
    by_hand(used, "sealed_counter", change)
    assert NOT_ITS_SUMS.format(first=first.record.id) in run_assets(full=True).errors
    assert used.counter(ONE) == 10


@pytest.mark.parametrize("mode", ["incremental"])
def test_a_log_that_was_loaded_anew_with_the_same_events_has_what_was_sealed(used: Billing) -> None:
    seal(used)
    used.query("create table kept as select * from billing_usage_events")
    used.query("truncate billing_usage_events")
    used.query("alter table kept drop column ingest_xid")
    used.query(
        "insert into billing_usage_events (id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,"
        " period_start, period_end, event_timestamp, metadata, created_at) select id, gateway_name,"
        " gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, event_timestamp, metadata,"
        " created_at from kept"
    )
    assert verify(used).misfit is None
    assert corrections_of(used) == {}


@EVERY_MODE
def test_seals_of_months_that_are_declared_gone_are_not_missed_in_the_log(used: Billing) -> None:
    seal(used)
    used.query("delete from billing_usage_events")
    found = verify(used, in_log_from="2025-06")
    assert (found.misfit, found.in_force, found.declared_gone) == (None, 0, 1)
