"""Every statement can be printed, run in psql, and planned on a real database, whatever fills its holes."""

import json
import re

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces import sql as face
from recon_pipeline.faces.sql_printed import for_psql
from recon_pipeline.faces.sql_values import SqlOptions
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.registry import combinations, header, inline_statements, names
from recon_pipeline_tests.commands.conftest import OwnServer, migrate, recon
from recon_pipeline_tests.reconciliation.billing import Billing

EVERY_WAY = [(name, choices) for name in names() for choices in combinations(name)]
SCRIPTS = {"billing_tables", "grants", "ingest_xid", "policies"}
WITHOUT_PLAN = {
    "allow_to_alter_log",
    "analyze_preview_events",
    "create_schema",
    "create_staged_events",
    "empty_lake_sums",
    "immediate_constraints",
    "index_staged_events",
    "index_staged_requests",
    "insert_staged_events_singly",
    "leave_log_alone",
    "lift_time_limits",
    "lock_lake_sums",
    "read_only",
    "reset_time_limits",
} | SCRIPTS


def test_every_statement_is_listed_with_its_room_and_what_it_does() -> None:
    listed = recon("sql", COLUMNS="200")
    output = recon("sql", "--json")
    assert (listed.exit_code, output.exit_code) == (0, 0)
    shown = {line.split()[0] for line in listed.out.splitlines()[1:] if line and not line.startswith(" ")}
    assert set(inline_statements()) < shown == {one["name"] for one in output.json["statements"]} == set(names())
    (put_sums,) = [one for one in output.json["statements"] if one["name"] == "put_sums"]
    assert put_sums["room"] == "sums"
    assert put_sums["summary"].startswith("Writes the log's sums of some keys into recon.usage_aggregate")
    assert put_sums["strategies"]["key_sums"] == ["key_sums", "key_sums_deduplicated"]


def test_every_statement_says_what_it_does_in_a_sentence() -> None:
    assert [name for name in names() if not re.fullmatch(r"[A-Z].*[\w)]\.", header(name).summary)] == []


def test_every_statement_can_be_planned_in_every_declared_combination(billing: Billing) -> None:
    settings, failures, planned = read_settings(), dict[str, str](), 0
    with BillingDatabase(billing.url).connection() as connection:
        for name, choices in EVERY_WAY:
            if not face.has_plan(name):
                assert name in WITHOUT_PLAN
                continue
            printed = face.compose(settings, SqlOptions(name, tuple(choices.values()), ("cus_1",)))
            assert printed.parts == choices
            try:
                assert face.plan(connection, printed)
            except Exception as error:  # noqa: BLE001 - all of them are shown at once
                failures[f"{name} {choices}"] = str(error)
            planned += 1
    assert failures == {}
    assert planned == len(EVERY_WAY) - sum(name in WITHOUT_PLAN for name, _ in EVERY_WAY)
    assert planned > 120


def test_every_statement_runs_in_psql_as_it_is_printed_and_keeps_nothing(own_server: OwnServer) -> None:
    url = own_server.create_database("printed", migrate)
    for name, choices in EVERY_WAY:
        if name not in SCRIPTS | {"create_schema"}:
            options = SqlOptions(name, tuple(choices.values()), ("o'\\\"1",))
            # In a session of its own, which no other statement has prepared.
            own_server.psql(url, for_psql(face.compose(read_settings(), options)))
    with BillingDatabase(url).connection() as connection:
        (left,) = connection.exec_driver_sql("select count(*) from recon.reconciliation_run").scalars()
    assert left == 0


def test_a_script_is_printed_as_it_stands() -> None:
    output = recon("sql", "grants")
    assert (output.exit_code, "\\set" in output.out, "begin;" in output.out) == (0, False, False)
    assert "grant select on billing_usage_events to recon_pipeline;" in output.out


def test_values_are_those_that_were_asked_for() -> None:
    output = recon("sql", "find_mismatches", "--period", "2026-05", "--customer", "cus_1", RECON_SETTLE_SECONDS="90")
    assert output.exit_code == 0
    variables = dict(re.findall(r"^\\set (\w+) (.*)$", output.out, flags=re.MULTILINE))
    assert variables["start"] == "'''2026-05-01 00:00:00+00:00'''"
    assert variables["end"] == "'''2026-06-01 00:00:00+00:00'''"
    assert variables["customers"] == "'''{\"cus_1\"}'''"
    assert (variables["every_customer"], variables["settle_seconds"]) == ("false", "90")
    assert "/* recon:find_mismatches */ with given" in output.out


def test_a_part_that_was_asked_for_fills_its_hole() -> None:
    plain = recon("sql", "put_sums", "--json").json
    output = recon(
        "sql", "put_sums", "--strategy", "key_sums_deduplicated", "--strategy", "below_horizon", "--json"
    ).json
    assert (plain["strategies"]["key_sums"], plain["strategies"]["which_events"]) == ("key_sums", "in_extent")
    assert output["strategies"] == {
        "key_sums": "key_sums_deduplicated",
        "which_events": "below_horizon",
        "came_before": "came_before_by_transaction",
    }
    assert "horizon" in output["values"]
    assert "horizon" not in plain["values"]


def test_the_plan_is_of_the_statement_that_a_run_on_this_database_would_send(billing: Billing) -> None:
    unique = recon("sql", "find_suspects", "--explain", "--json").json
    billing.query("alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key")
    repeated = recon("sql", "find_suspects", "--explain", "--json").json
    assert unique["strategies"] == {"countable_events": "countable_events"}
    assert repeated["strategies"] == {
        "countable_events": "countable_events_deduplicated",
        "came_before": "came_before_by_transaction",
    }
    assert any("billing_usage_events" in line for line in repeated["plan"])


def test_the_plan_of_what_reads_a_temporary_table_is_shown_and_no_table_is_left(billing: Billing) -> None:
    output = recon("sql", "preview_by_month", "--explain")
    assert (output.exit_code, "preview_event" in output.out) == (0, True)
    assert billing.value("select count(*) from pg_class where relname in ('preview_event', 'staged_event')") == 0


@pytest.mark.parametrize(
    ("arguments", "said", "fix"),
    [
        (["compare_counter"], "There is no statement compare_counter.", "compare_counters"),
        (["classified_events"], "classified_events is no statement: it is a part, of explain_usage", "recon sql lists"),
        (["put_sums", "--strategy", "gone"], "--strategy gone fills no hole of put_sums", "below_horizon"),
        (["run_totals", "--strategy", "in_extent"], "fills no hole of run_totals", "one form alone"),
        (
            ["put_sums", "--strategy", "in_extent", "--strategy", "below_horizon"],
            "do not go together in put_sums",
            "one part for each hole",
        ),
        (["grants", "--explain"], "Postgres makes no plan for grants", "recon sql grants prints it"),
        (["--explain"], "No statement is named", "recon sql lists them"),
        (["put_sums", "--period", "May"], "'May' is not a billing month", "YYYY-MM"),
        (["put_sums", "--customer", ""], "--customer is ''", "--customer cus_123"),
    ],
)
def test_what_cannot_be_printed_is_refused_with_what_can(arguments: list[str], said: str, fix: str) -> None:
    output = recon("sql", *arguments)
    assert (output.exit_code, output.out) == (2, "")
    assert said in output.said
    assert fix in output.said.partition("What to do:")[2]
    as_json = json.loads(recon("sql", *arguments, "--json").out)
    assert (as_json["success"], said in as_json["error"]) == (False, True)


def test_a_month_is_the_current_one_where_none_is_given() -> None:
    printed = face.compose(read_settings(), SqlOptions("read_months", (), (), BillingMonth(2026, 2)))
    assert (printed.values["first"], printed.values["last"]) == ("2026-02", "2026-02")
