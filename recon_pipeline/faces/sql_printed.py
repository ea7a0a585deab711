"""Statements as `recon sql` shows them: typed, as JSON, and for a person and psql.

Invariant: a statement is printed as it is sent, with psql's variables for its values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.table import Table

from recon_pipeline.faces.console import out
from recon_pipeline.faces.sql_values import argument, literal
from recon_pipeline.store.postgres.registry import combinations, comment, header, room, statement
from recon_pipeline.store.postgres.statements import as_written


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


@dataclass(frozen=True)
class Listed:
    """The names of all statements."""

    names: tuple[str, ...]


def alternatives(name: str) -> dict[str, tuple[str, ...]]:
    """The holes of a statement that several parts can fill, with these parts."""
    found: dict[str, dict[str, None]] = {}
    for choices in combinations(name):
        for hole, part in choices.items():
            found.setdefault(hole, {})[part] = None
    return {hole: tuple(parts) for hole, parts in found.items()}


def as_json(found: Printed | Listed) -> dict[str, Any]:
    """The one object of `--json`."""
    if isinstance(found, Printed):
        plan = {} if found.plan is None else {"plan": list(found.plan)}
        return {
            "success": True,
            "name": found.name,
            "room": room(found.name),
            "strategies": dict(found.parts),
            "values": dict(found.values),
            "text": found.text,
            **plan,
        }
    listed = [
        {"name": name, "room": room(name), "summary": header(name).summary, "strategies": alternatives(name)}
        for name in found.names
    ]
    return {"success": True, "statements": listed}


def show(found: Printed | Listed) -> None:
    """The list, or the plan if there is one, else the statement, for a person and for psql."""
    if isinstance(found, Printed):
        click.echo(for_psql(found) if found.plan is None else "\n".join(found.plan))
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("name", "room"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for name in found.names:
        table.add_row(name, room(name), header(name).summary)
    out.print(table)


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
