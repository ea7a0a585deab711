"""A Dagster that was there before: its storage is its own, and so is what it does with a URL."""

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from sqlalchemy.exc import ProgrammingError

from recon_pipeline.faces.dagster_home import check_storage, require_storage
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.commands.modes import finding

A_RUN = ("reconcile", "--period", "2025-05", "--json")
DRIVER = "Dagster storage driver"


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
