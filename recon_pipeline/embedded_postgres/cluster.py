"""One Postgres data folder and the binaries that serve it: created, started, queried, stopped.

The server listens only on a Unix socket, inside its own folder if the path is short enough. An account that may
not enter the folder cannot connect; so trust authentication is acceptable. Only `postmaster.pid` says whether and
where the server runs. Callers ensure that only one of them acts at a time, and decide who may stop the server.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from recon_pipeline.core.errors import ReconError

_PORT = 5432
_LONGEST_SOCKET_PATH_BYTES = 100
_START_SECONDS = 60
_STOP_SECONDS = 30
_LOG_LINES_SHOWN = 8


class EmbeddedPostgresError(ReconError):
    """The embedded Postgres could not be created, started or reached."""


@dataclass(frozen=True)
class PostgresCluster:
    """A data folder, served by one set of binaries.

    Attributes:
        binaries: Folder with `initdb`, `pg_ctl` and `postgres`.
        folder: The data folder.
        account: System account that runs the server and owns the folder; None for our own. Postgres refuses
            root.
    """

    binaries: Path
    folder: Path
    account: str | None

    def initialise(self) -> None:
        """Create the data folder completely or not at all: it is created beside its place and then moved there.

        Raises:
            EmbeddedPostgresError: `initdb` failed.
        """
        for left_by_a_killed_process in self.folder.parent.glob(f"{self.folder.name}.new-*"):
            shutil.rmtree(left_by_a_killed_process)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.new-", dir=self.folder.parent))
        try:
            self._give_to_account(unfinished)
            # C: no locale of the machine can make it fail, and keys sort as they do in Python.
            arguments = [
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
                str(unfinished),
            ]
            self._run("initdb", arguments, doing=f"create a Postgres data folder at {self.folder}")
            unfinished.rename(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def start(self) -> Path:
        """Start the server unless it runs, and wait until it answers.

        Returns:
            The folder of its socket.

        Raises:
            EmbeddedPostgresError: It did not start; the message ends with the server's log.
        """
        running = self._socket_folder_once_settled()
        if running is not None:
            return running
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        socket_folder = self._new_socket_folder()
        options = f"-h '' -p {_PORT} -k {shlex.quote(str(socket_folder))} -c log_checkpoints=off"
        arguments = [
            "-D",
            str(self.folder),
            "-l",
            str(self._log),
            "-w",
            "-t",
            str(_START_SECONDS),
            "-o",
            options,
        ]
        self._run("pg_ctl", [*arguments, "start"], doing=f"start the Postgres in {self.folder}")
        return socket_folder

    def stop(self) -> None:
        """Stop the server, if it runs: open connections are ended, the data is shut down cleanly.

        Raises:
            EmbeddedPostgresError: It did not stop.
        """
        socket_folder = self._recorded_socket_folder()
        if socket_folder is None or self._postmaster() is None:
            return
        arguments = ["-D", str(self.folder), "-m", "fast", "-w", "-t", str(_STOP_SECONDS), "stop"]
        self._run("pg_ctl", arguments, doing=f"stop the Postgres in {self.folder}")
        if socket_folder != self.folder:
            shutil.rmtree(socket_folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _socket_folder_once_settled(self) -> Path | None:
        """The socket folder of the running server, or None. Waits for a server that is starting."""
        deadline = time.monotonic() + _START_SECONDS
        while self._postmaster() is not None:
            socket_folder = self._recorded_socket_folder()
            if socket_folder is not None and _answers(socket_folder):
                return socket_folder
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"A Postgres runs on {self.folder} but has not answered for {_START_SECONDS} s.",
                    fix=f"Read {self._log}, end the process named in the first line of "
                    f"{self.folder / 'postmaster.pid'}, and start again.",
                )
            time.sleep(0.1)
        return None

    def _postmaster(self) -> psutil.Process | None:
        """The server's process, if it runs in its data folder: another process may have got the same number."""
        try:
            pid = int((self.folder / "postmaster.pid").read_text().partition("\n")[0])
            process = psutil.Process(pid)
            is_ours = process.name().startswith("postgres") and Path(process.cwd()) == self.folder.resolve()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    def _recorded_socket_folder(self) -> Path | None:
        """The socket folder in `postmaster.pid`; the server writes that line shortly after the file."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        return Path(lines[4]) if len(lines) > 4 and lines[4] else None

    def _new_socket_folder(self) -> Path:
        path = os.fsencode(self.folder / f".s.PGSQL.{_PORT}")
        # Postgres reads the setting as a list: a comma or quote would split it, and {tempdir} has neither.
        if len(path) <= _LONGEST_SOCKET_PATH_BYTES and not any(mark in str(self.folder) for mark in ",\"'"):
            return self.folder
        folder = Path(tempfile.mkdtemp(prefix="recon_pipeline-", dir="/tmp"))
        self._give_to_account(folder)
        return folder

    def _give_to_account(self, folder: Path) -> None:
        if self.account is not None:
            account = pwd.getpwnam(self.account)
            os.chown(folder, account.pw_uid, account.pw_gid)

    def _run(self, program: str, arguments: list[str], *, doing: str) -> None:
        """Run one of the binaries as the server's account.

        Its output goes to a file: the server inherits it, and a pipe would stay open as long as the server
        runs.
        """
        with tempfile.TemporaryFile() as output:
            finished = subprocess.run(  # noqa: S603 - our own program and arguments
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                check=False,
                user=self.account,
                group=None if self.account is None else pwd.getpwnam(self.account).pw_gid,
                extra_groups=None if self.account is None else [],
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        if finished.returncode != 0:
            raise EmbeddedPostgresError(
                f"Could not {doing}: {program} ended with {finished.returncode}.\n{_tail(text)}\n{self._log_tail()}",
                fix=f"Fix what it says, or move {self.folder} away to begin with an empty one (its data is "
                "then not used), or set DATABASE_URL to a Postgres of your own.",
            )

    def _log_tail(self) -> str:
        return _tail(self._log.read_text(errors="replace")) if self._log.exists() else ""


def socket_url(socket_folder: Path, database: str) -> str:
    """The plain URL of a database behind that socket. It names the port, so that `PGPORT` has no effect."""
    host = quote(str(socket_folder), safe="/")
    return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={_PORT}"


def _answers(socket_folder: Path) -> bool:
    try:
        psycopg.connect(socket_url(socket_folder, "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _environment() -> Mapping[str, str]:
    """Ours without the variables that would change the server (`PGDATA`, `PGPORT`, ...)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LOG_LINES_SHOWN:])
