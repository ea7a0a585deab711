"""Loads the statements in `sql/`.

Values are bound parameters; the one thing ever put into a text is another file of `sql/`.
"""

from functools import cache
from importlib import resources

from sqlalchemy import TextClause, text


@cache
def statement(name: str, **parts: str) -> TextClause:
    """The statement `sql/<name>.sql`.

    Args:
        name: File name without ending.
        parts: For each `{placeholder}` in the statement, the name of the file that stands there.
    """
    body = source(name)
    for placeholder, part in parts.items():
        body = body.replace("{" + placeholder + "}", source(part))
    return text(body)


def source(name: str) -> str:
    """The text of `sql/<name>.sql` without its comment lines."""
    lines = (resources.files("recon_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))
