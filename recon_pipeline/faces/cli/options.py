"""Options that several commands have, and what all options must be."""

from collections.abc import Sequence

import click

from recon_pipeline.core.errors import ConfigurationError

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
