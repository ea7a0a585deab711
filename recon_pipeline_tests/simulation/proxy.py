"""A network between the product and Postgres that loses the answer to a COMMIT: it was done, unknown to the client."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from recon_pipeline.embedded_postgres.cluster import socket_url

_BYTES = 65_536


@dataclass
class Network:
    """Forwards between two sockets.

    Attributes:
        url: The database, by way of this network.
        lose_answer_to: The COMMIT whose answer is lost, counted from 1; then the connection is cut. 0 for none.
        commits: How many were seen.
    """

    url: str
    lose_answer_to: int = 0
    commits: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def forward(self, client: socket.socket, server: socket.socket) -> None:
        """Serve one connection until either side ends it."""
        losing = threading.Event()
        threading.Thread(target=_answer, args=(server, client, losing), daemon=True).start()
        with client, server, suppress(OSError):
            while request := client.recv(_BYTES):
                if b"COMMIT" in request and self._is_lost():
                    losing.set()
                server.sendall(request)

    def _is_lost(self) -> bool:
        with self._guard:
            self.commits += 1
            return self.commits == self.lose_answer_to


def _answer(server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
    with suppress(OSError):
        while answer := server.recv(_BYTES):
            if losing.is_set():
                break
            client.sendall(answer)
    for side in (client, server):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@contextmanager
def network(url: str) -> Iterator[Network]:
    """A network to the server of this URL, which has a Unix socket."""
    parts = urlsplit(url)
    given = parse_qs(parts.query)
    target = str(Path(given["host"][0]) / f".s.PGSQL.{given.get('port', ['5432'])[0]}")
    with tempfile.TemporaryDirectory(prefix="recon-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(Path(folder) / ".s.PGSQL.5432"))
        listening.listen()
        made = Network(socket_url(Path(folder), parts.path.removeprefix("/")))
        threading.Thread(target=_serve, args=(listening, target, made), daemon=True).start()
        yield made
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, target: str, made: Network) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            threading.Thread(target=made.forward, args=(client, server), daemon=True).start()
