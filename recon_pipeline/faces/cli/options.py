"""Options that several commands have, and what all options must be."""

from collections.abc import Sequence

import click

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.settings import Settings

customer_option = click.option(
    "--customer", "customers", multiple=True, required=True, metavar="ID", help="By gateway_customer_id; repeatable."
)
period_option = click.option(
    "--period", "periods", multiple=True, metavar="YYYY-MM", help="Only this billing month; repeatable."
)


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


def require_url(settings: Settings) -> str:
    """DATABASE_URL, for a command that makes no sense on the embedded database.

    Raises:
        ConfigurationError: It is not set.
    """
    if settings.database_url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set: this command works on a database of your own.",
            changed="Nothing was changed.",
            fix="export DATABASE_URL=postgresql://user:password@host:5432/database "
            "(for a first look without one: recon demo).",
        )
    return settings.database_url
