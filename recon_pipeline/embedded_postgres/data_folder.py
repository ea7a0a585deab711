"""The data folder of an embedded server: prepared, or refused with what to do."""

import os
import pwd
from pathlib import Path

from recon_pipeline.embedded_postgres.binaries import ROOTS_ACCOUNT, USE_YOUR_OWN, open_to_all
from recon_pipeline.embedded_postgres.cluster import EmbeddedPostgresError


def refuse_unusable(folder: Path, major: int) -> None:
    """Refuse a folder of another account or another version, and one that is not a data folder.

    Raises:
        EmbeddedPostgresError: With what to do.
    """
    version = folder / "PG_VERSION"
    try:
        found = version.read_text().strip() if version.exists() else None
        foreign = found is None and folder.exists() and any(folder.iterdir())
    except PermissionError:
        owner = pwd.getpwuid(folder.stat().st_uid).pw_name
        raise EmbeddedPostgresError(
            f"The Postgres data folder {folder} belongs to the account {owner} and is closed to ours.",
            fix=f"Run this as the account that ran it first, or move {folder} away, {USE_YOUR_OWN}.",
        ) from None
    if foreign:
        raise EmbeddedPostgresError(
            f"{folder} contains files but is not a Postgres data folder.",
            fix=f"Move its content to another folder, {USE_YOUR_OWN}.",
        )
    if found is not None and found != str(major):
        raise EmbeddedPostgresError(
            f"The data folder {folder} was created by Postgres {found}; Postgres {major} cannot read it.",
            fix=f"Dump it with Postgres {found} if you need its data, then move it away to begin with an "
            f"empty one, {USE_YOUR_OWN}.",
        )


def prepare_parent(folder: Path) -> None:
    """Create the folders above it, so that the account that runs Postgres can enter them.

    Raises:
        EmbeddedPostgresError: They cannot be created, or that account cannot enter them.
    """
    try:
        missing = [parent for parent in folder.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            if os.geteuid() == 0:  # against a strict umask: the server's account must pass through
                parent.chmod(0o755)
        folder.parent.mkdir(exist_ok=True)  # fails if a file is in its place
    except OSError as error:
        raise not_writable(folder, error) from error
    if os.geteuid() == 0 and not open_to_all(folder.parent):
        raise EmbeddedPostgresError(
            f"The account {ROOTS_ACCOUNT}, which runs Postgres for root, cannot enter {folder.parent}.",
            fix=f"Choose a folder whose parents others may enter, {USE_YOUR_OWN}.",
        )


def not_writable(folder: Path, error: OSError) -> EmbeddedPostgresError:
    """The error if the folder, or a file beside it, cannot be written."""
    return EmbeddedPostgresError(
        f"The embedded Postgres cannot keep its data in {folder}: {error.strerror} ({error.filename}).",
        fix=f"Make {folder.parent} writable for the account that runs this, {USE_YOUR_OWN}.",
    )
