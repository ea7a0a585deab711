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
        parts: For each `{placeholder}` in the statement, the name of the file that stands there; a file that stands
            somewhere may have placeholders too.
    """
    body = source(name)
    while used := [placeholder for placeholder in parts if "{" + placeholder + "}" in body]:
        for placeholder in used:
            body = body.replace("{" + placeholder + "}", source(parts[placeholder]))
    return text(body)


def source(name: str) -> str:
    """The text of `sql/<name>.sql` without its comment lines."""
    lines = (resources.files("recon_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))
