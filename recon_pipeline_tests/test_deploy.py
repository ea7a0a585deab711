"""The files in `deploy/`: what reads them in production reads them, and the processes that they start do their work."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client
from packaging.requirements import Requirement

from recon_pipeline import embedded_postgres
from recon_pipeline.embedded_postgres import project_folder
from recon_pipeline.faces.cli import main

DEPLOY = project_folder() / "deploy"
BIN = Path(sys.executable).parent
DAGSTER_YAML: Mapping[str, Any] = yaml.safe_load((project_folder() / "dagster.yaml").read_text())
HELM: Mapping[str, Any] = yaml.safe_load((DEPLOY / "helm/values.yaml").read_text())
PROJECT: Mapping[str, Any] = tomllib.loads((project_folder() / "pyproject.toml").read_text())["project"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OF_OTHERS = {"DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "FORWARDED_ALLOW_IPS", "PATH", "PGTZ", "PYTHONUNBUFFERED"}
OF_COMPOSE = {"DIRECT_URL", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}


def composed(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Docker Compose makes of the files, with a filled in `.env`."""
    shutil.copytree(DEPLOY, folder / "deploy")
    given = (DEPLOY / "env.example").read_text().splitlines()
    lines = [f"{line}{variables.get(line.removesuffix('='), '')}" for line in given]
    (folder / "deploy/.env").write_text("\n".join(lines))
    return subprocess.run(
        [BIN / "docker-compose", "-f", "deploy/compose.yaml", "config", "--format", "json"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The services as Docker Compose starts them."""
    result = composed(tmp_path_factory.mktemp("composed"), POSTGRES_PASSWORD="secret")
    assert result.stderr == ""
    return json.loads(result.stdout)["services"]


def commands(unit: Path) -> list[list[str]]:
    """What a unit starts, without the folder of the programs."""
    lines = re.findall(r"^Exec.*?/opt/recon/bin/([^'\n]*)", unit.read_text(), flags=re.MULTILINE)
    return [line.split() for line in lines]


def test_docker_compose_refuses_to_start_without_a_password_and_says_where_it_belongs(tmp_path: Path) -> None:
    result = composed(tmp_path)
    assert result.stdout == ""
    assert "POSTGRES_PASSWORD is missing a value: set it in deploy/.env" in result.stderr


def test_nothing_starts_before_the_database_is_prepared(services: Mapping[str, Any]) -> None:
    ours = {name: service for name, service in services.items() if name not in ("init", "postgres")}
    assert set(ours) == {"code-server", "webserver", "daemon", "serve"}
    waits_for = {name: service["depends_on"]["init"]["condition"] for name, service in ours.items()}
    assert set(waits_for.values()) == {"service_completed_successfully"}
    assert services["init"]["command"] == ["recon", "init"]


def test_only_this_machine_reaches_what_has_no_login(services: Mapping[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert published["code-server"] == published["postgres"] == []


def test_every_container_of_ours_is_closed(services: Mapping[str, Any]) -> None:
    for name in set(services) - {"postgres"}:
        assert services[name]["read_only"], name
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_password_of_the_history_is_in_the_url_of_the_history(services: Mapping[str, Any]) -> None:
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "secret"
    assert services["serve"]["environment"]["DAGSTER_PG_URL"] == "postgresql://dagster:secret@postgres:5432/dagster"


def test_only_init_goes_around_a_pooler(tmp_path: Path) -> None:
    result = composed(tmp_path, POSTGRES_PASSWORD="secret", DIRECT_URL="postgresql://direct/app")
    found = json.loads(result.stdout)["services"]
    urls = {name: service["environment"].get("DATABASE_URL") for name, service in found.items()}
    assert {name for name, url in urls.items() if url == "postgresql://direct/app"} == {"init"}
    assert urls["daemon"] == "postgresql://user:password@host:5432/app"


def test_the_files_name_only_variables_that_somebody_reads(services: Mapping[str, Any]) -> None:
    known = set(re.findall(r"^\| `([A-Z_]+)` \|", (project_folder() / "README.md").read_text(), flags=re.MULTILINE))
    pods = [HELM["dagsterWebserver"], HELM["dagsterDaemon"], *HELM["dagster-user-deployments"]["deployments"]]
    named = {name for service in services.values() for name in service.get("environment", {})}
    named |= {variable["name"] for pod in pods for variable in pod["env"]}
    for unit in UNITS:
        named |= {one.split("=")[0] for one in settings(unit)["Service"]["Environment"].split()}
    named |= set(re.findall(r"([A-Z_]{3,})=", (DEPLOY / "Dockerfile").read_text()))
    assert named - known - OF_OTHERS == OF_COMPOSE


def test_units_and_containers_start_the_same_commands(services: Mapping[str, Any]) -> None:
    def same(command: Sequence[str]) -> str:
        text = " ".join(command).replace("/var/lib/recon", "/opt/dagster")
        return re.sub(r"(--host) \S+", r"\1 HOST", text)

    in_units = {same(command) for unit in UNITS for command in commands(unit)}
    assert in_units == {same(service["command"]) for name, service in services.items() if name != "postgres"}


def test_the_image_listens_as_compose_tells_it_to(services: Mapping[str, Any]) -> None:
    command = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert [json.loads(one) for one in command] == [services["serve"]["command"]]
    assert services["serve"]["command"][1] in main.commands


def test_pip_finds_every_extra_in_the_lock_with_its_hashes() -> None:
    text = (project_folder() / "requirements.lock").read_text()
    locked = {one.name: one for one in map(Requirement, re.findall(r"^[a-z].*==[^ \\]+", text, flags=re.MULTILINE))}
    assert "dagster-graphql" in locked
    for name in locked:
        try:
            required = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # of another platform
            continue
        for one in required:
            if one.extras and (one.marker is None or one.marker.evaluate({"extra": ""})):
                assert one.extras <= locked[one.name].extras, f"{name} needs {one}"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    result = subprocess.run([BIN / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def settings(unit: Path) -> configparser.ConfigParser:
    """The settings of a unit."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=False)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parser.read_string(unit.read_text())
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units_and_finds_them_closed(tmp_path: Path) -> None:
    for unit in UNITS:
        # The programs that a unit names must be there.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/recon/bin", str(BIN)))
    units = [str(tmp_path / unit.name) for unit in UNITS]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    for unit in units:
        subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit], check=True)


def as_chart_says(settings: Any) -> Any:
    """Settings of `dagster.yaml` with the chart's spelling of names."""
    if isinstance(settings, list):
        return [as_chart_says(one) for one in settings]
    if isinstance(settings, dict):
        return {
            re.sub(r"_([a-z])", lambda found: found[1].upper(), name): as_chart_says(value)
            for name, value in settings.items()
        }
    return settings


def test_the_values_of_the_chart_say_what_dagster_yaml_says() -> None:
    daemon = HELM["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue == as_chart_says(DAGSTER_YAML["concurrency"]["runs"])
    for name in ("run_monitoring", "run_retries", "schedules", "sensors"):
        assert as_chart_says({name: DAGSTER_YAML[name]}).items() <= daemon.items(), name
    assert HELM["retention"] == {"enabled": True} | as_chart_says(DAGSTER_YAML["retention"])
    assert HELM["telemetry"] == DAGSTER_YAML["telemetry"]


def test_the_values_name_this_release_everywhere() -> None:
    text = (DEPLOY / "helm/values.yaml").read_text()
    assert set(re.findall(r"(?:recon-pipeline:|tag: )(\d\S*)", text)) == {PROJECT["version"]}


def test_kubernetes_knows_every_field_of_the_pods() -> None:
    pods = [HELM["dagsterWebserver"], HELM["dagsterDaemon"], *HELM["dagster-user-deployments"]["deployments"]]
    for pod in pods:
        of_pod = {"containers": pod.get("initContainers", []), "securityContext": pod["podSecurityContext"]}
        parsed(client.V1PodSpec, of_pod)
        fields = {"env", "resources", "securityContext", "readinessProbe"} & set(pod)
        parsed(client.V1Container, {"name": "one"} | {field: pod[field] for field in fields})
    deployment, service = HELM["extraManifests"]
    parsed(client.V1Deployment, deployment)
    parsed(client.V1Service, service)
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_no_container_of_ours_starts_in_kubernetes_without_the_url_of_the_billing_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a tick, a run or `recon serve` would make a database of its own in the pod, and find it in order."""
    (code_server,) = HELM["dagster-user-deployments"]["deployments"]
    (serve,) = HELM["extraManifests"][0]["spec"]["template"]["spec"]["containers"]
    for container in (code_server, serve):
        (url,) = [variable for variable in container["env"] if variable["name"] == "DATABASE_URL"]
        # Not optional: Kubernetes does not start a container whose key is not there, and names it.
        assert url["valueFrom"] == {"secretKeyRef": {"name": "recon-pipeline", "key": "DATABASE_URL"}}
    assert code_server["includeConfigInLaunchedRuns"] == {"enabled": True}  # so the pods of runs require it too
    # The init container takes the direct URL where there is one, and says what is missing where there is neither.
    (init,) = code_server["initContainers"]
    assert init["env"][0]["valueFrom"]["secretKeyRef"]["optional"]
    monkeypatch.setattr(embedded_postgres, "default_data_folder", lambda: tmp_path / "none")  # as in an image
    result = CliRunner().invoke(main, init["command"][1:], env={"DATABASE_URL": None})
    assert (result.exit_code, "DATABASE_URL is not set" in result.stderr) == (2, True)


def parsed(model: type, content: Mapping[str, Any]) -> object:
    """The model; an unknown field or a missing one is an error."""
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, dict(content)))


def test_the_run_launcher_knows_its_settings() -> None:
    launcher = HELM["runLauncher"]["config"]["k8sRunLauncher"]
    assert set(launcher) == {"imagePullPolicy", "runK8sConfig"}
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "image_pull_policy": launcher["imagePullPolicy"],
        "run_k8s_config": {"job_spec_config": launcher["runK8sConfig"]["jobSpecConfig"]},
    }
    result = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config)
    assert result.success, result.errors
