"""A Dagster that was there before: its storage is its own, and so is what it does with a URL."""

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from sqlalchemy.exc import ProgrammingError

from recon_pipeline.faces.dagster_home import check_storage, require_storage
from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, recon
from recon_pipeline_tests.commands.modes import finding

A_RUN = ("reconcile", "--period", "2025-05", "--json")
DRIVER, ZONE = "Dagster storage driver", "Dagster storage time zone"


@pytest.fixture
def home(tmp_path: Path, make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `DAGSTER_HOME` with a storage of its own; nothing names another."""
    make_billing().add_event("a", 7)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_PG_URL", raising=False)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


def test_commands_use_the_storage_of_the_instance_whatever_it_is(home: Path) -> None:
    require_storage()
    ended = recon(*A_RUN)
    assert ended.exit_code == 0, ended.said
    with DagsterInstance.from_config(str(home)) as instance:
        assert [run.run_id for run in instance.get_runs()] == [ended.json["run_id"]]
    assert (home / "history").exists()
    assert finding("Dagster storage")["verdict"] == "pass"
    assert check_storage().startswith(f"Check storage in {home}/dagster.yaml: it names the database")


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="a bare postgresql:// is psycopg2 before SQLAlchemy 2.1")
def test_doctor_says_what_dagster_postgres_does_with_a_bare_url_on_psycopg_3(
    home: Path, dagster_database_url: str
) -> None:
    (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{dagster_database_url}'}}}}\n")
    found = finding(DRIVER)
    assert found["verdict"] == "fail"
    assert found["detail"] == (
        "SQLAlchemy opens the URL of Dagster's storage with psycopg 3, on which dagster-postgres fails with each event "
        "that a run reports (a syntax error in NOTIFY run_events)"
    )
    assert "postgresql+psycopg2://" in found["mend"]

    @dg.job
    def theirs() -> None: ...

    with (
        DagsterInstance.from_config(str(home)) as instance,
        pytest.raises(ProgrammingError, match="syntax error"),
    ):
        theirs.execute_in_process(instance=instance)

    mended = dagster_database_url.replace("postgresql://", "postgresql+psycopg2://")
    (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{mended}'}}}}\n")
    assert DRIVER not in recon("doctor").said
    assert recon(*A_RUN).exit_code == 0


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Etc/UTC"])
def test_doctor_says_when_dagster_would_read_times_in_another_zone_than_it_wrote_them(
    home: Path, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    url = dagster_database_url.replace("postgresql://", "postgresql+psycopg2://")
    (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    monkeypatch.setenv("PGTZ", zone)
    found = {name: said for name, said in failing(recon("doctor", "--json")).items() if name == ZONE}

    assert (ZONE in found) is (zone != "Etc/UTC")
    if found:
        assert f"have the time zone {zone}" in found[ZONE][0]
        assert "PGTZ=UTC" in found[ZONE][1]


def failing(doctor: CommandResult) -> dict[str, tuple[str, str]]:
    """The requirements that fail, with what was found and what to do."""
    found = [one for one in doctor.json["findings"] if one["verdict"] == "fail"]
    return {one["requirement"]: (one["detail"], one["mend"]) for one in found}


@pytest.mark.parametrize(
    ("configured", "why", "fix"),
    [
        (
            "storage: {postgres: {postgres_url: {env: TEAM_PG}}}",
            "Dagster's instance cannot be loaded, as {path} configures it: the environment variable TEAM_PG is not set "
            "(postgres_url).",
            "Set TEAM_PG for this command, and for each process of Dagster. Then run this again.",
        ),
        (
            "storage: {postgres: [\n",
            "{path} cannot be read: it is not YAML: line 2, column 1.",
            "Correct the file. Then run this again.",
        ),
        (
            "storage: {postgres: {postgres_url: 'postgresql+asyncpg://team:hunter2secret@127.0.0.1:1/dagster'}}",
            "Dagster's instance cannot be loaded, as {path} configures it: there is no Python module asyncpg.",
            "Install the package with the module asyncpg beside recon_pipeline, or name another class in the file. "
            "Then run this again.",
        ),
        (
            "storage: {postgres: {postgres_url: 'nonsense://team:hunter2secret@127.0.0.1:1/dagster'}}",
            "Dagster's instance cannot be loaded, as {path} configures it: NoSuchModuleError: Can't load plugin: "
            "sqlalchemy.dialects:nonsense.",
            "Correct it in {path}. Then run this again.",
        ),
        (
            "storage: {mysql: {mysql_url: 'mysql://team:hunter2secret@127.0.0.1:1/dagster'}}",
            "Dagster's instance cannot be loaded, as {path} configures it: there is no Python module dagster_mysql "
            "(dagster_mysql.DagsterMySQLStorage).",
            "Install the package with the module dagster_mysql beside recon_pipeline, or name another class in the "
            "file. Then run this again.",
        ),
        (
            "storage: {postgres: {postgres_db: {hostname: h, username: u, db_name: d, password: [hunter2secret]}}}",
            "Dagster's instance cannot be loaded, as {path} configures it: storage.postgres.postgres_db.password is of "
            "the wrong type.",
            "Correct it in {path}. Then run this again.",
        ),
        (
            "storge: {}",
            "Dagster's instance cannot be loaded, as {path} configures it: its first level: Received unexpected config "
            'entry "storge" at the root.',
            "Correct it in {path}. Then run this again.",
        ),
        (
            "- hunter2secret",
            "{path} cannot be read: it is not a mapping of names to values.",
            "Correct the file. Then run this again.",
        ),
    ],
)
def test_a_dagster_yaml_that_cannot_be_loaded_is_one_finding_and_one_sentence(
    home: Path, configured: str, why: str, fix: str
) -> None:
    path = home / "dagster.yaml"
    path.write_text(configured)
    why, fix = why.format(path=path), fix.format(path=path)

    examined, ran = recon("doctor", "--json"), recon(*A_RUN)

    assert failing(examined) == {"Dagster storage": (why, fix)}
    assert {"connection", "schema recon", "limits"} <= {one["requirement"] for one in examined.json["findings"]}
    assert (ran.exit_code, ran.json["error"], ran.json["what_to_do"]) == (2, why, fix)
    assert ran.json["changed"] == "No counter was changed."
    assert "hunter2secret" not in examined.out + examined.err + ran.out + ran.err


COMPUTE_LOGS = "compute_logs: {module: team_aws.s3.compute_log_manager, class: S3Logs, config: {bucket: logs}}\n"
COORDINATOR = """
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {max_concurrent_runs: {env: TEAM_RUNS}}
"""


def test_doctor_loads_what_a_run_loads_beside_the_storage(home: Path) -> None:
    (home / "dagster.yaml").write_text(
        f"{COMPUTE_LOGS}{COORDINATOR}run_launcher: {{module: recon_pipeline, class: Launcher}}\n"
    )
    loaded = f"cannot be loaded, as {home}/dagster.yaml configures it"
    assert failing(recon("doctor", "--json")) == {
        "Dagster compute log manager": (
            f"Dagster's compute log manager {loaded}: there is no Python module team_aws "
            "(team_aws.s3.compute_log_manager.S3Logs).",
            "Install the package with the module team_aws beside recon_pipeline, or name another class in the file. "
            "Then run this again.",
        ),
        "Dagster run launcher": (
            f"Dagster's run launcher {loaded}: recon_pipeline has no class Launcher.",
            f"Correct it in {home}/dagster.yaml. Then run this again.",
        ),
        "Dagster run coordinator": (
            f"Dagster's run coordinator {loaded}: the environment variable TEAM_RUNS is not set (max_concurrent_runs).",
            "Set TEAM_RUNS for this command, and for each process of Dagster. Then run this again.",
        ),
    }


@pytest.mark.parametrize(
    ("configured", "part"), [(COMPUTE_LOGS, "compute log manager"), (COORDINATOR, "run coordinator")]
)
def test_a_run_that_dagster_cannot_make_is_refused_before_it_begins(home: Path, configured: str, part: str) -> None:
    (home / "dagster.yaml").write_text(configured)

    ran = recon(*A_RUN)

    assert ran.exit_code == 2
    assert ran.json["error"] == failing(recon("doctor", "--json"))[f"Dagster {part}"][0]
    with DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs_count() == 0


def test_a_run_in_this_process_needs_no_launcher(home: Path) -> None:
    (home / "dagster.yaml").write_text("run_launcher: {module: team_k8s, class: Launcher}\n")

    assert recon(*A_RUN).exit_code == 0
