"""`recon pause`, `resume`, `hold`, `release`, `undo`: what they say is so, who and why is kept, repeating is safe."""

from datetime import UTC, datetime, timedelta

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.instants import parse_until
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing

MAY = ("--period", "2025-05", "--json")
WHY = ("--reason", "INC-1: [b]restoring[/b] the log")
NOW = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)


@pytest.fixture
def drifted(billing: Billing, run_history: DagsterInstance) -> Billing:
    """Customers `a` and `b` have used 10 and are counted 3."""
    for customer in ("a", "b"):
        billing.record(customer, 10)
        billing.set_counter(customer, 3)
    return billing


def observed(instance: DagsterInstance) -> str:
    """What the latest observation of the repaired counters says."""
    records = instance.fetch_observations(AssetKey("repaired_counters"), limit=1).records
    observation = records[0].asset_observation
    assert observation is not None
    return observation.description or ""


def test_a_pause_is_obeyed_shown_everywhere_and_ended_by_resume(drifted: Billing, run_history: DagsterInstance) -> None:
    paused = recon("pause", *WHY, "--until", "2h", "--json")
    assert (paused.exit_code, paused.json["success"], paused.json["replaced"]) == (0, True, None)
    assert paused.json["paused"]["reason"] == WHY[1]
    assert paused.json["paused"]["paused_by"]
    again = recon("pause", *WHY)
    assert again.exit_code == 0
    assert f": {WHY[1]}" in again.said

    detected = recon("reconcile", *MAY)
    assert (detected.exit_code, detected.json["paused"], detected.json["drift_count"]) == (1, True, 2)
    assert drifted.counters() == {"a": 3, "b": 3}
    output = recon("reconcile", "--period", "2025-05").said
    assert "repairs are paused by" in output
    assert "recon resume" in output
    status = recon("status", "--json").json
    assert status["paused"]["reason"] == WHY[1]
    assert [run["outcome"] for run in status["runs"]] == ["paused", "paused"]
    assert f"Repairs are paused by {status['paused']['paused_by']}" in recon("status").said

    assert f"paused by {status['paused']['paused_by']}" in recon("doctor").said

    deliberate = recon("reconcile", *MAY, "--while-paused")
    assert (deliberate.exit_code, deliberate.json["rows_repaired"]) == (0, 2)

    resumed = recon("resume", "--json")
    assert (resumed.exit_code, resumed.json["ended"]["reason"]) == (0, WHY[1])
    assert recon("resume", "--json").json == {"success": True, "paused": None, "ended": None}
    assert "were not paused" in recon("resume").out
    assert recon("status", "--json").json["paused"] is None


def test_a_hold_is_obeyed_shown_everywhere_and_ended_by_release(drifted: Billing, run_history: DagsterInstance) -> None:
    drifted.subscribe("c")
    held = recon("hold", "--customer", "a", "--customer", "c", *WHY, "--until", "3d", "--json")
    assert (held.exit_code, held.json["counters"]) == (0, {"a": 1, "c": 0})
    assert [one["gateway_customer_id"] for one in held.json["holds"]] == ["a", "c"]
    assert "c has no counter" in recon("hold", "--customer", "c", *WHY, "--until", "3d").said

    output = recon("reconcile", *MAY)
    assert (output.exit_code, output.json["held_count"], output.json["rows_repaired"]) == (1, 1, 1)
    assert drifted.counters() == {"a": 3, "b": 10}
    said = recon("reconcile", "--period", "2025-05").said
    assert "are held: a." in said
    assert "to end one: recon release --customer a" in said, "as it is typed: without a customer it is wrong usage"
    assert len(recon("status", "--json").json["holds"]) == 2
    assert f"a, every month: {WHY[1]}" in recon("status").said

    assert "2 customers are held" in recon("doctor").said

    released = recon("release", "--customer", "a", "--reason", "settled", "--json")
    assert [one["gateway_customer_id"] for one in released.json["released"]] == ["a"]
    assert recon("release", "--customer", "a", "--json").json == {"success": True, "released": []}
    assert drifted.value("select release_reason from recon.hold where released_at is not null limit 1")
    assert recon("reconcile", *MAY).exit_code == 0
    assert drifted.counter("a") == 10


def test_an_undo_is_a_run_of_dagster_and_says_what_it_took_back(drifted: Billing, run_history: DagsterInstance) -> None:
    run_id = recon("reconcile", *MAY).json["run_id"]
    refused = recon("undo", run_id[:8], *WHY, "--json")
    assert refused.exit_code == 1
    assert "would make 2 of these 2 repairs again" in refused.json["error"]
    looked = recon("undo", run_id, *WHY, "--dry-run", "--json").json
    assert (looked["undoable"], looked["usage_delta"], looked["would_be_made_again"]) == (2, 14, 2)
    assert "pause repairs or hold" in recon("undo", run_id, *WHY, "--dry-run").said
    assert drifted.counters() == {"a": 10, "b": 10}

    recon("pause", *WHY)
    drifted.set_counter("b", 5)
    output = recon("undo", run_id[:8], *WHY, "--json")
    assert (output.exit_code, output.json["success"]) == (1, False)
    assert (output.json["undone"], output.json["below_zero"]) == (1, 1)
    assert [row["gateway_customer_id"] for row in output.json["not_undone"]] == ["b"]
    run = run_history.get_run_by_id(output.json["run_id"])
    assert run is not None
    assert (run.job_name, run.status) == ("undo_repairs", DagsterRunStatus.FAILURE)
    assert run.tags["user"] == output.json["requested_by"]
    assert WHY[1] in observed(run_history)
    assert drifted.counters() == {"a": 3, "b": 5}

    back = recon("undo", output.json["run_id"], "--customer", "a", *WHY)
    assert back.exit_code == 0
    assert "undone │ 1" in back.said
    assert drifted.counter("a") == 10


def test_an_undo_of_no_run_or_of_several_is_refused(billing: Billing, run_history: DagsterInstance) -> None:
    for run_id in ("aa-1", "aa-2"):
        billing.query(
            "insert into recon.reconciliation_run (run_id, mode, scope, first_partition, last_partition) "
            "values (%s, 'full', '{}', '2025-05', '2025-05')",
            run_id,
        )
    for run, said in (("aa", "the beginning of several runs: aa-1, aa-2"), ("b%", "no run whose id begins with 'b%'")):
        output = recon("undo", run, *WHY, "--json")
        assert output.exit_code == 2
        assert said in output.json["error"]


def test_a_pause_is_in_force_even_if_dagster_cannot_be_reached(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql://nobody@127.0.0.1:1/dagster")
    output = recon("pause", *WHY, "--json")
    assert output.exit_code == 0
    assert output.json["success"]
    assert billing.value("select action from recon.control") == "pause"


@pytest.mark.parametrize("command", ["pause", "resume", "hold", "release", "undo"])
def test_a_database_that_was_never_prepared_is_reported(
    billing: Billing, run_history: DagsterInstance, command: str
) -> None:
    billing.query("drop schema recon cascade")
    named = ("--customer", "a") if command in ("hold", "release") else ("run",) if command == "undo" else ()
    until = ("--until", "1h") if command == "hold" else ()
    output = recon(command, *named, *until, *WHY, "--json")
    assert output.exit_code == 1
    assert "was never prepared" in output.json["error"]
    assert "recon init" in output.json["what_to_do"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "--reason", " "), "--reason is ' '"),
        (("pause", "--reason", "a\x00b"), "--reason is 'a\\x00b'"),
        (("pause", *WHY, "--until", "soon"), "'soon' is neither a duration nor a date and time"),
        (("pause", *WHY, "--until", "2020-01-01"), "is not in the future"),
        (("pause", *WHY, "--until", "0m"), "is not in the future"),
        (("hold", "--customer", "", *WHY, "--until", "1h"), "--customer is ''"),
        (("hold", "--customer", "a", "--period", "May", *WHY, "--until", "1h"), "'May' is not a billing month"),
        (("hold", "--customer", "a", "--reason", "\udcff", "--until", "1h"), "--reason is '\\udcff'"),
        (("release", "--customer", "a\nb"), "--customer is 'a\\nb'"),
        (("undo", "", *WHY), "RUN is ''"),
        (("undo", "x", "--reason", ""), "--reason is ''"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(
    billing: Billing, orchestrated: None, arguments: tuple[str, ...], said: str
) -> None:
    output = recon(*arguments, "--json")
    assert output.exit_code == 2
    assert said in output.json["error"]
    assert billing.value("select count(*) from recon.control") == 0
    assert billing.value("select count(*) from recon.hold") == 0


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("30m", NOW + timedelta(minutes=30)),
        ("2h", NOW + timedelta(hours=2)),
        ("3d", NOW + timedelta(days=3)),
        ("2026-11-25", datetime(2026, 11, 25, tzinfo=UTC)),
        ("2026-11-24T20:00:01", NOW + timedelta(seconds=1)),
        ("2026-11-25T06:00+02:00", datetime(2026, 11, 25, 4, 0, tzinfo=UTC)),
        ("2026-11-25T06:00Z", datetime(2026, 11, 25, 6, 0, tzinfo=UTC)),
    ],
)
def test_when_is_a_duration_or_an_instant(text: str, until: datetime) -> None:
    assert parse_until(text, now=NOW) == until


@pytest.mark.parametrize(
    "text",
    ["", "h", "1", "-1h", "1.5h", "1w", "999999h", "٣h", "2026-11-24T20:00Z", "9999-12-31", "0001-01-01T00:00+14:00"],
)
def test_another_when_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_until(text, now=NOW)
