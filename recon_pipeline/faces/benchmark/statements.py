"""The benchmark's statements, which lie beside it."""

from sqlalchemy import TextClause

from recon_pipeline.store.postgres import statements


def statement(name: str) -> TextClause:
    """The statement `<name>.sql`."""
    return statements.statement(name, package=__package__ or "")
