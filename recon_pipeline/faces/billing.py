"""The billing database as commands use it."""

from recon_pipeline import embedded_postgres
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


def has_embedded_database(settings: Settings) -> bool:
    """Whether commands use the embedded server, and one was made before."""
    return settings.database_url is None and embedded_postgres.default_data_folder().exists()
