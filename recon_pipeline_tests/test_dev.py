"""`recon dev`: three processes that live and die together, and leave nothing behind."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import psutil
import pytest

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import project_folder
from recon_pipeline.faces.dev import run_dev
from recon_pipeline_tests.support.dagster import DAGSTER_YAML
from recon_pipeline_tests.support.postgres import throwaway_folder

pytestmark = pytest.mark.long

RUN_DEV = "from recon_pipeline.faces.dev import run_dev; run_dev(say=lambda line: print(line, flush=True))"
NAMES = {"code-server": "api grpc", "webserver": "dagster_webserver", "daemon": "dagster._daemon"}


@pytest.fixture
def dev(
    billing_database_url: str, dagster_database_url: str, tmp_path: Path
) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A running `recon dev` and its address."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((project_folder() / "dagster.yaml").read_text())
    urls = {"DATABASE_URL": billing_database_url, "DAGSTER_PG_URL": dagster_database_url}
    with throwaway_folder() as temporary:  # a killed process cannot tidy up
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_DEV],
            env={**os.environ, **urls, "DAGSTER_HOME": str(home), "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert address is not None, process.communicate(timeout=60)[1]
            yield process, address[0]
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=60)


def children(process: subprocess.Popen[str]) -> Mapping[str, psutil.Process]:
    """The processes of Dagster by name."""
    found = psutil.Process(process.pid).children()
    return {name: child for name, mark in NAMES.items() for child in found if mark in " ".join(child.cmdline())}


def assert_gone(processes: Mapping[str, psutil.Process]) -> None:
    """Each has ended within a bound."""
    _, alive = psutil.wait_procs(processes.values(), timeout=30)
    assert alive == []


def test_it_serves_the_ui_and_sigterm_ends_all_of_it_and_leaves_no_folder_behind(
    dev: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, address = dev
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/server_info")
    assert connection.getresponse().status == 200
    started = children(process)
    assert set(started) == set(NAMES)

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 0
    assert_gone(started)
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [".recon", "dagster.yaml"]


def test_when_one_process_ends_the_others_are_ended_and_its_name_is_said(
    dev: tuple[subprocess.Popen[str], str],
) -> None:
    process, _ = dev
    started = children(process)

    started["daemon"].kill()

    _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Dagster's daemon ended with -9" in output
    assert_gone(started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_kill_leaves_no_process_behind(dev: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = dev
    started = children(process)

    process.kill()

    process.communicate(timeout=60)
    assert_gone(started)


def test_a_taken_port_is_named_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"Port {port} of 127.0.0.1 is taken"):
            run_dev(port, environ={"DAGSTER_HOME": str(tmp_path)})

    assert [path.name for path in tmp_path.iterdir()] == ["dagster.yaml"]


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no dagster\.yaml"):
        run_dev(environ={"DAGSTER_HOME": str(tmp_path)})


def test_the_missing_url_of_dagsters_records_is_named(tmp_path: Path) -> None:
    shutil.copy(DAGSTER_YAML, tmp_path)

    with pytest.raises(ConfigurationError, match="DAGSTER_PG_URL is not"):
        run_dev(environ={"DAGSTER_HOME": str(tmp_path), "DATABASE_URL": "postgresql://host/app"})
