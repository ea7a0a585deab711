"""What the runbook's commands share: their options, the database they work on, and the trace they leave in Dagster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.faces.console import err
from recon_pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

customer_option = click.option(
    "--customer", "customers", multiple=True, required=True, metavar="ID", help="By gateway_customer_id; repeatable."
)
period_option = click.option(
    "--period", "periods", multiple=True, metavar="YYYY-MM", help="Only this billing month; repeatable."
)


def own_embedded_server(settings: Settings) -> Settings:
    """Without DATABASE_URL, start the embedded server and stop it when this command ends, unless others use it."""
    if settings.database_url is None:
        from recon_pipeline.embedded_postgres import ensure_running

        ensure_running(keep_running=False)
    return settings


@contextmanager
def billing_connection() -> "Iterator[Connection]":
    """A connection to the billing database, in no transaction.

    Raises:
        ReconError: It cannot be reached, or schema recon is of another version than this code needs.
    """
    from recon_pipeline.store.postgres.database import open_database

    with open_database(own_embedded_server(read_settings())).connection() as connection:
        yield connection


def require_text(option: str, values: Sequence[str | None], *, example: str) -> None:
    """Refuse what is empty or cannot be printed; an option that was not given is fine.

    Raises:
        ConfigurationError: Names the option.
    """
    for value in values:
        if value is not None and (not value.strip() or not value.isprintable()):
            raise ConfigurationError(
                f"{option} is {value!r}, which is empty or not printable text.",
                fix=f"Give {option} a value, for example {option} {example}.",
            )


def leave_trace(description: str, **metadata: str) -> None:
    """Show on the asset `repaired_counters` what a person did; what he did holds without it."""
    import dagster as dg

    from recon_pipeline.faces.orchestrator import open_instance

    try:
        with open_instance() as instance:
            instance.report_runless_asset_event(
                dg.AssetObservation("repaired_counters", description=description, metadata=metadata)
            )
    except ReconError as error:
        err.print(f"Done, but not shown in Dagster: {error.what}", style="yellow", markup=False, soft_wrap=True)
