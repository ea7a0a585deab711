"""Dagster's UI, daemon and schedule on this machine, in the foreground: what `recon dev` does.

Three processes: one code server, which the other two share (each would start one of its own, and loading the
definitions is the most expensive part of a start), the webserver and the daemon. They live and die together: when
one ends, all are ended, and whichever way this process ends, none of them stays behind.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from recon_pipeline.automation.dagster_url import dagster_url, files_folder, is_used_by
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import (
    BILLING_DATABASE,
    DAGSTER_DATABASE,
    ensure_running,
)
from recon_pipeline.faces.dagster_home import find_dagster_home, require_records_apart
from recon_pipeline.faces.dev_services import Service, end_with_parent, stop_all, wait

_HOST = "127.0.0.1"
_FIRST_PORT = 3000
_PORTS_TRIED = 50
_DEFINITIONS = "recon_pipeline.definitions"
_LOCATION = "recon_pipeline"
# Switched off in dagster.yaml alone, telemetry still makes two empty folders beside that file.
_NO_TELEMETRY = {"DAGSTER_DISABLE_TELEMETRY": "1"}


def run_dev(
    port: int | None = None, *, environ: Mapping[str, str] = os.environ, say: Callable[[str], None] = print
) -> None:
    """Run Dagster until Ctrl-C or SIGTERM, then stop all of it.

    Args:
        port: Port of the UI; by default the first free one from 3000.
        environ: `DATABASE_URL` and `DAGSTER_PG_URL` name the databases; without them the embedded server is
            used, and stopped at the end. `DAGSTER_HOME` names the folder of `dagster.yaml`; without it see
            `find_dagster_home`.
        say: Is called with each line that the user should read.

    Raises:
        ConfigurationError: The port is taken, `dagster.yaml` is not in DAGSTER_HOME, a URL is missing, or both URLs
            name one schema.
        EmbeddedPostgresError: The embedded server cannot run.
        DevError: A process ended; the message holds the end of its log.
    """
    home = find_dagster_home(environ)
    chosen_port = _free_port(port)
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_requested())
        environment = stack.enter_context(_databases(environ, home)) | {"DAGSTER_HOME": str(home)} | _NO_TELEMETRY
        logs = files_folder(home) / "dev"
        logs.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recon-")))
        services: list[Service] = []
        stack.callback(stop_all, services)
        for step in _starting(services, folder, environment, chosen_port, logs):
            wait(services, stop, step)
        if not stop.is_set():
            say(f"Dagster is at http://{_HOST}:{chosen_port} (logs in {logs}). Ctrl-C stops it.")
            wait(services, stop, None)
        say("Stopping Dagster ...")


def _starting(
    services: list[Service], folder: Path, environment: Mapping[str, str], port: int, logs: Path
) -> Generator[Callable[[], bool]]:
    """Start the processes one after the other; after each step, yield a function that returns whether it is done.

    Args:
        services: Gets each service as soon as it is started.
        folder: A short path for the code server's socket; it must last as long as the processes.
        environment: For all of them.
        port: The webserver's.
        logs: Folder of their output.
    """

    def start(name: str, arguments: Sequence[str]) -> None:
        log = logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [sys.executable, "-m", *arguments],
                cwd=environment["DAGSTER_HOME"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        services.append(Service(name, process, log))

    code_socket, workspace = folder / "code", folder / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - grpc_server: {{socket: {code_socket}, location_name: {_LOCATION}}}\n")
    code_server = ["dagster", "api", "grpc", "--module-name", _DEFINITIONS, "--socket", str(code_socket)]
    start("code-server", [*code_server, "--location-name", _LOCATION])
    yield lambda: b"Started Dagster code server" in services[0].log.read_bytes()
    start("webserver", ["dagster_webserver", "-w", str(workspace), "-h", _HOST, "-p", str(port)])
    start("daemon", ["dagster._daemon", "run", "-w", str(workspace)])
    yield lambda: _webserver_answers(port)


@contextmanager
def _databases(environ: Mapping[str, str], home: Path) -> Generator[dict[str, str]]:
    """The environment with the URLs that are used in it. An embedded server is stopped, unless others use it."""
    if environ.get("DATABASE_URL"):
        if not is_used_by(str(home)):
            yield {**environ}
            return
        records_url = dagster_url(environ)
        require_records_apart(environ["DATABASE_URL"], records_url)
        yield {**environ, "DAGSTER_PG_URL": records_url}
        return
    server = ensure_running(keep_running=False)
    try:
        yield {
            **environ,
            "DATABASE_URL": server.ensure_database(BILLING_DATABASE),
            "DAGSTER_PG_URL": dagster_url(environ)
            if environ.get("DAGSTER_PG_URL")
            else server.ensure_database(DAGSTER_DATABASE),
        }
    finally:
        server.stop()


@contextmanager
def _stop_requested() -> Generator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and the terminal's end set, instead of ending this process at once."""
    requested = threading.Event()

    def request(_number: int, _frame: FrameType | None) -> None:
        requested.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port(wanted: int | None) -> int:
    if wanted is not None:
        if not _is_free(wanted):
            raise ConfigurationError(
                f"Port {wanted} of {_HOST} is taken or not allowed; nothing was started.",
                fix="End what listens there, or choose another with --port.",
            )
        return wanted
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS_TRIED):
        if _is_free(port):
            return port
    raise ConfigurationError(
        f"None of the {_PORTS_TRIED} ports of {_HOST} from {_FIRST_PORT} is free; nothing was started.",
        fix="Choose one with --port.",
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _webserver_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
