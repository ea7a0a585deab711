"""`recon sql`: the statements that runs send, to be read, run in psql, or shown with their query plan.

Invariant: EXPLAIN does not run a statement.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from sqlalchemy import Connection, text

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.sql_printed import Listed, Printed, alternatives
from recon_pipeline.faces.sql_values import SqlOptions, values_of
from recon_pipeline.settings import Settings, read_settings
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.registry import combinations, declared_binds, header, names, statement
from recon_pipeline.store.postgres.statements import files
from recon_pipeline.store.records.customers import require_known_customers

_HAS_PLAN = re.compile(r"(?:/\*.*?\*/)?\s*(?:with|select|insert|update|delete|create temporary table \w+ [\w ]*as)\s")


def list_or_print(
    name: str | None,
    strategies: tuple[str, ...],
    customers: tuple[str, ...],
    month: BillingMonth | None,
    *,
    explains: bool,
) -> Printed | Listed:
    """All statements, or the one that is named.

    Args:
        name: Of a statement, or None for the list.
        strategies: Parts that fill holes where several can.
        customers: By gateway_customer_id; none for every customer.
        month: Whose start and end are taken; None for the current one.
        explains: Also plan it, on the billing database.

    Raises:
        ConfigurationError: Options without a name, or a name or a part that is not known.
        ReconError: As `explain` does.
    """
    if name is None:
        if strategies or customers or month is not None or explains:
            raise ConfigurationError(
                "No statement is named: the options of recon sql are of one of them.",
                fix="recon sql lists them; then for example recon sql compare_counters --explain.",
            )
        return Listed(names())
    settings, options = read_settings(), SqlOptions(name, strategies, customers, month)
    if not explains:
        return compose(settings, options)
    require_plan(options)
    return explain(settings, options)


def require_plan(options: SqlOptions) -> None:
    """Refuse a statement that Postgres makes no plan for.

    Raises:
        ConfigurationError: It is a script, a block or a definition.
    """
    _require_known(options.name)
    if not has_plan(options.name):
        raise ConfigurationError(
            f"Postgres makes no plan for {options.name}: it is a script, a block or a definition.",
            fix=f"recon sql {options.name} prints it.",
        )


def has_plan(name: str) -> bool:
    """Whether EXPLAIN takes it."""
    return _HAS_PLAN.match(statement(name, combinations(name)[0]).text) is not None


def compose(settings: Settings, options: SqlOptions, tables: BillingTables | None = None) -> Printed:
    """The statement with its parts and values.

    Args:
        settings: Of whose scope, limits and seconds values are taken.
        options: What was asked for.
        tables: What the tables decide, where they were looked at.

    Raises:
        ConfigurationError: There is no such statement, or no hole for a part that was given.
    """
    _require_known(options.name)
    parts = _decided(options, {**tables.parts, **tables.limit_parts} if tables is not None else {})
    binds = declared_binds(options.name, parts)
    for before in header(options.name).after:
        binds |= declared_binds(before, {})
    values = values_of(binds, settings, options, tables)
    return Printed(options.name, parts, values, statement(options.name, parts).text)


def explain(settings: Settings, options: SqlOptions) -> Printed:
    """The statement with the parts that the tables of the billing database decide, with its query plan.

    Raises:
        ReconError: The database cannot be reached, its tables are not as needed, or it refuses the statement.
    """
    with billing_database(settings).connection() as connection:
        with begin(connection):
            tables = require_trustworthy(connection)
            require_known_customers(connection, options.customers)
        printed = compose(settings, options, tables)
        return replace(printed, plan=plan(connection, printed))


def plan(connection: Connection, printed: Printed) -> tuple[str, ...]:
    """How Postgres would run a statement, in the settings with which all of our transactions begin.

    Args:
        connection: In no transaction; what has to be there for the plan is rolled back.
        printed: What is to be planned.
    """
    with begin(connection):
        see_every_row(connection, EVENTS, COUNTERS, SUBSCRIPTIONS)
        for before in header(printed.name).after:
            connection.execute(statement(before, {}), dict(printed.values))
        lines = connection.execute(text(f"explain {printed.text}"), dict(printed.values)).scalars().all()
        connection.rollback()
    return tuple(lines)


def _require_known(name: str) -> None:
    known = names()
    if name in known:
        return
    if name in files():
        users = [user for user in known if f" {name}" in _uses(user)]
        of = f", of {', '.join(users)}" if users else ""
        raise ConfigurationError(
            f"{name} is no statement: it is a part{of}.",
            fix="recon sql lists the statements.",
        )
    near = get_close_matches(name, known, n=3)
    raise ConfigurationError(
        f"There is no statement {name}.",
        fix=f"Did you mean {' or '.join(near)}? recon sql lists them." if near else "recon sql lists them.",
    )


def _uses(name: str) -> str:
    return " ".join(["", *(part for parts in header(name).uses.values() for part in parts)])


def _decided(options: SqlOptions, of_tables: Mapping[str, str]) -> dict[str, str]:
    """What fills each hole that several parts can fill: the requested part, else the tables', else the first."""
    ways = combinations(options.name)
    there = {part for choices in ways for part in choices.values()}
    for strategy in options.strategies:
        if strategy not in there:
            forms = "; ".join(f"{hole}: {', '.join(parts)}" for hole, parts in alternatives(options.name).items())
            raise ConfigurationError(
                f"--strategy {strategy} fills no hole of {options.name}.",
                fix=f"Give one of these: {forms}." if forms else f"Leave it out: {options.name} has one form alone.",
            )
    fitting = [choices for choices in ways if set(options.strategies) <= set(choices.values())]
    if not fitting:
        raise ConfigurationError(
            f"{' and '.join(f'--strategy {one}' for one in options.strategies)} do not go together in {options.name}.",
            fix="Give one part for each hole.",
        )
    return min(fitting, key=lambda choices: sum(of_tables.get(hole, part) != part for hole, part in choices.items()))
