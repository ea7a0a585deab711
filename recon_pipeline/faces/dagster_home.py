"""Dagster's home and storage, found without loading Dagster.

Invariant: a home that is given, or settings in the folder, are used as they are; a folder without settings gets those
of this release in its `.recon`, which belongs to the product. No `dagster.yaml` is written among somebody's own files.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from recon_pipeline.automation.dagster_url import OWN_FOLDER, dagster_url, is_used_by
from recon_pipeline.core.errors import ConfigurationError, DatabaseUnreachableError, OrchestratorUnreachableError
from recon_pipeline.embedded_postgres import project_folder
from recon_pipeline.store.postgres.database import BillingDatabase, database_id
from recon_pipeline.store.postgres.statements import labelled

# Where a table is created that names no schema.
_SCHEMA_OF_NEW_TABLES = labelled("schema_of_new_tables", "select current_schema()")


_PACKAGED = Path(__file__).parents[1] / "dagster.yaml"
"""Our settings of Dagster, in a wheel; a checkout has them in its own folder."""


def use_dagster_home() -> str:
    """Make sure that Dagster finds its `dagster.yaml`; returns the folder.

    Raises:
        ConfigurationError: See `find_dagster_home`.
    """
    os.environ["DAGSTER_HOME"] = str(find_dagster_home())
    return os.environ["DAGSTER_HOME"]


def find_dagster_home(environ: Mapping[str, str] = os.environ) -> Path:
    """DAGSTER_HOME, or else the folder that we work in, or its `.recon`, with the settings of this release.

    Raises:
        ConfigurationError: There is no `dagster.yaml` in DAGSTER_HOME, or ours cannot be written.
    """
    if given := environ.get("DAGSTER_HOME"):
        home = Path(given).absolute()
        if not (home / "dagster.yaml").exists():
            raise ConfigurationError(
                f"DAGSTER_HOME is {given}, which holds no dagster.yaml: the history of runs would be kept in another "
                "place than yours.",
                fix="Set DAGSTER_HOME to the folder of your dagster.yaml, or unset it to use the settings of "
                "recon_pipeline.",
            )
        return home
    folder = project_folder()
    if (folder / "dagster.yaml").exists():
        return folder
    _write_settings(folder / OWN_FOLDER / "dagster.yaml")
    return folder / OWN_FOLDER


def settings_of_release() -> bytes:
    """Our own `dagster.yaml`."""
    return (_PACKAGED if _PACKAGED.exists() else project_folder() / "dagster.yaml").read_bytes()


def _write_settings(path: Path) -> None:
    """Write the settings of this release, whole or not at all, unless they are there."""
    settings = settings_of_release()
    with suppress(OSError):  # it is not there, or writing it says why it cannot be
        if path.read_bytes() == settings:
            return
    beginning = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        beginning.write_bytes(settings)
        beginning.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"The settings of Dagster cannot be written to {path}: {error.strerror}.",
            fix="Run this in a folder that is writable, or set DAGSTER_HOME to a folder with a dagster.yaml.",
        ) from error


def require_storage() -> None:
    """Find out at once whether Dagster's storage can be reached; Dagster itself tries for a quarter of a minute.

    A storage that `dagster.yaml` names itself is known to Dagster alone, and not checked here.

    Raises:
        OrchestratorUnreachableError: It cannot.
    """
    if not is_used_by(use_dagster_home()):
        return
    with _reported_as_storage(), BillingDatabase(dagster_url()).connection(any_schema_version=True):
        pass


@contextmanager
def _reported_as_storage() -> Generator[None]:
    """Report a database that cannot be reached as Dagster's storage."""
    try:
        yield
    except DatabaseUnreachableError as error:
        raise OrchestratorUnreachableError(
            error.what.replace("The billing database", "Dagster's storage"),
            fix=check_storage(),
        ) from error


def check_storage() -> str:
    """What a person does about a storage that cannot be reached."""
    home = use_dagster_home()
    named_by = "DAGSTER_PG_URL: it" if is_used_by(home) else f"storage in {home}/dagster.yaml: it"
    return f"Check {named_by} names the database that holds Dagster's run history. Then run this again."


def require_records_apart(billing_url: str, records_url: str) -> None:
    """Refuse to keep Dagster's records among the application's tables, before Dagster creates its tables there.

    Raises:
        ConfigurationError: Both URLs name one database, and Dagster's tables would be in its schema public, or in the
            first one in which that of the billing database looks for tables.
        OrchestratorUnreachableError: Dagster's storage cannot be reached.
        DatabaseUnreachableError: The billing database cannot be reached.
    """
    with _reported_as_storage(), BillingDatabase(records_url).transaction(any_schema_version=True) as connection:
        records, schema = database_id(connection), connection.execute(_SCHEMA_OF_NEW_TABLES).scalar_one()
    with BillingDatabase(billing_url).transaction(any_schema_version=True) as connection:
        if database_id(connection) != records:
            return
        if schema not in ("public", connection.execute(_SCHEMA_OF_NEW_TABLES).scalar_one()):
            return
    raise ConfigurationError(
        f"DAGSTER_PG_URL is the schema {schema} of the billing database: Dagster's tables would stand among the "
        "application's, and whoever may read those, such as a web API over that schema, could read its runs.",
        fix="Create a database for Dagster (create database dagster; on the same server is fine) and set "
        "DAGSTER_PG_URL to it. Or, in this database: create schema dagster; and add ?options=-csearch_path%3Ddagster "
        "to DAGSTER_PG_URL.",
    )
