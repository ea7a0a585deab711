"""The demo's statements, which lie beside it, as psycopg takes them."""

from recon_pipeline.store.postgres.statements import source, with_name


def statement(name: str) -> bytes:
    """The text of `<name>.sql`, with psycopg's named parameters and its name on the server."""
    return with_name(name, source(name, __package__ or "")).encode()
