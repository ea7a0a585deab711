"""Once a month is archived its events may leave the log, in any way and part, and nobody asks or warns."""

import re
from pathlib import Path

import pytest

from recon_pipeline.assets.archiving import verify_archives
from recon_pipeline.core.errors import ReconError
from recon_pipeline.settings import read_settings
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.seals import corrections_of, database, reopen, seal
from recon_pipeline_tests.reconciliation.test_sealed_months import CUSTOMERS, IN_MAY, fill, run
from recon_pipeline_tests.support.logs import partitioned_log

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
ONE, OTHER = CUSTOMERS[0], CUSTOMERS[1]
BY_MONTH = f"""
    {partitioned_log("period_start")}
    create table events_may partition of billing_usage_events
        for values from ('2025-05-01 00:00Z') to ('2025-06-01 00:00Z');
    create table events_rest partition of billing_usage_events default;
    create index on billing_usage_events (request_id);
"""
LEFT = {
    "all of them are deleted as is printed": "",
    "some are deleted": f"delete from billing_usage_events where quantity = 4 and {IN_MAY}",
}


def archived(billing: Billing, to: Path) -> str:
    """May is sealed and archived; returns the statement for the owner."""
    fill(billing)
    billing.query("update billing_usage_events set event_timestamp = period_start")
    assert run().record.outcome == "clean"
    seal(billing)
    (statement,) = archive(billing, to).statements
    return statement


def asks_nothing(billing: Billing) -> None:
    """Two runs find nothing, and no check says anything."""
    for full in (False, True):
        ended = run(full=full)
        assert (ended.success, ended.record.outcome) == (True, "clean"), ended.errors
        assert (ended.record.drift_count, ended.record.doubtful_count) == (0, 0)
        assert [name for name, check in ended.checks.items() if not check.passed] == []
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert billing.query("select * from recon.open_key") == []
    assert corrections_of(billing) == {}


@EVERY_MODE
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_events_of_an_archived_month_leave_the_log_without_a_question_or_a_warning(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path, left: str
) -> None:
    billing = make_billing_in_mode(mode)
    statement = archived(billing, tmp_path)
    assert statement.startswith(
        "delete from billing_usage_events where (gateway_name, usage_type, tableoid) in (('stripe'"
    )
    billing.query(left or statement)
    assert billing.value(f"select count(*) from billing_usage_events where {IN_MAY}") == {"": 0}.get(
        left, 6 if "4" in left else 10
    )
    asks_nothing(billing)
    billing.query(f"update billing_usage_counters set usage_count = 3 where gateway_customer_id = %s and {IN_MAY}", ONE)
    assert run().record.rows_repaired == 1
    assert billing.counter(ONE) == 10


@EVERY_MODE
@pytest.mark.parametrize("by", ["detach", "truncate"])
def test_a_partition_with_nothing_but_the_archived_month_is_detached_or_truncated_without_a_question(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path, by: str
) -> None:
    billing = make_billing_in_mode(mode, BY_MONTH)
    statement = archived(billing, tmp_path)
    assert statement == "alter table billing_usage_events detach partition events_may;"
    billing.query(statement if by == "detach" else "truncate events_may")
    asks_nothing(billing)


@EVERY_MODE
def test_a_partition_with_other_events_is_not_to_be_detached_and_late_events_are_not_to_be_deleted(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode, BY_MONTH)
    billing.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start,"
        " period_end) values ('stripe', 'a', 'sms_messages', 'sms', '2025-05-01Z', '2025-06-01Z')"
    )
    statement = archived(billing, tmp_path)
    billing.record(ONE, 5, request_id="late")
    billing.query(statement)
    assert billing.query(f"select request_id from billing_usage_events where {IN_MAY} order by 1") == [
        ("late",),
        ("sms",),
    ]
    found = corrections_of(billing)
    assert [(key, one.sealed_sum, one.sum_now, one.difference) for key, one in found.items()] == [
        (ONE, "10", "15", "5")
    ]
    assert [(event.request_id, event.what) for event in found[ONE].events] == [("late", "came later")]
    ended = run()
    check = ended.check("sealed_months_hold")
    assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 5 units" in (check.description or "")
    assert billing.counter(ONE) == 10


@EVERY_MODE
def test_an_event_that_is_changed_beside_its_archive_and_one_that_is_sent_again_are_told_apart(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    statement = archived(billing, tmp_path)
    (again,) = billing.query(
        f"select request_id from billing_usage_events where gateway_customer_id = %s and quantity = 4 and {IN_MAY}",
        OTHER,
    )
    time = billing.value("select event_timestamp from billing_usage_events where request_id = %s", *again)
    billing.query(
        f"update billing_usage_events set quantity = 7 where gateway_customer_id = %s and quantity = 6 and {IN_MAY}",
        ONE,
    )
    billing.query(statement)
    billing.add_event(OTHER, 4, request_id=again[0], event_timestamp=time)
    found = corrections_of(billing)
    assert [(key, one.sum_now, [event.what for event in one.events]) for key, one in found.items()] == [
        (ONE, "11", ["changed"])
    ]


@EVERY_MODE
def test_of_events_without_a_request_id_the_log_has_those_that_it_has_and_no_others(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode, "alter table billing_usage_events alter request_id drop not null")
    fill(billing)
    billing.query("update billing_usage_events set event_timestamp = period_start")
    billing.query(f"update billing_usage_events set request_id = null where quantity = 4 and {IN_MAY}")
    assert run(full=True).record.outcome == "clean"
    seal(billing)
    (statement,) = archive(billing, tmp_path).statements
    asks_nothing(billing)
    billing.query(f"delete from billing_usage_events where gateway_customer_id = '{OTHER}' and {IN_MAY}")
    billing.add_event(ONE, 5, request_id=None)
    for leaves in ("", statement):
        billing.query(leaves or "select")
        found = corrections_of(billing)
        assert [(key, one.sum_now, len(one.events)) for key, one in found.items()] == [(ONE, "15", 1)]


@pytest.mark.parametrize("mode", ["incremental"])
def test_columns_of_the_log_may_have_any_names_but_that_of_our_own(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(
        mode,
        "alter table billing_usage_events add is_archived boolean default true, add is_same boolean default true, "
        'add bits bigint default 5, add repeated text default 1, add text text, add "tax_%" numeric default 3.5',
    )
    billing.query(archived(billing, tmp_path))
    billing.add_event(ONE, 5, request_id="late")
    (found,) = corrections_of(billing).values()
    assert [(event.request_id, event.what) for event in found.events] == [("late", "came later")]
    assert verified(billing) is None


@pytest.mark.parametrize("mode", ["incremental"])
def test_corrections_of_an_archived_month_are_exact_to_the_last_digit(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode, "alter table billing_usage_events alter quantity type numeric(38, 10)")
    billing.query(archived(billing, tmp_path))
    billing.add_event(ONE, "12345678901234567890.0000000001")
    (one,) = corrections_of(billing).values()
    assert (one.sum_now, one.difference) == ("12345678901234567900.0000000001", "12345678901234567890.0000000001")
    check = run(full=True).check("sealed_months_hold")
    assert "1 keys, by 1 events and 12345678901234567890.0000000001 units" in (check.description or "")


@pytest.mark.parametrize("mode", ["incremental"])
def test_a_file_that_is_missing_or_changed_after_archiving_is_named(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    billing.query(archived(billing, tmp_path))
    (file,) = tmp_path.rglob("*.parquet")
    (manifest,) = tmp_path.rglob("manifest.json")
    assert verified(billing) is None
    content, written = file.read_bytes(), manifest.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{file} was changed after it was archived: its SHA-256 is " in said(verified(billing))
    file.unlink()
    assert said(verified(billing)) == f"{file} is missing."
    with pytest.raises(ReconError, match="is missing"):
        corrections_of(billing)
    file.write_bytes(content)
    manifest.write_bytes(written.replace(b"2025-05", b"2025-06"))
    assert f"{manifest} was changed after it was archived" in said(verified(billing))
    asked = run()
    assert (asked.record.outcome, billing.counters()) == ("clean", dict.fromkeys(CUSTOMERS, 10))


@EVERY_MODE
def test_an_archived_month_is_reopened_only_if_the_log_has_its_events(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    statement = archived(billing, tmp_path)
    billing.query(f"create table kept as select * from billing_usage_events where {IN_MAY}")
    billing.query(statement)
    assert run().record.outcome == "clean"
    with pytest.raises(NotSealedError) as refused:
        reopen(billing)
    assert refused.value.what == (
        "2025-05 of stripe:remote_commands was archived, and the log does not have its events any more: 6 keys have "
        "less than was sealed."
    )
    assert f"insert the rows of {tmp_path}/month=2025-05/" in refused.value.fix
    billing.query("insert into billing_usage_events select * from kept")
    assert run(full=True).record.outcome == "clean"
    reopen(billing)
    assert run().record.outcome == "clean"
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)


def verified(billing: Billing) -> ReconError | None:
    with database(billing).connection() as connection:
        seal_ids = [one for (one,) in billing.query("select seal_id from recon.sealed_month")]
        return verify_archives(connection, read_settings(), seal_ids)


def said(error: ReconError | None) -> str:
    assert error is not None
    return error.what


@pytest.mark.parametrize("mode", ["full"])
def test_what_is_in_a_table_that_was_attached_or_renamed_after_the_archive_stays_however_old_it_is(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(
        mode,
        f"""
        {partitioned_log("created_at")}
        create table events_in_june partition of billing_usage_events
            for values from ('2025-06-01 00:00Z') to ('2025-07-01 00:00Z');
        create table events_rest partition of billing_usage_events default;
        create index on billing_usage_events (request_id);
        alter table billing_usage_events detach partition events_in_june;
        insert into events_in_june (gateway_name, gateway_customer_id, usage_type, request_id, quantity,
            period_start, period_end, created_at)
        values ('stripe', 'a', 'remote_commands', 'in June', 5, '2025-05-01Z', '2025-06-01Z', '2025-06-01Z');
        """,
    )
    statement = archived(billing, tmp_path)
    billing.query("alter table billing_usage_events attach partition events_in_june"
                  " for values from ('2025-06-01 00:00Z') to ('2025-07-01 00:00Z')")  # fmt: skip
    assert statement.startswith("delete from billing_usage_events where ")
    billing.query(statement)
    assert billing.query(f"select request_id from billing_usage_events where {IN_MAY}") == [("in June",)]


@pytest.mark.parametrize("mode", ["incremental"])
@pytest.mark.parametrize(
    "elsewhere",
    ["another server", "a server that was promoted", "transaction ids that were used before", "an older state"],
)
def test_where_transaction_ids_say_nothing_of_the_archive_the_statement_deletes_nothing(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path, elsewhere: str
) -> None:
    billing = make_billing_in_mode(mode)
    statement = archived(billing, tmp_path)
    server = billing.value("select system_identifier from pg_control_system()")
    (first, last) = re.findall(r"'(\d+)'::xid8", statement)[1:]
    assert int(last) - int(first) in range(2**31 - 10**7 - 1_000, 2**31)
    now = billing.value("select pg_current_xact_id()::text::bigint")
    moved = {
        "another server": (str(server), str(server + 1)),
        "a server that was promoted": ("timeline_id = 1", "timeline_id = 2"),
        "transaction ids that were used before": (f"'{last}'::xid8", f"'{now}'::xid8"),
        "an older state": (f"between '{first}'::xid8", f"between '{now + 1_000}'::xid8"),
    }[elsewhere]
    assert statement.count(moved[0]) == 1
    billing.query(statement.replace(*moved))
    assert billing.value(f"select count(*) from billing_usage_events where {IN_MAY}") == 12
    billing.query(statement)
    assert billing.value(f"select count(*) from billing_usage_events where {IN_MAY}") == 0


@EVERY_MODE
def test_an_event_that_came_is_reported_though_it_adds_up_to_what_left(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    billing.record("single", 1)
    billing.query(archived(billing, tmp_path))
    assert run().check("sealed_months_hold").passed
    billing.record("single", 1, request_id="another")
    check = run().check("sealed_months_hold")
    assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 1 units" in (check.description or "")
    assert [(one.sealed_sum, one.sum_now) for one in corrections_of(billing).values()] == [("1", "2")]
    assert billing.counter("single") == 1


@EVERY_MODE
def test_an_event_whose_transaction_was_open_when_the_log_was_read_is_reported_and_stays(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    fill(billing)
    seal(billing)
    with billing.session() as open_then:
        open_then.record("anybody", 5, request_id="open then")
        billing.record("anybody", 1, period=JUNE)  # a transaction that ends before
        (statement,) = archive(billing, tmp_path).statements
        open_then.connection.commit()
    billing.query(statement)
    assert billing.query(f"select request_id from billing_usage_events where {IN_MAY}") == [("open then",)]
    for full in (False, True):
        check = run(full=full).check("sealed_months_hold")
        assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 5 units" in (check.description or "")


@EVERY_MODE
def test_an_archived_month_is_not_reopened_in_the_moment_in_which_its_events_left(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    billing.query(archived(billing, tmp_path))
    with pytest.raises(NotSealedError, match="6 keys have less than was sealed"):
        reopen(billing)


@pytest.mark.parametrize("mode", ["incremental"])
def test_an_audit_reads_the_archive_and_names_what_is_wrong_with_it_and_no_counter_changes(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    billing.query(archived(billing, tmp_path))
    (file,) = tmp_path.rglob("*.parquet")
    content = file.read_bytes()
    assert run(full=True).check("sealed_months_hold").passed
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    audited = run(full=True)
    check = audited.check("sealed_months_hold")
    assert not check.passed
    assert f"An archive is not what was sealed, or cannot be read: {file} was changed" in (check.description or "")
    assert "Restore it from a copy of the archive" in (check.description or "")
    assert (audited.record.outcome, billing.counters()) == ("clean", dict.fromkeys(CUSTOMERS, 10))
    assert run().check("sealed_months_hold").passed, "a tick does not read it"
    file.write_bytes(content)
    assert run(full=True).check("sealed_months_hold").passed


@EVERY_MODE
def test_an_archived_event_that_is_sent_again_is_none_that_came_later_and_its_increment_is_taken_back(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    statement = archived(billing, tmp_path)
    billing.query("create table sent as select * from billing_usage_events where gateway_customer_id = %s", ONE)
    billing.query(statement)
    billing.query(
        "select record_billing_usage_event(gateway_name, gateway_customer_id, usage_type, request_id, period_start,"
        f" period_end, quantity, event_timestamp) from sent where {IN_MAY}"
    )
    assert billing.counter(ONE) == 20
    ended = run()
    assert (ended.record.outcome, billing.counter(ONE)) == ("clean", 10)
    assert ended.check("sealed_months_hold").passed
    billing.record(ONE, 3)
    for full in (False, True):
        check = run(full=full).check("sealed_months_hold")
        assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 3 units" in (check.description or "")


@pytest.mark.parametrize("mode", ["incremental"])
def test_after_a_move_to_another_server_an_audit_finds_what_came_later(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode)
    billing.query(archived(billing, tmp_path))
    billing.query(  # the new server counts its transactions from the beginning
        "alter table recon.archived_month disable trigger user; update recon.archived_month set seen = '900000:900000:'"
    )
    billing.record(ONE, 3)
    check = run(full=True).check("sealed_months_hold")
    assert "2025-05 of stripe:remote_commands: 1 keys, by 1 events and 3 units" in (check.description or "")
