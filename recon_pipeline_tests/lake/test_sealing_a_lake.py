"""A month that follows the lake is sealed as it was counted, and stays what was billed whatever is counted later."""

from pathlib import Path

import pytest

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.faces import seals as face
from recon_pipeline.settings import read_settings
from recon_pipeline.store.counters.seal_records import NotSealedError
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.lake.lakes import JUNE, MAY, Event, write
from recon_pipeline_tests.lake.test_counting_a_lake import count, fill
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.seals import corrections_of, reopen, seal
from recon_pipeline_tests.support.assets import run_assets

IN_MAY = ("--period", "2025-05")
LATE = Event("req-9", 5, "a")


@pytest.fixture
def sealed(job_billing: Billing, lake: Path) -> Billing:
    """In May `a` used 10 and `b` used 3, as the lake says; that is sealed."""
    fill(lake)
    count()
    assert run_assets().record.outcome == "clean"
    seal(job_billing)
    return job_billing


def test_the_seal_has_the_sums_of_the_count_and_says_which_it_was(sealed: Billing, lake: Path) -> None:
    (row,) = sealed.query(
        "select kind, key_count, event_count, usage_count, lake_source ->> 'url' as url,"
        " lake_source -> 'count_id' as count_id, jsonb_array_length(lake_source -> 'files') as files,"
        " lake_source ->> 'engine' as engine from recon.month_seal"
    )
    assert row[:5] == ("sealed", 2, 3, 13, str(lake))
    assert (row.count_id, row.files) == (-1, 2)
    assert row.engine.startswith("DuckDB 1.5.")
    verified = face.verify(read_settings())
    assert (verified.misfit, verified.checked, verified.in_force, verified.in_lake) == (None, 1, 0, 1)
    assert corrections_of(sealed) == {}


def test_what_is_counted_later_changes_no_counter_and_is_a_correction(sealed: Billing, lake: Path) -> None:
    write(lake / "month=2025-05" / "late", [LATE, Event("req-8", 2, "c")])
    (counted,) = count()
    assert (counted.is_new, counted.is_sealed) == (True, True)
    sealed.set_counter("b", 99)

    ended = run_assets()

    assert sealed.counters() == {"a": 10, "b": 3}
    held = ended.check("sealed_months_hold")
    assert (held.passed, held.metadata["count"].value) == (False, 2)
    assert (held.description or "").startswith(
        "The lake is not what was sealed: 2025-05 of stripe:remote_commands: 2 keys, by 2 events and 7 units. No "
    )
    found = corrections_of(sealed)
    assert {name: (one.sealed_sum, one.sum_now, one.difference, one.events) for name, one in found.items()} == {
        "a": ("10", "15", "5", ()), "c": ("0", "2", "2", ()),
    }  # fmt: skip
    assert face.verify(read_settings()).misfit is None


def test_a_reopened_month_follows_the_newest_count_and_the_next_seal_says_what_changed(
    sealed: Billing, lake: Path
) -> None:
    write(lake / "month=2025-05" / "late", [LATE])
    count()
    reopen(sealed)
    assert run_assets().record.outcome == "clean"
    assert sealed.counters() == {"a": 15, "b": 3}
    (again,) = seal(sealed)
    assert (again.keys_changed, again.units_changed) == (1, 5)
    assert corrections_of(sealed) == {}
    assert face.verify(read_settings()).checked == 3


def test_a_seal_of_a_count_that_somebody_changes_is_found(sealed: Billing) -> None:
    with sealed.connection.transaction():
        sealed.query("alter table recon.month_seal disable trigger month_seal_is_append_only")
        sealed.query('update recon.month_seal set lake_source = lake_source || \'{"engine": "DuckDB 0"}\'')
        sealed.query("alter table recon.month_seal enable trigger month_seal_is_append_only")
    assert "is not what was written: its chain does not fit its content" in (face.verify(read_settings()).misfit or "")


def test_events_of_the_log_neither_change_nor_correct_what_was_sealed_of_the_lake(sealed: Billing) -> None:
    sealed.record("a", 7)
    assert run_assets().record.outcome == "clean"
    assert sealed.counter("a") == 10
    assert corrections_of(sealed) == {}


def test_a_month_of_which_events_may_still_come_to_the_lake_is_not_sealed(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, [Event("req-1", 4, "a"), Event("req-2", 4, "b", period_end=JUNE.replace(day=2))])
    job_billing.add_counter("b", 4, period=(MAY, JUNE.replace(day=2)))
    count()
    run_assets()
    with pytest.raises(NotSealedError) as refused:
        seal(job_billing)
    assert str(refused.value) == (
        "2025-05 of stripe:remote_commands cannot be sealed: its counters follow the lake, which may still get events "
        "of its periods: it was counted with RECON_LAKE_COMPLETE_UNTIL=2025-06.\n"
        "No counter was changed, and no seal was written.\n"
        "What to do: When the lake has all of them: set RECON_LAKE_COMPLETE_UNTIL later, recon count-lake --period "
        "2025-05, recon reconcile --period 2025-05, then recon seal --period 2025-05 again."
    )
    monkeypatch.setenv("RECON_LAKE_COMPLETE_UNTIL", "2025-07")
    count()
    run_assets()
    (done,) = seal(job_billing)
    assert done.record.seal.usage_count == 8


def test_a_period_that_ends_after_the_lake_was_complete_keeps_its_counter_when_its_month_is_sealed(
    sealed: Billing,
) -> None:
    annual = (MAY, MAY.replace(year=2099))
    sealed.add_counter("yearly", 12, period=annual)
    assert run_assets().record.outcome == "not_clean"
    assert sealed.counters(period=annual) == {"yearly": 12}


def test_a_counter_that_is_not_what_the_lake_says_keeps_the_month_from_being_sealed(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    count()
    run_assets()
    job_billing.set_counter("a", 11)
    with pytest.raises(NotSealedError, match="1 counters are not what the lake adds up to, for example of customer a"):
        seal(job_billing)


def test_a_count_that_was_sealed_is_not_withdrawn(sealed: Billing) -> None:
    database = ReconciledDatabase()
    with pytest.raises(ReconError) as refused:
        lake_counting.withdraw(
            database.open(), database.settings(), BillingMonth.parse("2025-05"), withdrawn_by="ada", reason="TICKET-7"
        )
    assert str(refused.value).startswith("2025-05 is sealed: its counters follow the seal, and corrections are made")


def test_a_month_that_was_sealed_from_the_lake_has_nothing_to_archive(sealed: Billing, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="2025-05 was sealed as it was counted in the lake"):
        archive(sealed, tmp_path / "archive")
    assert not (tmp_path / "archive").exists() or list((tmp_path / "archive").iterdir()) == []


def test_of_two_usages_one_follows_the_lake_and_the_other_the_log_and_both_are_sealed_at_once(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    count()
    run_assets()
    job_billing.add_event("a", 7, usage_type="sms_messages")
    both = (MeteredUsage("stripe", "remote_commands"), MeteredUsage("stripe", "sms_messages"))
    with pytest.raises(NotSealedError, match="sms_messages cannot be sealed: 1 counters are not what the log adds up"):
        seal(job_billing, scope=both)
    assert job_billing.value("select count(*) from recon.month_seal") == 0
    job_billing.add_counter("a", 7, usage_type="sms_messages")
    done = [one.record.seal for one in seal(job_billing, scope=both)]
    assert [(one.usage_count, one.lake_source is None) for one in done] == [(13, False), (7, True)]


def test_the_commands_say_that_it_is_the_lake_that_was_sealed(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    count()
    run_assets()
    said = recon("seal", *IN_MAY, "--reason", "TICKET-7: invoices are sent").out.splitlines()
    assert said[0] == "Sealed 2025-05 of stripe:remote_commands: 2 keys, 3 events, 13 units."
    assert said[2].startswith("Of the sums that DuckDB 1.5.")
    assert said[2].endswith(f" counted in {lake}; events are no part of the checksum.")
    proved = recon("verify-seals").out
    assert proved.startswith(
        "All 1 seals fit: chain, sums and checksums; 1 are of sums counted in the lake, whose events were not read "
        "again."
    )
    assert "sealed, of a count in the lake" in recon("explain", "--customer", "a", *IN_MAY).out
    write(lake / "month=2025-05" / "late", [LATE])
    assert recon("count-lake", *IN_MAY).out.splitlines()[1] == (
        "Sealed before, and the seal still counts: 2025-05. recon corrections --period 2025-05 compares it with this "
        "count."
    )
    assert "5" in recon("corrections", *IN_MAY).out
    assert recon("reopen", *IN_MAY, "--reason", "TICKET-8: late").out.splitlines()[1] == (
        "The counters of 2025-05 of stripe:remote_commands follow its newest count in the lake, from the next run on."
    )
