"""The demo's SQL, which lies beside the product's in files named `demo_*.sql`, as psycopg takes it."""

from recon_pipeline.store.statements import source


def statement(name: str) -> bytes:
    """The text of `sql/demo_<name>.sql`, with psycopg's named parameters."""
    return source(f"demo_{name}").encode()
