"""How commands are asked, and how they refuse: exit 2, the name of what is wrong, and nothing touched."""

import json
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from recon_pipeline import embedded_postgres
from recon_pipeline.faces.cli import main
from recon_pipeline.faces.demo import LEAST_CUSTOMERS, LEAST_EVENTS
from recon_pipeline_tests.commands.conftest import recon

NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/billing"
"""A database that does not answer: a command that uses it ends with 1, not with 2."""
ERROR_KEYS = {"success", "blocked", "error", "changed", "what_to_do"}
HUGE = "9" * 5_000


@pytest.fixture(autouse=True)
def nothing_to_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    monkeypatch.setenv("DAGSTER_PG_URL", NOBODY)


def test_the_help_of_recon_has_an_example_and_shows_its_lines_as_written() -> None:
    output = recon("--help")
    assert output.exit_code == 0
    assert "Example, a first look: recon demo, then recon dev\n" in output.out
    assert "\\b" not in output.out


@pytest.mark.parametrize(
    "group", [(), *((name,) for name, one in sorted(main.commands.items()) if isinstance(one, click.Group))]
)
def test_the_list_of_commands_says_in_whole_sentences_what_each_does(group: tuple[str, ...]) -> None:
    said = recon(*group, "--help", COLUMNS="80")

    assert "..." not in said.out.removeprefix(said.out.splitlines()[0])
    assert all(len(line) <= 80 for line in said.out.splitlines())
    if not group:
        assert "Insert events that never arrived, each once, and reconcile." in said.said


@pytest.mark.parametrize("command", sorted(main.commands))
def test_the_help_of_every_command_has_an_example_of_that_command(command: str) -> None:
    output = recon(command, "--help")
    assert output.exit_code == 0
    assert f"Example: recon {command}" in output.out


def test_version_shows_the_version_of_the_package() -> None:
    assert version("recon-pipeline") in recon("--version").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("reconcile", "--bogus"),
        ("reconcile", "--period"),
        ("status", "extra"),
        ("demo", "--events", "many"),
        ("demo", "--events", str(LEAST_EVENTS - 1)),
        ("demo", "--customers", str(LEAST_CUSTOMERS - 1)),
        ("no-such-command",),
    ],
)
def test_wrong_usage_exits_2_and_is_reported_as_one_json_object_too(arguments: tuple[str, ...]) -> None:
    plain, as_json = recon(*arguments), recon(arguments[0], "--json", *arguments[1:])
    assert (plain.exit_code, plain.out) == (2, "")
    assert "Error: " in plain.err
    assert as_json.exit_code == 2
    assert set(as_json.json) == ERROR_KEYS
    assert (as_json.json["success"], as_json.json["blocked"]) == (False, False)


@pytest.mark.parametrize("command", ["init", "doctor"])
@pytest.mark.parametrize("url", [None, ""])
def test_init_and_doctor_need_a_database_of_ones_own_where_there_is_no_embedded_one(
    command: str, url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "default_data_folder", lambda: tmp_path / "none")
    output = recon(command, DATABASE_URL=url)
    assert output.exit_code == 2
    assert "DATABASE_URL is not set" in output.err
    assert "What to do: export DATABASE_URL=postgresql://" in output.err


@pytest.mark.parametrize(
    "period",
    [
        "2026-13",
        "2026-00",
        "2026-1",
        "26-01",
        "2026-05-01",
        "2025-05\n",
        " 2025-05",
        "٢٠٢٥-05",
        "[/red]",
        "",
        "'; drop",
    ],
)
def test_a_period_that_is_no_month_is_refused_before_anything_is_touched(period: str) -> None:
    output = recon("reconcile", "--period", period, "--json")
    assert output.exit_code == 2
    assert output.json["error"] == f"{period!r} is not a billing month."
    assert "YYYY-MM" in output.json["what_to_do"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--period", "2024-12"), "lies before RECON_START_PERIOD (2025-01)"),
        (("--period", "2999-01"), "lies in the future"),
        (("--period", "2025-05", "--period", "2999-01"), "lies in the future"),
        (("--period", "2025-05", "--all"), "--period and --all exclude each other"),
        (("--customer", ""), "--customer is ''"),
        (("--customer", "cus_1", "--customer", "a\x1b[2Jb"), "--customer is 'a\\x1b[2Jb'"),
        (("--customer", "\udcff"), "--customer is '\\udcff'"),
        (("--approve", ""), "--approve is ''"),
        (("--approve", "   "), "--approve is '   '"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_before_anything_is_touched(
    arguments: tuple[str, ...], said: str
) -> None:
    output = recon("reconcile", *arguments, "--json")
    assert output.exit_code == 2
    assert said in output.json["error"]
    assert output.json["changed"] == "No counter was changed."


BROKEN = [
    ("RECON_QUOTAS", "{"),
    ("RECON_QUOTAS", "[]"),
    ("RECON_QUOTAS", "null"),
    ("RECON_QUOTAS", '{"remote_commands": 50}'),
    ("RECON_QUOTAS", '{"remote_commands": {"free": 50}}'),
    ("RECON_QUOTAS", '{"remote_commands": {"free": 50, "paid": "many"}}'),
    ("RECON_QUOTAS", '{"remote_commands": {"free": -1, "paid": 1}}'),
    ("RECON_QUOTAS", '{"remote_commands": {"free": true, "paid": 1}}'),
    ("RECON_QUOTAS", '{"remote_commands": {"free": 1, "paid": 9223372036854775808}}'),
    ("RECON_QUOTAS", f'{{"remote_commands": {{"free": {HUGE}, "paid": 1}}}}'),
    ("RECON_QUOTAS", "[" * 100_000),
    ("RECON_EVENT_IDENTITY", ""),
    ("RECON_EVENT_IDENTITY", "request_id"),
    ("RECON_EVENT_IDENTITY", "gateway_name,request_id,"),
    ("RECON_EVENT_IDENTITY", "gateway_name,request_id,quantity"),
    ("RECON_EVENT_IDENTITY", "gateway_name;request_id"),
    ("RECON_PAID_STATUSES", ""),
    ("RECON_PAID_STATUSES", "active,"),
    ("RECON_PAID_STATUSES", "active,past\x1b_due"),
    ("RECON_SCOPE", ""),
    ("RECON_SCOPE", "stripe"),
    ("RECON_SCOPE", "stripe:"),
    ("RECON_SCOPE", ":remote_commands"),
    ("RECON_SCOPE", "stripe:remote_commands,"),
    ("RECON_SCOPE", "stripe:\udcff"),
    ("RECON_SETTLE_SECONDS", "-1"),
    ("RECON_SETTLE_SECONDS", "1.5"),
    ("RECON_SETTLE_SECONDS", "86401"),
    ("RECON_SETTLE_SECONDS", HUGE),
    ("RECON_MAX_REPAIRS", "all"),
    ("RECON_MAX_REPAIRS", "-1"),
    ("RECON_MAX_REPAIR_SHARE", "1.1"),
    ("RECON_MAX_REPAIR_SHARE", "nan"),
    ("RECON_MAX_ORPHAN_SHARE", "10%"),
    ("RECON_MAX_OVER_QUOTA_TRANSITIONS", ""),
    ("RECON_START_PERIOD", "2025"),
    ("RECON_START_PERIOD", "2025-13"),
    ("RECON_START_PERIOD", "0001-01"),
    ("RECON_START_PERIOD", "2999-01"),
    ("DATABASE_URL", "mysql://app:hunter2secret@host/db"),
    ("DATABASE_URL", "hunter2secret"),
    ("DATABASE_URL", "postgresql://app:hunter2secret@host:port/db"),
    ("DATABASE_URL", "postgresql://app:hunter2@secret@host/db"),
    ("DATABASE_URL", "postgresql://app:hunter2secret\udcff@host/db"),
]


@pytest.mark.parametrize(("variable", "value"), BROKEN)
def test_a_broken_variable_is_named_and_nothing_is_touched(variable: str, value: str) -> None:
    output = recon("reconcile", "--period", "2025-05", "--json", **{variable: value})
    assert output.exit_code == 2
    assert variable in output.json["error"]
    assert variable in output.json["error"] + output.json["what_to_do"]
    assert "hunter2" not in output.out + output.err


@pytest.mark.parametrize("command", ["init", "doctor", "status", "dev"])
def test_every_command_refuses_a_broken_variable(command: str) -> None:
    output = recon(command, RECON_MAX_REPAIRS="all")
    assert output.exit_code == 2
    assert "RECON_MAX_REPAIRS is 'all'" in output.err


def test_an_error_of_a_command_goes_to_people_on_stderr_and_to_machines_on_stdout() -> None:
    output = recon("status", "--json")
    assert output.exit_code == 1
    assert set(output.json) == ERROR_KEYS
    assert output.out.count("\n") == 1
    for part in ("error", "changed", "what_to_do"):
        assert json.loads(output.out)[part] in output.err
