"""The command `recon sql`: the statements that runs send, to be read, run in psql, or planned on the billing database.

Invariant: a statement is printed as it is sent, with psql's variables for its values; nothing that is planned is run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Connection, text

from recon_pipeline.assets.reconciler import open_database
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.console import out
from recon_pipeline.settings import RECENT_DAYS, Settings
from recon_pipeline.store.counters.compare import MOST_KEYS
from recon_pipeline.store.log.billing_tables import BillingTables, require_trustworthy
from recon_pipeline.store.postgres.database import begin
from recon_pipeline.store.postgres.statements import (
    as_written,
    combinations,
    declared_binds,
    files,
    header,
    room,
    statement,
)
from recon_pipeline.store.sums.run import SAMPLE_ROWS

_HAS_PLAN = re.compile(r"(?:/\*.*?\*/)?\s*(?:with|select|insert|update|delete|create temporary table \w+ [\w ]*as)\s")
_ROW_LIMITS = ("rows", "most", "most_events_sampled", "sample_rows")
_BY_TYPE: Mapping[str, Any] = {
    "boolean": False,
    "integer": 0,
    "bigint": 0,
    "numeric": 0,
    "double precision": 0,
    "xid8": "0",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "jsonb": "[]",
    "text": "",
}
"""What stands for a value of which the settings and options say nothing."""


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Attributes:
        name: Of the statement.
        strategies: Parts that fill holes where several can.
        customers: By gateway_customer_id; none for every customer.
        month: Whose start and end are taken; None for the current one.
    """

    name: str
    strategies: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    month: BillingMonth | None = None


@dataclass(frozen=True)
class Printed:
    """A statement as it is sent.

    Attributes:
        name: Of the statement.
        parts: What fills each hole that several parts can fill.
        values: Of each of its binds.
        text: With its name at the beginning.
        plan: The lines of EXPLAIN, where it was asked for.
    """

    name: str
    parts: Mapping[str, str]
    values: Mapping[str, Any]
    text: str
    plan: tuple[str, ...] | None = None


def names() -> tuple[str, ...]:
    """The statements by room, without the parts that they are made of."""
    return tuple(sorted((name for name in files() if not header(name).is_part), key=lambda name: (room(name), name)))


def alternatives(name: str) -> dict[str, tuple[str, ...]]:
    """The holes of a statement that several parts can fill, with these parts."""
    found: dict[str, dict[str, None]] = {}
    for choices in combinations(name):
        for hole, part in choices.items():
            found.setdefault(hole, {})[part] = None
    return {hole: tuple(parts) for hole, parts in found.items()}


def require_plan(asked: Asked) -> None:
    """Refuse a statement that Postgres makes no plan for.

    Raises:
        ConfigurationError: It is a script, a block or a definition.
    """
    _require_known(asked.name)
    if not has_plan(asked.name):
        raise ConfigurationError(
            f"Postgres makes no plan for {asked.name}: it is a script, a block or a definition.",
            mend=f"recon sql {asked.name} prints it.",
        )


def has_plan(name: str) -> bool:
    """Whether EXPLAIN takes it."""
    return _HAS_PLAN.match(statement(name, combinations(name)[0]).text) is not None


def compose(settings: Settings, asked: Asked, tables: BillingTables | None = None) -> Printed:
    """The statement with its parts and values.

    Args:
        settings: Of whose scope, limits and seconds values are taken.
        asked: What was asked for.
        tables: What the tables decide, where they were looked at.

    Raises:
        ConfigurationError: There is no such statement, or no hole for a part that was given.
    """
    _require_known(asked.name)
    parts = _decided(asked, {**tables.parts, **tables.limit_parts} if tables is not None else {})
    values = _values(declared_binds(asked.name, parts), settings, asked, tables)
    return Printed(asked.name, parts, values, statement(asked.name, parts).text)


def explain(settings: Settings, asked: Asked) -> Printed:
    """The same as the tables of the billing database decide, with its plan.

    Raises:
        ReconError: The database cannot be reached, its tables are not as needed, or it refuses the statement.
    """
    with open_database(settings).connection() as connection:
        with begin(connection):
            tables = require_trustworthy(connection)
        printed = compose(settings, asked, tables)
        return replace(printed, plan=plan(connection, printed))


def plan(connection: Connection, printed: Printed) -> tuple[str, ...]:
    """How Postgres would run a statement, in the settings with which all of our transactions begin.

    Args:
        connection: In no transaction; what has to be there for the plan is rolled back.
        printed: What is to be planned.
    """
    with begin(connection):
        for before in header(printed.name).after:
            connection.execute(statement(before))
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

    Invariant: what is run keeps nothing, until somebody writes commit.
    """
    if printed.text.rstrip().endswith(";"):
        return as_written(printed.name).rstrip()
    written = as_written(printed.name).splitlines()
    ends = next(number for number, line in enumerate(written) if not line.startswith("--"))
    lines = written[:ends]
    lines += [f"-- Here {hole} is {part}." for hole, part in printed.parts.items()]
    lines += [f"\\set {name} {_argument(literal(value))}" for name, value in printed.values.items()]
    texts = [*(statement(before).text for before in header(printed.name).after), printed.text]
    lines += ["begin;", *(f"{one.rstrip()}\n;" for one in texts), "rollback; -- commit, to keep what it writes"]
    return "\n".join(lines)


def literal(value: Any) -> str:
    """A value as it stands in SQL; its type is what the statement around it needs."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        elements: Sequence[Any] = value
        quoted = (str(one).replace("\\", "\\\\").replace('"', '\\"') for one in elements)
        value = "{" + ",".join(f'"{one}"' for one in quoted) + "}"
    return "'" + str(value).replace("'", "''") + "'"


def _argument(value: str) -> str:
    r"""What `\set` takes as one argument."""
    if value.replace("-", "").isalnum():
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _require_known(name: str) -> None:
    known = names()
    if name in known:
        return
    if name in files():
        users = [user for user in known if f"{{{name}}}" in as_written(user) or f" {name}" in _uses(user)]
        of = f", of {', '.join(users)}" if users else ""
        raise ConfigurationError(
            f"{name} is no statement: it is a part{of}.",
            mend="recon sql lists the statements.",
        )
    near = get_close_matches(name, known, n=3)
    raise ConfigurationError(
        f"There is no statement {name}.",
        mend=f"Did you mean {' or '.join(near)}? recon sql lists them." if near else "recon sql lists them.",
    )


def _uses(name: str) -> str:
    return " ".join(["", *(part for parts in header(name).uses.values() for part in parts)])


def _decided(asked: Asked, of_tables: Mapping[str, str]) -> dict[str, str]:
    """What fills each hole that several parts can fill: what was asked for, else the tables', else the first."""
    ways = combinations(asked.name)
    there = {part for choices in ways for part in choices.values()}
    for strategy in asked.strategies:
        if strategy not in there:
            told = "; ".join(f"{hole}: {', '.join(parts)}" for hole, parts in alternatives(asked.name).items())
            raise ConfigurationError(
                f"--strategy {strategy} fills no hole of {asked.name}.",
                mend=f"Give one of these: {told}." if told else f"Leave it out: {asked.name} has one form alone.",
            )
    fitting = [choices for choices in ways if set(asked.strategies) <= set(choices.values())]
    if not fitting:
        raise ConfigurationError(
            f"{' and '.join(f'--strategy {one}' for one in asked.strategies)} do not go together in {asked.name}.",
            mend="Give one part for each hole.",
        )
    return min(fitting, key=lambda choices: sum(of_tables.get(hole, part) != part for hole, part in choices.items()))


def _values(binds: Mapping[str, str], settings: Settings, asked: Asked, tables: BillingTables | None) -> dict[str, Any]:
    usage = settings.scope[0]
    quota = settings.quotas.get(usage.usage_type)
    month = asked.month or BillingMonth.containing(datetime.now(UTC))
    customer = asked.customers[0] if asked.customers else ""
    known: dict[str, Any] = {
        "gateway_name": usage.gateway_name,
        "usage_type": usage.usage_type,
        "gateway_names": [one.gateway_name for one in settings.scope],
        "usage_types": [one.usage_type for one in settings.scope],
        "start": month.start,
        "end": month.end,
        "period_start": month.start,
        "period_end": month.end,
        "first_start": month.start,
        "last_end": month.end,
        "partition": month.key,
        "partitions": [month.key],
        "first_partition": month.key,
        "last_partition": month.key,
        "every_customer": not asked.customers,
        "customers": list(asked.customers),
        "customer": customer,
        "gateway_customer_id": customer,
        "every_key": True,
        "severity": "warn",
        "outcome": "failed",
        "mode": "full",
        "limits_known": quota is not None and (tables is None or tables.has_subscriptions),
        "limit_free": quota.free if quota else None,
        "limit_paid": quota.paid if quota else None,
        "settle_seconds": settings.settle_seconds,
        "settled_below": None,
        "recent_days": RECENT_DAYS,
        "most_keys": MOST_KEYS,
        "quantity_is_numeric": tables is not None and tables.quantity_is_numeric,
        "request_id_is_unique": tables is None or tables.request_id_is_unique,
        **dict.fromkeys(_ROW_LIMITS, SAMPLE_ROWS),
    }
    months = {"first": month.key, "last": month.key} if binds.get("first") == "text" else {}
    return {name: {**known, **months}.get(name, _of_type(its_type, month)) for name, its_type in binds.items()}


def _of_type(its_type: str, month: BillingMonth) -> Any:
    if its_type.endswith("[]"):
        return []
    return month.start if its_type == "timestamptz" else _BY_TYPE[its_type]
