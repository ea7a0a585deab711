"""Which settings of Dagster are used: somebody's own, or in a folder without any, where only a wheel is, ours."""

import os
import tomllib
from pathlib import Path

import pytest

from recon_pipeline.automation.dagster_url import files_folder
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import project_folder
from recon_pipeline.faces import dagster_home
from recon_pipeline.faces.dagster_home import find_dagster_home
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.dagster import DAGSTER_YAML


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which somebody types commands of an installed wheel."""
    packaged = tmp_path / "site-packages/dagster.yaml"
    packaged.parent.mkdir()
    packaged.write_bytes(DAGSTER_YAML.read_bytes())
    typed_in = tmp_path / "typed_in"
    typed_in.mkdir()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(dagster_home, "_PACKAGED", packaged)
    monkeypatch.setattr(dagster_home, "project_folder", lambda: typed_in)
    return typed_in


def test_a_wheel_brings_the_settings_and_leaves_the_folder_to_its_owner(folder: Path) -> None:
    home = find_dagster_home()
    assert home == folder / ".recon"
    assert (home / "dagster.yaml").read_bytes() == DAGSTER_YAML.read_bytes()
    assert [path.name for path in folder.iterdir()] == [".recon"]
    assert files_folder(home) == files_folder(folder), "where a checkout has them"
    (home / "dagster.yaml").write_text("# of the release before\n")
    assert (find_dagster_home() / "dagster.yaml").read_bytes() == DAGSTER_YAML.read_bytes()
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"]


def test_own_settings_in_the_folder_come_before_ours(folder: Path) -> None:
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert find_dagster_home() == folder
    assert [path.name for path in folder.iterdir()] == ["dagster.yaml"]


def test_in_a_home_that_is_given_no_settings_are_written(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"which holds no dagster\.yaml") as refused:
        find_dagster_home({"DAGSTER_HOME": str(folder)})
    assert "unset it to use the settings of recon_pipeline" in refused.value.fix
    assert list(folder.iterdir()) == []


def test_a_folder_in_which_nothing_can_be_written_is_named(folder: Path) -> None:
    (folder / ".recon").touch()
    with pytest.raises(ConfigurationError, match="The settings of Dagster cannot be written to") as refused:
        find_dagster_home()
    assert f"{folder}/.recon/dagster.yaml" in refused.value.what


def test_doctor_and_a_run_work_in_a_folder_where_only_a_wheel_is(
    billing: Billing, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # given back after the test, whatever a command makes of it
    output = recon("doctor", "--json")
    found = {one["requirement"]: one for one in output.json["findings"]}
    assert found["Dagster storage"]["detail"].endswith(f"DAGSTER_HOME {folder}/.recon")
    assert os.environ["DAGSTER_HOME"] == str(folder / ".recon")
    assert recon("reconcile", "--period", "2025-05", "--json").exit_code == 0


def test_a_wheel_contains_the_settings_where_they_are_looked_for() -> None:
    build = tomllib.loads((project_folder() / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"dagster.yaml": "recon_pipeline/dagster.yaml"}
    assert Path(dagster_home.__file__).parents[1] == project_folder() / "recon_pipeline"
