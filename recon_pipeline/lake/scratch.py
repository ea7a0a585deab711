"""Folders for what does not fit into memory, in the folder that TMPDIR names.

Invariant: a folder is locked for as long as its process lives, so that the next one can tell, and deletes what a killed
process left.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from recon_pipeline.core.errors import ConfigurationError

_PREFIX = "recon-scratch-"
_YOUNG_SECONDS = 60
"""A folder is locked soon after it is made."""


@contextmanager
def scratch_folder() -> Generator[Path]:
    """An empty folder, deleted at the end; before, those of processes that were killed are deleted.

    Raises:
        ConfigurationError: None can be made.
    """
    try:
        _delete_abandoned()
        made = tempfile.TemporaryDirectory(prefix=_PREFIX)
    except OSError as error:
        raise ConfigurationError(
            f"There is no folder for temporary files: {error.strerror}.",
            fix="Let TMPDIR name a folder that has room and that this account may write; then run the command again.",
        ) from error
    with made as folder, _opened(Path(folder)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield Path(folder)


def _delete_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another process may delete it at this moment, or own it.
        with suppress(OSError), _opened(folder) as descriptor:
            found = os.fstat(descriptor)
            if found.st_uid == os.geteuid() and found.st_mtime < time.time() - _YOUNG_SECONDS:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
