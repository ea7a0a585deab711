"""Loads the statements that lie beside the modules, and gives every statement its name on the server.

Values are bound parameters; what is put into a text is another file. A file declares its holes, the parts that may fill
each, and its values (see `headers`): a hole that nothing fills, and a part that fits no hole or is not declared, are
errors. The text that is sent begins with the statement's name, so that `pg_stat_activity`, the server's log and our own
errors show which one it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import TextClause, text

from recon_pipeline.store.postgres.headers import ANY, Header, StatementError, parse

STORE = "recon_pipeline.store"
"""The package whose rooms hold the product's statements."""

SCHEMA = "schema.sql"
"""Schema recon as it is, for a reader: no statement."""

Part = str
"""The name of a file that fills a hole."""

_NOTHING: Mapping[str, Part] = MappingProxyType({})
_HOLE = re.compile(r"\{([a-z_]+)\}")
_OUTSIDE_OF_CODE = re.compile(r"--[^\n]*|'(?:[^']|'')*'")
_NAME = re.compile(r"/\* recon:(\w+) \*/")


class UndecidedError(StatementError):
    """A hole may be filled by one of several parts, and the caller does not say by which.

    Args:
        name: The file that has the hole.
        hole: Which one.
        alternatives: What may fill it.
    """

    def __init__(self, name: str, hole: str, alternatives: tuple[Part, ...]) -> None:
        super().__init__(f"{name}.sql: nothing is given for {hole}; it is one of {', '.join(alternatives)}")
        self.hole = hole
        self.alternatives = alternatives


@dataclass
class Composition:
    """A statement with its holes filled.

    Attributes:
        package: Of its files.
        given: For a hole the part that fills it, where there are several.
        filled: The part that fills each hole.
        used: The files that it is made of, itself the first.
    """

    package: str
    given: Mapping[str, Part]
    filled: dict[str, Part] = field(default_factory=dict[str, Part])
    used: list[str] = field(default_factory=list[str])

    def body(self, name: str, narrowed: Mapping[str, tuple[Part, ...]] | None = None) -> str:
        """The text of a file and of what fills its holes.

        Args:
            name: The file.
            narrowed: What those around it let fill a hole.

        Raises:
            StatementError: Text, header and what is given do not fit.
        """
        self.used.append(name)
        declared = header(name, self.package).uses
        allowed = {**declared, **(narrowed or {})}

        def fill(hole: re.Match[str]) -> str:
            part = self.filled[hole[1]] = self._part(name, hole[1], declared, allowed)
            return self.body(part, allowed)

        body = _HOLE.sub(fill, source(name, self.package))
        without = [hole for hole in declared if hole not in self.filled]
        if without:
            raise StatementError(f"{name}.sql declares {', '.join(without)}, and there is no such hole")
        return body

    def _part(
        self, name: str, hole: str, declared: Mapping[str, tuple[Part, ...]], allowed: Mapping[str, tuple[Part, ...]]
    ) -> Part:
        if hole not in declared:
            raise StatementError(f"{name}.sql has a hole {hole} that its header does not declare under Uses")
        alternatives = allowed[hole]
        if ANY in alternatives:
            raise StatementError(f"{name}.sql: the statement around it does not declare what may fill {hole}")
        if ANY not in declared[hole] and not set(alternatives) <= set(declared[hole]):
            raise StatementError(
                f"{name}.sql: {hole} is one of {', '.join(declared[hole])}; "
                f"a statement around it declares {', '.join(alternatives)}"
            )
        if hole not in self.given and len(alternatives) != 1:
            raise UndecidedError(name, hole, alternatives)
        part = self.given.get(hole, alternatives[0])
        if part not in alternatives:
            raise StatementError(f"{name}.sql: {part} does not fill {hole}; it is one of {', '.join(alternatives)}")
        return part


def statement(
    name: str, choices: Mapping[str, Part] = _NOTHING, /, *, package: str = STORE, **parts: Part
) -> TextClause:
    """The statement `<name>.sql`.

    Args:
        name: File name without ending.
        choices: What fills a hole in every statement that has it: what the tables decide. Others are not looked at.
        package: Where it lies, in the package itself or in one below it.
        parts: What fills a hole of this statement, where its header declares several.

    Raises:
        StatementError: A hole is not declared or nothing fills it, or a part is given that is not declared for it or
            that no hole takes.
    """
    return composed(name, package, frozenset(choices.items()), frozenset(parts.items()))


@cache
def composed(
    name: str, package: str, choices: frozenset[tuple[str, Part]], parts: frozenset[tuple[str, Part]]
) -> TextClause:
    """What `statement` gives, made once."""
    composition = Composition(package, {**dict(choices), **dict(parts)})
    body = composition.body(name)
    without = [f"{hole}={part}" for hole, part in parts if hole not in composition.filled]
    if without:
        raise StatementError(f"{name}.sql is given {', '.join(without)}, and there is no such hole")
    left = re.search(r"\S*[{}]\S*", _OUTSIDE_OF_CODE.sub("", body))
    if left is not None:
        raise StatementError(f"{name}.sql has a brace that is no hole: {left[0]}")
    return text(with_name(name, body))


def combinations(name: str, *, package: str = STORE) -> tuple[dict[str, Part], ...]:
    """Every way in which the holes of a statement may be filled; one that is empty where there is no choice.

    Raises:
        StatementError: Text and header do not fit.
    """
    found: list[dict[str, Part]] = []
    undecided: list[dict[str, Part]] = [{}]
    while undecided:
        given = undecided.pop(0)
        try:
            Composition(package, given).body(name)
        except UndecidedError as error:
            undecided += [{**given, error.hole: part} for part in error.alternatives]
        else:
            found.append(given)
    return tuple(found)


def declared_binds(name: str, choices: Mapping[str, Part] = _NOTHING) -> dict[str, str]:
    """The type of each value of a composed statement, in alphabetical order.

    Raises:
        StatementError: Its files declare two types for one value.
    """
    composition = Composition(STORE, choices)
    composition.body(name)
    found: dict[str, str] = {}
    for used in dict.fromkeys(composition.used):
        for bind, its_type in header(used).binds.items():
            if found.setdefault(bind, its_type) != its_type:
                raise StatementError(f"{name}.sql binds {bind} as {found[bind]}, and as {its_type} in {used}.sql")
    return dict(sorted(found.items()))


def labelled(name: str, body: str) -> TextClause:
    """A statement whose text begins with its name, of a few lines, which stand in the module that sends it.

    Each hole is filled by the file of its name: a condition, which leaves nothing to choose.
    """
    return text(with_name(name, _HOLE.sub(lambda hole: Composition(STORE, {}).body(hole[1]), body)))


def with_name(name: str, body: str) -> str:
    """A text that begins with the statement's name."""
    return f"/* recon:{name} */ {body}"


def name_of(sent: str) -> str | None:
    """The name of the statement with which a text begins, or None."""
    found = _NAME.search(sent[:200])
    return found[1] if found else None


def source(name: str, package: str = STORE) -> str:
    """The text of `<name>.sql` without its comment lines."""
    return "\n".join(line for line in as_written(name, package).splitlines() if not line.lstrip().startswith("--"))


def as_written(name: str, package: str = STORE) -> str:
    """The text of `<name>.sql`, for a person."""
    return files(package)[name].read_text(encoding="utf-8")


def room(name: str) -> str:
    """The folder in which `<name>.sql` lies."""
    return Path(str(files()[name])).parent.name


@cache
def header(name: str, package: str = STORE) -> Header:
    """What `<name>.sql` says of itself.

    Raises:
        StatementError: There is no such file, or its header cannot be read.
    """
    if name not in files(package):
        raise StatementError(f"there is no {name}.sql in {package}")
    return parse(name, as_written(name, package))


@cache
def files(package: str = STORE) -> dict[str, Traversable]:
    """The statements of a package and of those below it, by name.

    Raises:
        StatementError: Two have one name.
    """
    folders = [resources.files(package)]
    found: dict[str, Traversable] = {}
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(".sql") and entry.name != SCHEMA:
                name = entry.name.removesuffix(".sql")
                if name in found:
                    raise StatementError(f"two statements are called {name}")
                found[name] = entry
    return found
