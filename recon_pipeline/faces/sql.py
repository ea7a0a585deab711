"""What `recon sql` does: the statements that runs send, to be read, run in psql, or shown with their query plan.

Invariant: a statement is printed as it is sent, with psql's variables for its values; EXPLAIN does not run it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Connection, text

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.sql_values import SqlOptions, argument, literal, values_of
from recon_pipeline.settings import Settings
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.registry import combinations, comment, declared_binds, header, names, room, statement
from recon_pipeline.store.postgres.statements import as_written, files

_HAS_PLAN = re.compile(r"(?:/\*.*?\*/)?\s*(?:with|select|insert|update|delete|create temporary table \w+ [\w ]*as)\s")


@dataclass(frozen=True)
class Printed:
    """A statement as it is sent.

    Attributes:
        name: Of the statement.
        parts: What fills each hole that several parts can fill.
        values: Of each of its binds, and of those of the statements that have to run before it.
        text: With its name at the beginning.
        plan: The lines of EXPLAIN, where it was asked for.
    """

    name: str
    parts: Mapping[str, str]
    values: Mapping[str, Any]
    text: str
    plan: tuple[str, ...] | None = None


def alternatives(name: str) -> dict[str, tuple[str, ...]]:
    """The holes of a statement that several parts can fill, with these parts."""
    found: dict[str, dict[str, None]] = {}
    for choices in combinations(name):
        for hole, part in choices.items():
            found.setdefault(hole, {})[part] = None
    return {hole: tuple(parts) for hole, parts in found.items()}


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
    """The same as the tables of the billing database decide, with its plan.

    Raises:
        ReconError: The database cannot be reached, its tables are not as needed, or it refuses the statement.
    """
    with billing_database(settings).connection() as connection:
        with begin(connection):
            tables = require_trustworthy(connection)
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


def listed_as_json() -> dict[str, Any]:
    """The one object of `--json`, of all statements."""
    listed = [
        {"name": name, "room": room(name), "summary": header(name).summary, "strategies": alternatives(name)}
        for name in names()
    ]
    return {"success": True, "statements": listed}


def show_list() -> None:
    """The same for a person."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("name", "room"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for name in names():
        table.add_row(name, room(name), header(name).summary)
    out.print(table)


def as_json(printed: Printed) -> dict[str, Any]:
    """The one object of `--json`, of one statement."""
    plan = {} if printed.plan is None else {"plan": list(printed.plan)}
    return {
        "success": True,
        "name": printed.name,
        "room": room(printed.name),
        "strategies": dict(printed.parts),
        "values": dict(printed.values),
        "text": printed.text,
        **plan,
    }


def show(printed: Printed) -> None:
    """The plan if there is one, else the statement, for a person and for psql."""
    click.echo(for_psql(printed) if printed.plan is None else "\n".join(printed.plan))


def for_psql(printed: Printed) -> str:
    """Header, values as psql's variables, and text, as psql takes it; a script as it stands.

    Invariant: what is run keeps nothing, until a person writes commit.
    """
    if printed.text.rstrip().endswith(";"):
        return as_written(printed.name).rstrip()
    lines = comment(printed.name)
    lines += [f"-- Here {hole} is {part}." for hole, part in printed.parts.items()]
    lines += [f"\\set {name} {argument(literal(value))}" for name, value in printed.values.items()]
    texts = [*(statement(before, {}).text for before in header(printed.name).after), printed.text]
    lines += ["begin;", *(f"{one.rstrip()}\n;" for one in texts), "rollback; -- commit, to keep what it writes"]
    return "\n".join(lines)


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
    """What fills each hole that several parts can fill: what was asked for, else the tables', else the first."""
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
