"""A database of DuckDB's own, for one question."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from recon_pipeline.core.errors import NOTHING_CHANGED, ReconError, archives_need
from recon_pipeline.lake.scratch import scratch_folder

_MEMORY = "200MB"


@contextmanager
def duckdb_session() -> Generator[Any]:
    """A database of DuckDB's own in memory, with bounds; it loads nothing from the network.

    Raises:
        ConfigurationError: DuckDB is not installed.
    """
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise archives_need(error) from error
    with scratch_folder() as scratch:
        config: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": "false",
        }
        with duckdb.connect(config=config) as session:
            session.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
            yield session


@contextmanager
def reporting(name: str) -> Generator[None]:
    """Report what DuckDB says of a file, or of its memory."""
    import duckdb  # noqa: PLC0415 - an extra

    try:
        yield
    except duckdb.Error as error:
        raise ReconError(
            f"DuckDB cannot count {name}: {str(error).strip().splitlines()[0]}",
            changed=NOTHING_CHANGED,
            fix="Where it is out of memory or disk: give the machine more of it, and run the command again.",
        ) from error


def require_engine() -> None:
    """Refuse at once where DuckDB is not installed.

    Raises:
        ConfigurationError: It is not.
    """
    with duckdb_session():
        return
