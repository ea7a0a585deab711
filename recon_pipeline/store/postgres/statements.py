"""Loads the statements that lie beside the modules, and gives every statement its name on the server.

Values are bound parameters; what is put into a text is another file, or a fragment of a line or two. The text that is
sent begins with the statement's name, so that `pg_stat_activity` and the server's log tell which one it is.
"""

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from sqlalchemy import TextClause, text

STORE = "recon_pipeline.store"
"""The package whose rooms hold the product's statements."""

Part = str | TextClause
"""The name of a file, or a fragment itself."""


@cache
def statement(name: str, *, package: str = STORE, **parts: Part) -> TextClause:
    """The statement `<name>.sql`.

    Args:
        name: File name without ending.
        package: Where it lies, in the package itself or in one below it.
        parts: For each `{placeholder}` in the statement, what stands there; it may have placeholders too.
    """
    body = source(name, package)
    while used := [placeholder for placeholder in parts if "{" + placeholder + "}" in body]:
        for placeholder in used:
            part = parts[placeholder]
            body = body.replace("{" + placeholder + "}", source(part) if isinstance(part, str) else part.text)
    return labelled(name, body)


def labelled(name: str, body: str) -> TextClause:
    """A statement whose text begins with its name; short ones stand beside their only caller."""
    return text(f"/* recon:{name} */ {body}")


def source(name: str, package: str = STORE) -> str:
    """The text of `<name>.sql` without its comment lines."""
    return "\n".join(line for line in as_written(name, package).splitlines() if not line.lstrip().startswith("--"))


def as_written(name: str, package: str = STORE) -> str:
    """The text of `<name>.sql`, for a person."""
    return files(package)[name].read_text(encoding="utf-8")


@cache
def files(package: str = STORE) -> dict[str, Traversable]:
    """The statements of a package and of those below it, by name.

    Raises:
        ValueError: Two have one name.
    """
    folders = [resources.files(package)]
    found: dict[str, Traversable] = {}
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(".sql"):
                name = entry.name.removesuffix(".sql")
                if name in found:
                    raise ValueError(f"two statements are called {name}")
                found[name] = entry
    return found
