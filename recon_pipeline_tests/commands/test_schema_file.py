"""`store/schema.sql` is what a reader takes for the schema: so it is what the migrations make, to the last comment."""

import subprocess
from importlib import resources

from recon_pipeline.store.postgres.statements import SCHEMA
from recon_pipeline_tests.commands.conftest import OwnServer, migrate


def dumped(server: OwnServer, url: str) -> list[str]:
    """All that pg_dump says of schema recon, from columns and constraints to functions and comments."""
    pg_dump = [str(server.cluster.binaries / "pg_dump"), "--schema-only", "--schema=recon", "--no-owner", url]
    lines = subprocess.run(pg_dump, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return [line for line in lines if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))]


def test_the_schema_that_is_read_is_the_one_that_the_migrations_make(own_server: OwnServer) -> None:
    migrated, read = own_server.create_database("migrated", migrate), own_server.create_database("read")
    own_server.psql(read, resources.files("recon_pipeline.store").joinpath(SCHEMA).read_text(encoding="utf-8"))
    made = dumped(own_server, migrated)
    assert sum(line.startswith("CREATE TABLE") for line in made) == 32
    assert dumped(own_server, read) == made
