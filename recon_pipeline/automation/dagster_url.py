"""Which database stores Dagster's records; separate from the storage, so that this does not import Dagster."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

from recon_pipeline.core.database_url import DatabaseUrlError, for_libpq
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import DAGSTER_DATABASE, ensure_running

OWN_FOLDER = ".recon"
"""Of the product, in DAGSTER_HOME or in the folder that we work in."""

_OUR_STORAGE = "ReconPostgresStorage"
_EXAMPLE = "DAGSTER_PG_URL=postgresql://user:password@host:5432/dagster"


def files_folder(home: Path) -> Path:
    """Where Dagster's files are: in our folder of DAGSTER_HOME, which may itself be that folder."""
    return (home if home.name == OWN_FOLDER else home / OWN_FOLDER) / "dagster"


def is_used_by(home: str) -> bool:
    """Whether the `dagster.yaml` of that folder keeps Dagster's records at `dagster_url()`, and not where it says.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    named: object = _configured(Path(home) / "dagster.yaml")
    for name in ("storage", "custom", "class"):
        named = cast("Mapping[str, object]", named).get(name) if isinstance(named, Mapping) else None
    return named == _OUR_STORAGE


def _configured(path: Path) -> object:
    try:
        configured = yaml.safe_load(path.read_text(encoding="utf-8"))
        if configured is None or isinstance(configured, Mapping):
            return cast("object", configured)
        why = "it is not a mapping of names to values"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        why = "it is not text in UTF-8"
    except yaml.MarkedYAMLError as error:  # what it says may quote a password
        mark = error.problem_mark
        why = "it is not YAML" + (f": line {mark.line + 1}, column {mark.column + 1}" if mark else "")
    except yaml.YAMLError:
        why = "it is not YAML"
    raise ConfigurationError(f"{path} cannot be read: {why}.", fix="Correct the file. Then run this again.")


def dagster_url(environ: Mapping[str, str] = os.environ) -> str:
    """The plain URL of Dagster's records: `DAGSTER_PG_URL`, or a database of the embedded server, which is started.

    Raises:
        ConfigurationError: `DAGSTER_PG_URL` is not a Postgres URL, or is missing while `DATABASE_URL` is set: the
            billing database is used for Dagster's records only if that is requested.
        EmbeddedPostgresError: The embedded server cannot run.
    """
    url = environ.get("DAGSTER_PG_URL")
    if url:
        try:
            return for_libpq(url)
        except DatabaseUrlError as error:
            raise ConfigurationError(
                f"DAGSTER_PG_URL cannot be used: {error}.", fix=f"Set it like {_EXAMPLE}."
            ) from None
    if environ.get("DATABASE_URL"):
        raise ConfigurationError(
            "DATABASE_URL is set and DAGSTER_PG_URL is not: Dagster has no database for its run history.",
            fix=f"Set it like {_EXAMPLE}, a separate database (create it empty; the same server is fine), "
            "or unset both to use the embedded Postgres. If you have a Dagster, set DAGSTER_HOME to the folder of its "
            "dagster.yaml: its storage is used.",
        )
    return ensure_running(keep_running=True).ensure_database(DAGSTER_DATABASE)
