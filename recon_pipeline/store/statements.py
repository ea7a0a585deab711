"""Loads the statements in `sql/`, and gives every statement its name on the server.

Values are bound parameters; what is put into a text is another file of `sql/`, or a fragment of a line or two. The text
that is sent begins with the statement's name, so that `pg_stat_activity` and the server's log tell which one it is.
"""

from functools import cache
from importlib import resources

from sqlalchemy import TextClause, text

Part = str | TextClause
"""The name of a file in `sql/`, or a fragment itself."""


@cache
def statement(name: str, **parts: Part) -> TextClause:
    """The statement `sql/<name>.sql`.

    Args:
        name: File name without ending.
        parts: For each `{placeholder}` in the statement, what stands there; it may have placeholders too.
    """
    body = source(name)
    while used := [placeholder for placeholder in parts if "{" + placeholder + "}" in body]:
        for placeholder in used:
            part = parts[placeholder]
            body = body.replace("{" + placeholder + "}", source(part) if isinstance(part, str) else part.text)
    return labelled(name, body)


def labelled(name: str, body: str) -> TextClause:
    """A statement whose text begins with its name; short ones stand beside their only caller."""
    return text(f"/* recon:{name} */ {body}")


def source(name: str) -> str:
    """The text of `sql/<name>.sql` without its comment lines."""
    lines = (resources.files("recon_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))
