"""Every statement of the store by its name, whether it is a file or stands in a module: for `recon sql`.

Invariant: one that stands in a module is a constant `NAME = labelled("name", "text")`, below comment lines that are
written as a file's header is. Modules are read as text and not imported: no room is needed to name a statement.
"""

import re
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import takewhile
from pathlib import Path

from sqlalchemy import TextClause

from recon_pipeline.store.postgres import statements
from recon_pipeline.store.postgres.headers import Header, parse
from recon_pipeline.store.postgres.statements import STORE, Part, files, labelled

_CONSTANT = re.compile(
    r"""
    (?P<comment>(?:^\#[^\n]*\n)*)
    ^\w+\ =\ labelled\(\s*"(?P<name>\w+)",\s*(?P<text>"{3}.*?"{3}|"[^"\n]*"),?\s*\)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Inline:
    """A statement that stands in a module.

    Attributes:
        room: The folder of the module.
        comment: The lines above it, as SQL.
        clause: What is sent.
    """

    room: str
    comment: str
    clause: TextClause


@cache
def inline_statements() -> dict[str, Inline]:
    """The statements that stand in modules, by name."""
    found: dict[str, Inline] = {}
    for module in Path(str(resources.files(STORE))).rglob("*.py"):
        for constant in _CONSTANT.finditer(module.read_text(encoding="utf-8")):
            name, comment = constant["name"], re.sub("^#", "--", constant["comment"], flags=re.MULTILINE)
            found[name] = Inline(module.parent.name, comment, labelled(name, literal_eval(constant["text"])))
    return found


def names() -> tuple[str, ...]:
    """All statements by room, without the parts that they are made of."""
    of_files = (name for name in files() if not statements.header(name).is_part)
    return tuple(sorted([*of_files, *inline_statements()], key=lambda name: (room(name), name)))


def room(name: str) -> str:
    """The folder of a statement's file or module."""
    inline = inline_statements().get(name)
    return inline.room if inline else statements.room(name)


def comment(name: str) -> list[str]:
    """The comment lines that a statement begins with."""
    inline = inline_statements().get(name)
    written = inline.comment if inline else statements.as_written(name)
    return [*takewhile(lambda line: line.startswith("--"), written.splitlines())]


def header(name: str) -> Header:
    """What the comment lines declare."""
    inline = inline_statements().get(name)
    return parse(name, inline.comment) if inline else statements.header(name)


def combinations(name: str) -> tuple[dict[str, Part], ...]:
    """Every way in which the holes of a statement may be filled; one that is empty where there is no choice."""
    return ({},) if name in inline_statements() else statements.combinations(name)


def declared_binds(name: str, parts: Mapping[str, Part]) -> dict[str, str]:
    """The type of each of a statement's values, in alphabetical order."""
    if name not in inline_statements():
        return statements.declared_binds(name, parts)
    found = dict(header(name).binds)
    for condition in header(name).uses:
        found |= statements.declared_binds(condition)
    return dict(sorted(found.items()))


def statement(name: str, parts: Mapping[str, Part]) -> TextClause:
    """What is sent."""
    inline = inline_statements().get(name)
    return inline.clause if inline else statements.statement(name, parts)
