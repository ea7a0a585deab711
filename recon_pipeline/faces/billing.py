"""The billing database as commands use it."""

from recon_pipeline import embedded_postgres
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import ensure_running
from recon_pipeline.settings import Settings
from recon_pipeline.store.postgres.database import BillingDatabase, open_database


def own_embedded_server(settings: Settings) -> None:
    """Without DATABASE_URL, start the embedded server and stop it when this command ends, unless others use it."""
    if settings.database_url is None:
        ensure_running(keep_running=False)


def billing_database(settings: Settings) -> BillingDatabase:
    """The database that the settings name, or the one on the embedded server, which is this command's own."""
    own_embedded_server(settings)
    return open_database(settings)


def existing_url(settings: Settings) -> str:
    """The plain URL of that database, for a command that makes no sense on an embedded one that it would create.

    Raises:
        ConfigurationError: DATABASE_URL is not set, and there is no embedded database.
    """
    if settings.database_url is None and not embedded_postgres.default_data_folder().exists():
        raise ConfigurationError(
            "DATABASE_URL is not set: this command works on a database of your own.",
            changed="Nothing was changed.",
            fix="export DATABASE_URL=postgresql://user:password@host:5432/database "
            "(for a first look without one: recon demo).",
        )
    own_embedded_server(settings)
    return settings.database_url or embedded_postgres.billing_url()


def which_database(name: str, settings: Settings) -> str:
    """Which database a command is about, for a person."""
    why = "" if settings.database_url else ", the embedded one: DATABASE_URL is not set"
    return f"Database {name}{why}"
