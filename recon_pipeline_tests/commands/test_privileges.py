"""The role of one's own with the least privileges: what a person grants is enough, and what is missing is named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dagster import DagsterInstance

from recon_pipeline_tests.commands.conftest import (
    CommandResult,
    OwnServer,
    beating_daemon,
    make_billing_tables,
    migrate,
    recon,
)
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.acceptance import accept_usages

SCHEMA = """
    select jsonb_build_array(
        relation.relname, relation.relkind,
        (
            select jsonb_agg(jsonb_build_array(
                attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
                pg_get_expr(adbin, adrelid)
            ) order by attnum)
            from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
            where attrelid = relation.oid and attnum > 0
        ),
        (select jsonb_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = relation.oid),
        (select jsonb_agg(pg_get_indexdef(indexrelid) order by 1) from pg_index where indrelid = relation.oid),
        (
            select jsonb_agg(pg_get_triggerdef(oid) order by 1) from pg_trigger
            where tgrelid = relation.oid and not tgisinternal
        ),
        obj_description(relation.oid)
    )
    from pg_class as relation
    where relnamespace = 'recon'::regnamespace
    order by relname
"""
ROW_SECURITY = """
    alter table billing_usage_events enable row level security;
    alter table billing_usage_counters enable row level security;
    alter table billing_subscriptions enable row level security;
"""
FORCED = f"""
    {ROW_SECURITY}
    alter table billing_usage_events force row level security;
    alter table billing_usage_counters force row level security;
    create policy tenants on billing_usage_events using (gateway_customer_id = current_setting('app.tenant', true));
    create policy tenants on billing_usage_counters using (gateway_customer_id = current_setting('app.tenant', true));
"""
TABLES = ("billing_usage_events", "billing_usage_counters", "billing_subscriptions")
FUNCTIONS = "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'recon'::regnamespace order by 1"
GRANTS = """
    create role reader login;
    grant usage on schema recon to reader;
    grant select, insert, update, delete on all tables in schema recon to reader;
    grant select on billing_usage_events, billing_subscriptions to reader;
    grant select, insert, update (usage_count, updated_at) on billing_usage_counters to reader;
"""


def failures(output: CommandResult) -> dict[str, dict[str, str]]:
    """The failing requirements of `recon doctor --json`."""
    return {finding["requirement"]: finding for finding in output.json["findings"] if finding["verdict"] == "fail"}


@pytest.fixture
def superuser(own_server: OwnServer) -> Iterator[Billing]:
    """A prepared database on a server whose roles are the test's own, as superuser."""
    url = own_server.create_database("privileges", migrate)
    with connected(url, autocommit=True) as connection:
        connection.execute(GRANTS)
        yield Billing(url, connection)


@pytest.fixture
def as_reader(superuser: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """The same; DATABASE_URL names it for the role that was granted what is needed and no more."""
    beating_daemon(run_history)
    monkeypatch.setenv("DATABASE_URL", superuser.url.replace("postgres@", "reader@"))
    return superuser


def test_a_role_with_no_more_than_the_grants_passes_and_repairs(as_reader: Billing) -> None:
    as_reader.add_event("a", 7)
    assert failures(recon("doctor", "--json")) == {}
    output = recon("reconcile", "--period", "2025-05", "--json")
    assert output.exit_code == 0, output.said
    assert as_reader.counters() == {"a": 7}


@pytest.mark.parametrize(
    ("revoked", "requirement", "fix"),
    [
        ("select on billing_usage_events", "billing_usage_events readable", "grant select on billing_usage_events"),
        (
            "select on billing_usage_counters",
            "billing_usage_counters readable",
            "grant select on billing_usage_counters",
        ),
        ("select on billing_subscriptions", "billing_subscriptions readable", "grant select on billing_subscriptions"),
        (
            "insert on billing_usage_counters",
            "counters can be repaired",
            "grant insert, update (usage_count, updated_at)",
        ),
        ("update (usage_count) on billing_usage_counters", "counters can be repaired", "grant insert, update"),
        ("update (updated_at) on billing_usage_counters", "counters can be repaired", "grant insert, update"),
        ("usage on schema recon", "schema recon", "grant usage on schema recon"),
        ("select on recon.schema_version", "schema recon", "grant select, insert, update, delete on all tables"),
        ("insert on recon.counter_repair", "schema recon", "grant select, insert, update, delete on all tables"),
        ("update on recon.counter_drift", "schema recon", "grant select, insert, update, delete on all tables"),
        ("delete on recon.usage_aggregate", "schema recon", "grant select, insert, update, delete on all tables"),
    ],
)
def test_doctor_names_the_one_privilege_that_is_missing_with_a_grant_that_fixes_it(
    as_reader: Billing, revoked: str, requirement: str, fix: str
) -> None:
    as_reader.query(f"revoke {revoked} from reader")

    output = recon("doctor", "--json")

    assert output.exit_code == 1
    found = failures(output)
    assert set(found) == {requirement}
    assert fix in found[requirement]["mend"]
    as_reader.query(found[requirement]["mend"])
    assert recon("doctor", "--json").exit_code == 0


def test_a_run_without_a_privilege_is_refused_with_the_grant_and_changes_nothing(as_reader: Billing) -> None:
    as_reader.add_event("a", 7)
    as_reader.query("revoke select on billing_usage_events from reader")
    unreadable = recon("reconcile", "--period", "2025-05", "--json")
    as_reader.query("grant select on billing_usage_events to reader; revoke insert on recon.counter_repair from reader")
    unaccountable = recon("reconcile", "--period", "2025-05", "--json")

    assert unreadable.exit_code == unaccountable.exit_code == 1
    assert "grant select on billing_usage_events to reader;" in unreadable.said
    assert unaccountable.json["reconcile_failures"] == 1
    assert as_reader.counters() == {}, "no repair without its ledger row"


def test_only_the_owner_of_the_schema_decides_whether_the_log_is_left_as_it_is(as_reader: Billing) -> None:
    refused = recon("init", "--without-ingest-xid")

    assert refused.exit_code == 1
    assert "role reader does not own that schema" in refused.err
    assert "Run the same command as the owner of schema recon, once." in " ".join(refused.err.split())
    assert recon("init").exit_code == 0


@pytest.mark.parametrize("table", TABLES)
def test_row_level_security_is_refused_with_the_reason(as_reader: Billing, table: str) -> None:
    as_reader.add_counter("a", 60)
    as_reader.query(f"alter table {table} enable row level security")

    doctor = recon("doctor", "--json")
    output = recon("reconcile", "--period", "2025-05", "--json")

    assert set(failures(doctor)) == {f"{table} row level security"}
    assert output.exit_code == 1
    assert f"Row level security is active on {table} for role reader" in output.said
    assert "alter role reader bypassrls;" in output.said
    assert as_reader.counters() == {"a": 60}
    as_reader.query("alter role reader bypassrls")
    assert recon("doctor", "--json").exit_code == 0


@pytest.fixture
def printed(own_server: OwnServer, superuser: Billing, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A database in which the owner of the billing tables, no superuser, has run what `recon init --print` shows."""
    own_server.create_database("printed")
    with connected(own_server.url("printed"), autocommit=True) as connection:
        connection.execute("create role tables_owner login createrole; alter database printed owner to tables_owner")
        connection.execute("grant create on schema public to tables_owner")
    owner_url = own_server.url("printed").replace("postgres@", "tables_owner@")
    make_billing_tables(owner_url)
    own_server.psql(owner_url, getattr(request, "param", ""))
    output = recon("init", "--print", DATABASE_URL=None)
    assert (output.exit_code, output.err) == (0, "")
    own_server.psql(owner_url, output.out)
    with connected(own_server.url("printed"), autocommit=True) as connection:
        yield Billing(own_server.url("printed"), connection)


def test_what_init_prints_makes_the_same_schema_and_the_role_that_runs_it_cannot_touch_an_event(
    printed: Billing, superuser: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating_daemon(run_history)
    for query in (SCHEMA, FUNCTIONS, "select * from recon.schema_version"):
        assert printed.query(query) == superuser.query(query)

    url = printed.url.replace("postgres@", "recon_pipeline@")
    monkeypatch.setenv("DATABASE_URL", url)
    printed.add_event("a", 60)
    printed.add_counter("b", 60)
    doctor = recon("doctor", "--json")
    assert doctor.exit_code == 0, doctor.said
    verdicts = {finding["requirement"]: finding["verdict"] for finding in doctor.json["findings"]}
    assert verdicts["event log is sacred"] == verdicts["mode"] == "pass"
    init = recon("init")
    assert init.exit_code == 0
    assert "Runs will be incremental" in init.said
    accept_usages(url)
    output = recon("reconcile", "--period", "2025-05", "--json")
    assert (output.exit_code, output.json["mode"]) == (0, "incremental"), output.said
    assert printed.counters() == {"a": 60, "b": 0}

    with connected(url, autocommit=True) as connection:
        for statement in (
            "delete from billing_usage_events",
            "update billing_usage_events set quantity = 1",
            "truncate billing_usage_events",
            "insert into billing_usage_events select * from billing_usage_events",
            "delete from billing_usage_counters",
            "update billing_usage_counters set gateway_customer_id = 'x'",
            "delete from recon.counter_repair",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_what_init_prints_prepares_a_second_database_of_the_server_with_the_role_that_is_there(
    printed: Billing, own_server: OwnServer, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating_daemon(run_history)
    owner = own_server.url("second").replace("postgres@", "tables_owner@")
    password = "select rolpassword from pg_authid where rolname = 'recon_pipeline'"
    before = printed.query(password)
    own_server.create_database("second")
    with connected(own_server.url("second"), autocommit=True) as connection:
        connection.execute("alter database second owner to tables_owner; grant create on schema public to tables_owner")
    make_billing_tables(owner)

    own_server.psql(owner, recon("init", "--print", DATABASE_URL=None).out)

    monkeypatch.setenv("DATABASE_URL", owner.replace("tables_owner@", "recon_pipeline@"))
    doctor = recon("doctor", "--json")
    assert doctor.exit_code == 0, doctor.said
    assert printed.query(password) == before


def test_an_owner_who_may_create_no_role_is_told_what_a_dba_runs_first(
    own_server: OwnServer, superuser: Billing
) -> None:
    superuser.query("drop schema recon cascade; create role tables_owner login")
    superuser.query("alter database privileges owner to tables_owner")
    superuser.query("; ".join(f"alter table {table} owner to tables_owner" for table in TABLES))
    owner = superuser.url.replace("postgres@", "tables_owner@")
    sql = recon("init", "--print", DATABASE_URL=None).out

    with pytest.raises(AssertionError, match="tables_owner may not create the role recon_pipeline") as refused:
        own_server.psql(owner, sql)
    advised = str(refused.value).partition("Let a DBA run: ")[2].partition("; then run this again.")[0]
    assert "grant recon_pipeline to tables_owner" in advised
    superuser.query(advised.replace(" (unless it is there)", ""))
    superuser.query("grant create on schema public to tables_owner")

    own_server.psql(owner, sql)

    assert (
        superuser.value("select nspowner::regrole::text from pg_namespace where nspname = 'recon'") == "recon_pipeline"
    )


@pytest.mark.parametrize("printed", [ROW_SECURITY], indirect=True)
def test_every_command_works_by_the_policies_that_init_prints_where_bypassrls_cannot_be_given(
    printed: Billing,
    own_server: OwnServer,
    run_history: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    beating_daemon(run_history)
    ((has_bypass,),) = printed.query("select rolbypassrls from pg_roles where rolname = 'recon_pipeline'")
    assert not has_bypass
    url = printed.url.replace("postgres@", "recon_pipeline@")
    monkeypatch.setenv("DATABASE_URL", url)
    accept_usages(url)
    printed.add_event("a", 60)
    printed.add_counter("b", 60)
    why = ("--reason", "TICKET-9")

    def done(*arguments: str) -> CommandResult:
        output = recon(*arguments)
        assert output.exit_code == 0, output.said
        return output

    verdicts = {finding["requirement"]: finding["verdict"] for finding in done("doctor", "--json").json["findings"]}
    assert {verdict for name, verdict in verdicts.items() if "row level security" in name} == {"pass"}
    run_id = done("reconcile", "--period", "2025-05", "--json").json["run_id"]
    assert printed.counters() == {"a": 60, "b": 0}
    assert done("reconcile", "--all", "--full", "--json").json["mode"] == "full"
    assert "60" in done("explain", "--customer", "a", "--period", "2025-05").out
    assert done("status", "--json").json["mode"] == "incremental"
    assert done("sql", "find_mismatches", "--explain").out
    done("hold", "--customer", "a", "--customer", "b", *why, "--until", "3d")
    done("undo", run_id, *why)
    assert printed.counters() == {"a": 0, "b": 60}
    done("release", "--customer", "a", "--customer", "b", *why)
    done("reconcile", "--period", "2025-05")

    export = tmp_path / "late.csv"
    export.write_text(
        "gateway_name,usage_type,gateway_customer_id,request_id,quantity,period_start,period_end,event_timestamp\n"
        "stripe,remote_commands,a,late-1,5,2025-05-01T00:00:00Z,2025-06-01T00:00:00Z,2025-05-17T12:00:00Z\n"
    )
    assert done("backfill-events", str(export), "--dry-run", "--json").json["inserted"] == 1
    printed.query("grant insert on billing_usage_events to recon_pipeline")
    refused = recon("backfill-events", str(export), "--json")
    assert "Row level security keeps role recon_pipeline from inserting" in refused.json["error"]
    printed.query(refused.json["what_to_do"])
    assert done("backfill-events", str(export), "--json").json["inserted"] == 1
    assert printed.counters() == {"a": 65, "b": 0}

    may = ("--period", "2025-05")
    done("seal", *may)
    (statement,) = done("archive", *may, "--to", str(tmp_path), "--json").json["statements"]
    own_server.psql(printed.url.replace("postgres@", "tables_owner@"), statement)
    assert printed.value("select count(*) from billing_usage_events") == 0
    printed.add_event("a", 7)
    (late,) = done("corrections", *may, "--json").json["corrections"]
    assert (late["sealed_sum"], late["sum_now"]) == ("65", "72")
    assert done("verify-seals", "--json").json["archived"] == 1
    assert "72" in done("explain", "--customer", "a", *may).out
    printed.query("drop policy recon_pipeline on billing_usage_events")
    assert "create policy recon_pipeline on billing_usage_events for select" in recon("reconcile").said


def customers_of_a_tenant(own_server: OwnServer, database: str) -> list[set[str]]:
    """Whose events and counters an application sees that works for tenant a, as the owner of the tables."""
    with psycopg.connect(own_server.url(database).replace("postgres@", "tables_owner@")) as connection:
        connection.execute("set app.tenant = 'a'")
        return [
            {customer for (customer,) in connection.execute(f"select gateway_customer_id from {table}".encode())}
            for table in TABLES[:2]
        ]


@pytest.mark.parametrize("printed", [FORCED], indirect=True)
def test_an_owner_whom_policies_bind_sees_the_rows_of_no_other_tenant_by_what_init_prints(
    printed: Billing, own_server: OwnServer, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy for a role is one for its members, too."""
    beating_daemon(run_history)
    url = printed.url.replace("postgres@", "recon_pipeline@")
    monkeypatch.setenv("DATABASE_URL", url)
    accept_usages(url)
    for customer in ("a", "b"):
        printed.add_event(customer, 60)
        printed.add_counter(customer, 4)

    assert customers_of_a_tenant(own_server, "printed") == [{"a"}, {"a"}]
    done = recon("reconcile", "--period", "2025-05", "--json")
    assert (done.exit_code, done.json["mode"]) == (0, "incremental"), done.said
    assert printed.counters() == {"a": 60, "b": 60}


def test_no_policy_is_printed_into_force_for_an_owner_who_cannot_leave_the_role(
    own_server: OwnServer, superuser: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DBA granted it, so only a DBA revokes it."""
    own_server.create_database("printed")
    with connected(own_server.url("printed"), autocommit=True) as connection:
        connection.execute("create role tables_owner login; create role recon_pipeline login")
        connection.execute("grant recon_pipeline to tables_owner; alter database printed owner to tables_owner")
        connection.execute("grant create on schema public to tables_owner")
    owner = own_server.url("printed").replace("postgres@", "tables_owner@")
    make_billing_tables(owner)
    own_server.psql(owner, FORCED)
    own_server.psql(owner, recon("init", "--print", DATABASE_URL=None).out)
    with connected(own_server.url("printed"), autocommit=True) as connection:
        billing = Billing(own_server.url("printed"), connection)
        for customer in ("a", "b"):
            billing.add_event(customer, 60)

    monkeypatch.setenv("DATABASE_URL", owner.replace("tables_owner@", "recon_pipeline@"))
    assert customers_of_a_tenant(own_server, "printed")[0] == {"a"}
    refused = " ".join(recon("status").said.split())
    assert "create policy recon_pipeline on billing_usage_events" in refused
    assert "first revoke recon_pipeline from the owner of the table if row level security is forced" in refused


def test_what_init_prints_with_billing_tables_runs_in_an_empty_database(
    own_server: OwnServer, superuser: Billing
) -> None:
    output = recon("init", "--print", "--with-billing-tables", DATABASE_URL=None)
    url = own_server.create_database("printed")
    own_server.psql(url, output.out)
    with connected(url, autocommit=True) as connection:
        assert Billing(url, connection).record("a", 3)
