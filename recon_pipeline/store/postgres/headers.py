"""Reads what the comments at the beginning of a statement's file declare.

`-- Uses: countable_events = countable_events | countable_events_deduplicated, in_extent` says which files may fill a
hole. A hole that only the file of its own name fills is written as a bare name. `hole = *` leaves the choice to the
statement around a part, which declares it. `-- Binds: start timestamptz` names the values of the file itself, not those
of its parts. `-- After: create_staged_events` names what the same transaction has to have run before. Knows nothing of
SQL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

ANY = "*"
"""Alternatives that the statement around a part declares."""

_Value = TypeVar("_Value")

_DECLARATION = re.compile(r"-- (Invariant|Index|Uses|Binds|After): (.*)")
_SENTENCE = re.compile(r".*?\.(?=\s+[A-Z]|$)")


class StatementError(ValueError):
    """A statement's file does not declare what it needs, or is given what it does not declare."""


@dataclass(frozen=True)
class Header:
    """What a file declares.

    Attributes:
        summary: Its first sentence.
        is_part: It is no statement by itself.
        uses: The files that may fill each of its holes.
        binds: The type of each of its values, as Postgres names it.
        after: Statements that have to have run before in the same transaction.
    """

    summary: str
    is_part: bool
    uses: Mapping[str, tuple[str, ...]]
    binds: Mapping[str, str]
    after: tuple[str, ...]


def parse(name: str, written: str) -> Header:
    """The header of a file.

    Raises:
        StatementError: A declaration cannot be read, or says the same twice.
    """
    sentences: list[str] = []
    declared: dict[str, list[str]] = {"Uses": [], "Binds": [], "After": [], "Invariant": [], "Index": []}
    for line in written.splitlines():
        if not line.startswith("--"):
            break
        declaration = _DECLARATION.fullmatch(line)
        if declaration is not None:
            declared[declaration[1]] += [one.strip(" .") for one in declaration[2].split(",")]
        elif not any(declared.values()):
            sentences.append(line.removeprefix("--").strip())
    text = " ".join(sentences)
    sentence = _SENTENCE.match(text)
    return Header(
        summary=sentence[0] if sentence else text,
        is_part=text.startswith("Part of "),
        uses=_by_name(name, "Uses", [_alternatives(name, one) for one in declared["Uses"]]),
        binds=_by_name(name, "Binds", [_bind(name, one) for one in declared["Binds"]]),
        after=tuple(declared["After"]),
    )


def _alternatives(name: str, declaration: str) -> tuple[str, tuple[str, ...]]:
    match = re.fullmatch(r"([a-z_]+)(?: = ([a-z_]+(?: \| [a-z_]+)*|\*))?", declaration)
    if match is None:
        raise StatementError(f"{name}.sql uses {declaration!r}, which is not of the form `hole = part | part`")
    return match[1], tuple((match[2] or match[1]).split(" | "))


def _bind(name: str, declaration: str) -> tuple[str, str]:
    bind, _, its_type = declaration.partition(" ")
    if not bind.isidentifier() or not its_type:
        raise StatementError(f"{name}.sql binds {declaration!r}, which is not of the form `name type`")
    return bind, its_type


def _by_name(name: str, kind: str, pairs: list[tuple[str, _Value]]) -> dict[str, _Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise StatementError(f"{name}.sql names something twice in {kind}")
    return found
