"""The embedded server: started once by many, stopped by its owner alone, and started again after a kill."""

import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
import psycopg
import pytest

from recon_pipeline import embedded_postgres
from recon_pipeline.embedded_postgres import EmbeddedServer, default_data_folder, ensure_running
from recon_pipeline.embedded_postgres import binaries as postgres_binaries
from recon_pipeline.embedded_postgres.cluster import EmbeddedPostgresError
from recon_pipeline_tests.support.postgres import throwaway_folder

USE = """
import sys
from pathlib import Path
from recon_pipeline.embedded_postgres import ensure_running
server = ensure_running(folder=Path(sys.argv[1]), keep_running=sys.argv[2] == "keep")
print(server.ensure_database("app"), flush=True)
sys.stdin.read()
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account for Postgres")


@pytest.fixture
def data_folder() -> Generator[Path]:
    """A place for a data folder; whatever still runs there at the end is stopped."""
    with throwaway_folder() as folder:
        yield folder / "data"
        if postmaster_pid(folder / "data") is not None:
            ensure_running(folder=folder / "data", keep_running=False).stop()


def postmaster_pid(folder: Path) -> int | None:
    """The server's process, if one runs."""
    try:
        pid = int((folder / "postmaster.pid").read_text().partition("\n")[0])
    except FileNotFoundError:
        return None
    return pid if psutil.pid_exists(pid) else None


def start_user(folder: Path, mode: str) -> subprocess.Popen[str]:
    """Another process that uses the server ("own" or "keep") until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", USE, str(folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def url_of(user: subprocess.Popen[str]) -> str:
    """Wait until the process uses the server."""
    assert user.stdout is not None
    return user.stdout.readline().strip()


def end(user: subprocess.Popen[str]) -> None:
    """Let the process end of its own accord."""
    user.communicate("", timeout=60)
    assert user.returncode == 0


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition, with a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_that_ask_at_once_share_one_server_and_the_last_owner_stops_it(data_folder: Path) -> None:
    users = [start_user(data_folder, mode) for mode in ("own", "own", "keep", "keep")]
    urls = {url_of(user) for user in users}

    assert len(urls) == 1
    with psycopg.connect(urls.pop()) as connection:
        assert connection.execute("select current_database()").fetchone() == ("app",)
    for user in (users[2], users[0], users[3]):
        end(user)
        assert postmaster_pid(data_folder) is not None, "it was stopped under a process that uses it"
    end(users[1])
    assert postmaster_pid(data_folder) is None


def test_a_process_that_merely_uses_the_server_leaves_it_running(data_folder: Path) -> None:
    user = start_user(data_folder, "keep")
    url_of(user)
    end(user)

    assert postmaster_pid(data_folder) is not None


def test_a_killed_owner_leaves_a_server_that_the_next_one_takes_over_and_stops(data_folder: Path) -> None:
    killed = start_user(data_folder, "own")
    url = url_of(killed)
    with psycopg.connect(url) as connection:
        connection.execute("create table kept (n int)")
    pid = postmaster_pid(data_folder)
    killed.kill()
    killed.communicate()

    server = ensure_running(folder=data_folder, keep_running=False)

    assert postmaster_pid(data_folder) == pid
    assert server.url("app") == url
    assert server.stop()
    assert postmaster_pid(data_folder) is None


def test_a_killed_server_is_started_again_with_what_was_committed(data_folder: Path) -> None:
    server = ensure_running(folder=data_folder, keep_running=False)
    with psycopg.connect(server.ensure_database("app")) as connection:
        connection.execute("create table kept (n int)")
    pid = postmaster_pid(data_folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: postmaster_pid(data_folder) is None)

    again = ensure_running(folder=data_folder, keep_running=False)

    with psycopg.connect(again.url("app")) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    assert again.stop()


def test_a_number_in_the_pid_file_that_now_is_another_process_is_no_server(data_folder: Path) -> None:
    ensure_running(folder=data_folder, keep_running=False).stop()
    (data_folder / "postmaster.pid").write_text(f"{os.getpid()}\n{data_folder}\n1\n5432\n{data_folder}\n")

    server = ensure_running(folder=data_folder, keep_running=False)

    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert server.stop()


def test_a_path_too_long_or_too_odd_for_a_socket_still_works(data_folder: Path) -> None:
    folder = data_folder.parent / ("long, and 'odd' " * 7) / "data"

    server = ensure_running(folder=folder, keep_running=False)

    assert not server.socket_folder.is_relative_to(folder)
    with psycopg.connect(server.ensure_database("app")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert server.stop()
    assert not server.socket_folder.exists()


def test_stopping_twice_is_harmless_and_the_server_can_be_started_again(data_folder: Path) -> None:
    server = ensure_running(folder=data_folder, keep_running=False)

    assert (server.stop(), server.stop()) == (True, False)
    assert isinstance(ensure_running(folder=data_folder, keep_running=False), EmbeddedServer)


def test_variables_of_libpq_mislead_neither_server_nor_client(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGDATA": "/nowhere", "PGUSER": "x"}.items():
        monkeypatch.setenv(name, value)

    server = ensure_running(folder=data_folder, keep_running=False)

    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.info.user == "postgres"


def test_data_of_another_major_version_is_named_and_left_alone(data_folder: Path) -> None:
    ensure_running(folder=data_folder, major=16, keep_running=False).stop()

    with pytest.raises(EmbeddedPostgresError, match=r"created by Postgres 16; Postgres 18 cannot read it") as error:
        ensure_running(folder=data_folder, major=18, keep_running=False)

    assert str(data_folder) in str(error.value)
    assert "Dump it with Postgres 16" in error.value.fix
    assert (data_folder / "PG_VERSION").read_text().strip() == "16"


def test_a_folder_with_other_files_is_refused(data_folder: Path) -> None:
    data_folder.mkdir()
    (data_folder / "diary.txt").write_text("mine")

    with pytest.raises(EmbeddedPostgresError, match="not a Postgres data folder"):
        ensure_running(folder=data_folder, keep_running=False)

    assert [path.name for path in data_folder.iterdir()] == ["diary.txt"]


def test_a_place_that_cannot_be_written_is_named(data_folder: Path) -> None:
    data_folder.parent.joinpath("file").write_text("")

    with pytest.raises(EmbeddedPostgresError, match="cannot keep its data"):
        ensure_running(folder=data_folder.parent / "file" / "data", keep_running=False)


def test_a_server_that_does_not_start_says_why(data_folder: Path) -> None:
    ensure_running(folder=data_folder, keep_running=False).stop()
    with (data_folder / "postgresql.conf").open("a") as settings:
        settings.write("\nno_such_setting = on\n")

    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        ensure_running(folder=data_folder, keep_running=False)


@needs_root
def test_root_opens_no_folder_and_keeps_its_data_out_of_a_closed_one(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = data_folder.parent / "home"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(embedded_postgres, "project_folder", lambda: closed / "project")

    assert not default_data_folder().is_relative_to(closed)
    with pytest.raises(EmbeddedPostgresError, match="cannot enter"):
        ensure_running(folder=closed / "project" / "data", keep_running=False)
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_says_where_its_data_went_and_why(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = data_folder.parent / "home"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(embedded_postgres, "project_folder", lambda: closed)
    monkeypatch.setattr(embedded_postgres, "ROOTS_FOLDER", data_folder.parent / "roots")

    server = ensure_running(keep_running=False)

    assert server.folder.is_relative_to(data_folder.parent / "roots")
    assert f"keeps its data in {server.folder}" in caplog.text
    assert server.stop()


@needs_root
def test_programs_in_a_closed_folder_are_copied_where_the_account_can_run_them(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_binaries, "ROOTS_FOLDER", data_folder.parent / "roots")
    wheel = Path(postgres_binaries.binaries_folder(18, None)).parents[1]
    monkeypatch.setattr(postgres_binaries, "open_to_all", lambda folder: folder != wheel)

    server = ensure_running(folder=data_folder, keep_running=False)

    assert server.cluster.binaries.is_relative_to(data_folder.parent / "roots")
    assert server.stop()


@needs_root
def test_data_that_belongs_to_another_account_is_named(data_folder: Path) -> None:
    ensure_running(folder=data_folder, keep_running=False).stop()
    fork = multiprocessing.get_context("fork")  # nobody may not be able to run this interpreter anew
    messages = fork.SimpleQueue()

    def start_as_nobody() -> None:
        os.setuid(pwd.getpwnam("nobody").pw_uid)
        try:
            ensure_running(folder=data_folder, keep_running=True)
        except EmbeddedPostgresError as error:
            messages.put(str(error))
        else:
            messages.put("it was started")

    nobody = fork.Process(target=start_as_nobody)
    nobody.start()
    nobody.join(60)

    assert "belongs to the account pgserver" in messages.get()
