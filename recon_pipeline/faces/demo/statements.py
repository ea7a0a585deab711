"""The demo's statements, which lie beside it, as psycopg takes them."""

from recon_pipeline.store.postgres.statements import source


def statement(name: str) -> bytes:
    """The text of `<name>.sql`, with psycopg's named parameters."""
    return source(name, __package__ or "").encode()
