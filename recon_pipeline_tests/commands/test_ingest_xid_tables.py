"""Logs that are made otherwise: partitioned, not ours to alter, without unique request ids, no tables at all."""

from collections.abc import Iterator

import pytest

from recon_pipeline_tests.commands.conftest import MakeBilling, OwnServer, make_billing_tables, recon
from recon_pipeline_tests.commands.modes import (
    MAY,
    TRIGGERS,
    finding,
    is_incremental,
    mode,
    run_may,
    statements,
    xid_indexes,
)
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.logs import partitioned_log

LOG = "billing_usage_events"
NO_UNIQUE = f"alter table {LOG} drop constraint {LOG}_gateway_name_request_id_key;"
PARTITIONED = f"""
    {partitioned_log("period_start")}
    create index on {LOG} (gateway_name, request_id);
    create table log_2025_04 partition of {LOG} for values from ('2025-04-01Z') to ('2025-05-01Z');
"""
A_MONTH = f"create table log_2025_05 partition of {LOG} for values from ('2025-05-01Z') to ('2025-06-01Z')"
ONE_LEVEL = PARTITIONED + A_MONTH
TWO_LEVELS = f"""
    {PARTITIONED}
    {A_MONTH} partition by hash (request_id);
    create table log_2025_05_a partition of log_2025_05 for values with (modulus 2, remainder 0);
    create table log_2025_05_b partition of log_2025_05 for values with (modulus 2, remainder 1);
"""
ATTACH = f"""
    create table attached (like {LOG});
    alter table {LOG} attach partition attached for values from ('2025-07-01Z') to ('2025-08-01Z');
"""
DEFAULTS = """
    select attrelid::regclass::text as on_table
    from pg_attribute
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    join pg_class on pg_class.oid = attrelid and relkind in ('r', 'p')
    where attname = 'ingest_xid' and relnamespace = 'public'::regnamespace
        and pg_get_expr(adbin, adrelid) is distinct from 'pg_current_xact_id()'
"""


def recorded(billing: Billing, customer: str, quantity: int) -> None:
    """Event and increment, for a log that the recorder cannot write to: it has no unique constraint."""
    billing.add_event(customer, quantity)
    if customer in billing.counters():
        billing.query(
            "update billing_usage_counters set usage_count = usage_count + %s where gateway_customer_id = %s",
            quantity, customer,
        )  # fmt: skip
    else:
        billing.add_counter(customer, quantity)


@pytest.mark.parametrize(
    ("shape", "tables"),
    [
        (ONE_LEVEL, [LOG, "log_2025_04", "log_2025_05"]),
        (TWO_LEVELS, [LOG, "log_2025_04", "log_2025_05", "log_2025_05_a", "log_2025_05_b"]),
    ],
)
def test_a_partitioned_log_gets_default_index_and_triggers_on_each_partition(
    make_billing: MakeBilling, shape: str, tables: list[str]
) -> None:
    billing = make_billing(shape, template="billing")
    recorded(billing, "a", 3)

    first, second = recon("init"), recon("init")

    assert first.exit_code == 0, first.said
    assert "Runs will be incremental" in first.said
    assert (second.exit_code, second.err) == (0, "")
    assert billing.query(DEFAULTS) == []
    assert xid_indexes(billing) == [(table, True) for table in tables]
    noted = [(table, f"recon_note_{event}") for table in tables for event in ("delete", "truncate", "update")]
    assert billing.query(TRIGGERS) == noted
    assert is_incremental()
    assert finding("partitions") == {}
    for quantity in (4, 5):
        assert run_may()["mode"] == "incremental"
        recorded(billing, "a", quantity)
    assert run_may()["drift_count"] == 0
    billing.query(f"delete from {tables[-1]} where quantity = 5")
    billing.query(f"delete from {LOG} where quantity = 5")
    assert run_may()["rows_repaired"] == 1
    assert billing.counters() == {"a": 7}


def test_a_log_without_a_single_partition_is_prepared_for_those_to_come(make_billing: MakeBilling) -> None:
    billing = make_billing(f"{PARTITIONED} drop table log_2025_04", template="billing")
    assert "Runs will be incremental" in recon("init").said
    billing.query(A_MONTH)
    assert is_incremental()


@pytest.mark.parametrize("parent", [LOG, "log_2025_05"])
def test_a_partition_made_later_is_covered_by_itself(make_billing: MakeBilling, parent: str) -> None:
    shape = TWO_LEVELS.replace("modulus 2", "modulus 3") if parent != LOG else TWO_LEVELS
    billing = make_billing(shape, template="billing")
    recon("init")
    bounds = "from ('2025-06-01Z') to ('2025-07-01Z')" if parent == LOG else "with (modulus 3, remainder 2)"

    billing.query(f"create table later partition of {parent} for values {bounds}")

    assert is_incremental()
    assert ("later", True) in xid_indexes(billing)
    assert "when its events are deleted, by its own name" in finding("partitions")["detail"]
    assert finding("partitions")["mend"] == "recon init --with-ingest-xid"
    recon("init")
    assert finding("partitions") == {}


def test_a_partition_attached_with_its_default_leaves_runs_incremental(make_billing: MakeBilling) -> None:
    billing = make_billing(TWO_LEVELS, template="billing")
    recon("init")
    recorded(billing, "a", 3)
    run_may()
    default = "alter table attached alter column ingest_xid set default pg_current_xact_id();"
    billing.query(ATTACH.replace(f"alter table {LOG}", f"{default} alter table {LOG}"))
    assert is_incremental()
    assert ("attached", True) in xid_indexes(billing)
    run = run_may()
    assert (run["mode"], run["drift_count"]) == ("incremental", 0)
    assert run["rebuilt_because"]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_partition_attached_without_default_puts_runs_into_full_mode_until_init_is_run_again(
    make_billing: MakeBilling, indexed: bool
) -> None:
    billing = make_billing(TWO_LEVELS, template="billing")
    recon("init")
    recorded(billing, "a", 3)
    run_may()
    if not indexed:
        billing.query(f"drop index {LOG}_ingest_xid_idx")  # an attached table is given what the whole log has

    billing.query(ATTACH)

    assert mode() == ("full", "attached.ingest_xid is not filled with pg_current_xact_id()")
    assert finding("mode")["mend"] == "recon init --with-ingest-xid"
    run = run_may()
    assert (run["mode"], run["mode_reason"]) == mode()
    assert "Runs will be incremental" in recon("init").said
    assert ("attached", True) in xid_indexes(billing)
    assert is_incremental()
    assert run_may()["mode"] == "incremental"


def test_names_that_must_be_quoted_are(make_billing: MakeBilling) -> None:
    billing = make_billing(
        f"""
        {TWO_LEVELS}
        alter table log_2025_05_a rename to "100% of; 'May'";
        alter table log_2025_05_b rename to "log_2025_05_b_{"long" * 12}";
        create schema "Weird Schema";
        alter table {LOG} set schema "Weird Schema";
        alter table billing_usage_counters set schema "Weird Schema";
        alter table billing_subscriptions set schema "Weird Schema";
        do $$ begin
            execute format('alter database %I set search_path = "Weird Schema", public', current_database());
        end $$
        """,
        template="billing",
    )
    output = recon("init")
    assert output.exit_code == 0, output.said
    assert is_incremental()
    assert len(xid_indexes(billing)) == 5

    with billing.session(autocommit=True) as application:
        recorded(application, "a", 3)
        assert run_may()["mode"] == "incremental"
        # The first of two events with one request id goes, so that the second counts, in whatever partition.
        application.add_event("a", 4, request_id="twice")
        application.add_event("a", 5, request_id="twice")
        assert run_may()["rows_repaired"] == 1
        application.query(f"delete from {LOG} where quantity = 4")
        run = run_may()
        assert (run["rows_repaired"], run["rebuilt_because"]) == (1, None), "noted by name, not as a lost log"
        assert application.counters() == {"a": 8}


@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        (f"alter table {LOG} add column ingest_xid text", f"{LOG}.ingest_xid is text, not xid8"),
        (f"create table heir () inherits ({LOG})", f"tables inherit from {LOG} without being partitions of it"),
    ],
)
def test_a_log_that_cannot_be_prepared_is_left_as_it_is_and_every_command_says_why(
    make_billing: MakeBilling, breakage: str, reason: str
) -> None:
    billing = make_billing(breakage, template="billing")
    columns = f"select attname, attnum, atthasdef from pg_attribute where attrelid = '{LOG}'::regclass order by 2"
    before = billing.query(columns)

    output = recon("init")

    assert (output.exit_code, output.err) == (0, "")
    assert f"Runs will be in full mode, reading the whole log: {reason}." in output.said
    assert mode() == ("full", reason)
    assert billing.query(columns) == before
    assert billing.query(TRIGGERS) == []
    assert finding("partitions") == {}


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (
            f"alter table {LOG} rename to log; create view {LOG} as select * from log",
            f"{LOG} is a view, in which two events with one request id cannot be distinguished",
        ),
        (f"alter table {LOG} drop column quantity", f"{LOG} has no column quantity"),
    ],
)
def test_what_is_not_the_applications_log_is_left_as_it_is_and_refused(
    make_billing: MakeBilling, breakage: str, said: str
) -> None:
    billing = make_billing(breakage, template="billing")
    output = recon("init")
    assert (output.exit_code, output.err) == (0, "")
    assert f"The log was left as it is, and runs will be refused: {said}." in output.said
    assert finding(f"{LOG} columns")["verdict"] == "fail"
    assert said in recon("reconcile", *MAY).said
    assert "ingest_xid" not in [name for (name,) in billing.query("select attname::text from pg_attribute")]


def test_a_column_of_another_type_leaves_runs_working_in_full_mode(make_billing: MakeBilling) -> None:
    billing = make_billing(f"alter table {LOG} add column ingest_xid text default 'mine'", template="billing")
    recon("init")
    billing.record("a", 3)
    billing.set_counter("a", 1)
    run = run_may()
    assert (run["mode"], run["mode_reason"], run["rows_repaired"]) == (*mode(), 1)
    assert billing.counters() == {"a": 3}


def test_without_a_unique_request_id_doctor_says_what_index_to_create_and_duplicates_across_ticks_count_once(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(NO_UNIQUE, template="billing")
    output = recon("init")
    reason = f"{LOG} has no index on request_id to find repeated ones by"
    assert f"Runs will be in full mode, reading the whole log: {reason}." in output.said
    assert mode() == ("full", reason)
    (create,) = statements(output)
    assert finding("mode")["mend"] == finding("event identity")["mend"] == f"{create};"
    billing.add_event("a", 3, request_id="twice")
    assert (run_may()["mode"], billing.counters()) == ("full", {"a": 3})

    billing.query(create)

    assert is_incremental()
    assert "found by index" in finding("event identity")["detail"]
    assert run_may()["mode"] == "incremental"
    billing.add_event("a", 3, request_id="twice")
    run = run_may()
    assert (run["mode"], run["drift_count"], run["dedupe_count"]) == ("incremental", 0, 1)
    assert billing.counters() == {"a": 3}


def test_each_partition_without_an_index_on_request_ids_is_named_with_its_statement(make_billing: MakeBilling) -> None:
    billing = make_billing(f"{TWO_LEVELS} drop index {LOG}_gateway_name_request_id_idx", template="billing")
    output = recon("init")
    assert mode()[0] == "full"
    assert len(statements(output)) == 3
    for statement in statements(output):
        billing.query(statement)
    assert is_incremental()
    assert finding("event identity")["mend"] == ""


def test_a_unique_constraint_that_is_dropped_later_puts_runs_into_full_mode_and_init_fixes_it(billing: Billing) -> None:
    billing.record("a", 3, request_id="twice")
    assert run_may()["mode"] == "incremental"
    billing.query(NO_UNIQUE + f"create index on {LOG} (gateway_name, request_id)")
    assert mode() == ("full", f"trigger recon_note_delete on {LOG} is disabled or out of date")
    assert finding("mode")["mend"] == "recon init --with-ingest-xid"
    billing.add_event("b", 4, request_id="twice")

    assert "Runs will be incremental" in recon("init").said

    assert run_may()["mode"] == "incremental"
    assert billing.counters() == {"a": 3}
    billing.query(f"delete from {LOG} where gateway_customer_id = 'a'")
    run_may()
    assert billing.counters() == {"a": 0, "b": 4}


def test_without_ingest_xid_everything_works_in_full_mode_and_says_how_to_change_that(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(template="billing")
    output = recon("init", "--without-ingest-xid")
    reason = f"{LOG} has no column ingest_xid"
    assert f"Runs will be in full mode, reading the whole log: {reason}." in output.said
    assert mode() == ("full", reason)
    billing.add_event("a", 3)
    run = run_may()
    assert (run["mode"], run["mode_reason"], run["rows_repaired"]) == ("full", reason, 1)

    fix = finding("mode")["mend"]
    assert f"To change that: {fix}" in output.said
    assert "Runs will be incremental" in recon(*fix.split()[1:]).said
    assert is_incremental()
    billing.add_event("a", 4)
    run = run_may()
    assert (run["mode"], run["rows_repaired"]) == ("incremental", 1)
    assert billing.counters() == {"a": 7}


def test_a_log_that_was_to_be_left_as_it_is_is_left_by_every_later_init_until_somebody_asks_for_the_column(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(template="billing")
    added = "select count(*) from pg_attribute where attname = 'ingest_xid'"
    recon("init", "--without-ingest-xid")

    later = recon("init")

    assert (later.exit_code, billing.value(added)) == (0, 0), later.said
    assert "The log is left as it is, as recon init --without-ingest-xid asked." in later.out
    assert "To change that: recon init --with-ingest-xid" in later.out
    assert "Runs will be incremental" in recon("init", "--with-ingest-xid").said
    billing.query(f"alter table {LOG} drop column ingest_xid")
    assert "Runs will be incremental" in recon("init").said, "the answer before is forgotten"


@pytest.fixture
def foreign_log(
    own_server: OwnServer, orchestrated: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Billing, str]]:
    """A log of `log_owner`, as superuser; DATABASE_URL names it for a role that may read it and owns schema recon."""
    url = own_server.create_database("foreign_log", make_billing_tables)
    with connected(url, autocommit=True) as connection:
        connection.execute(f"""
            create role log_owner login;
            create role runner login;
            grant create on schema public to log_owner;
            create schema recon authorization runner;
            alter table {LOG} owner to log_owner;
            grant select on {LOG}, billing_subscriptions to runner;
            grant select, insert, update (usage_count, updated_at) on billing_usage_counters to runner;
        """)
        monkeypatch.setenv("DATABASE_URL", url.replace("postgres@", "runner@"))
        yield Billing(url, connection), url.replace("postgres@", "log_owner@")


@pytest.mark.parametrize("prepare", ["", NO_UNIQUE + f"create index on {LOG} (request_id)", ONE_LEVEL])
def test_a_log_of_another_owner_is_read_in_full_until_its_owner_has_run_what_init_shows(
    foreign_log: tuple[Billing, str], prepare: str
) -> None:
    billing, owner_url = foreign_log
    billing.query(prepare)
    if prepare == ONE_LEVEL:
        for table in (LOG, "log_2025_04", "log_2025_05"):
            billing.query(f"alter table {table} owner to log_owner; grant select on {table} to runner")

    output = recon("init")

    assert output.exit_code == 0, output.said
    assert f"role runner may not alter {LOG}. To change that, its owner log_owner runs" in output.said
    assert mode() == ("full", f"{LOG} has no column ingest_xid")
    assert run_may()["mode"] == "full"
    shown = statements(output)
    with connected(owner_url, autocommit=True) as owner:
        for statement in shown:
            owner.execute(statement.encode())
    assert is_incremental()
    with connected(owner_url, autocommit=True) as owner:
        for statement in statements(recon("init")):  # an index can be attached only once it is there
            owner.execute(statement.encode())
    again = recon("init")
    assert (again.exit_code, statements(again)) == (0, [])
    assert "Runs will be incremental" in again.said
    assert finding("partitions") == {}
    for customer in ("a", "b"):
        billing.add_event(customer, 3)
    run = run_may()
    assert (run["mode"], run["rows_repaired"]) == ("incremental", 2)
    with connected(owner_url, autocommit=True) as owner:
        owner.execute(f"delete from {LOG} where gateway_customer_id = 'a'".encode())
    run_may()
    assert billing.counters() == {"a": 0, "b": 3}


def test_what_init_prints_makes_runs_incremental_in_a_fresh_database(
    own_server: OwnServer, orchestrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_server.create_database("fresh")
    own_server.psql(url, recon("init", "--print", "--with-billing-tables", DATABASE_URL=None).out)
    monkeypatch.setenv("DATABASE_URL", url.replace("postgres@", "recon_pipeline@"))
    assert "add column if not exists ingest_xid" not in recon("init", "--print", "--without-ingest-xid").out

    output = recon("init")

    assert (output.exit_code, output.err) == (0, ""), output.said
    assert "Runs will be incremental" in output.said
    assert is_incremental()
