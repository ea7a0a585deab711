"""Temporary files of DuckDB and of archives, which may be larger than the disk has room for twice."""

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recon_pipeline.lake.scratch import scratch_folder

OPENED = {
    "a folder": "from recon_pipeline.lake.scratch import scratch_folder as opened",
    "DuckDB for a lake": "from recon_pipeline.lake.duckdb_engine import duckdb_engine as opened",
    "DuckDB for an archive": "from recon_pipeline.lake.session import duckdb_session as opened",
}
WAITING = "; import time\nwith opened():\n    print('open', flush=True)\n    time.sleep(600)"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


@contextmanager
def another_process(opened: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", opened + WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def make_old(folder: Path) -> None:
    (folder / "spilled.tmp").write_bytes(b"0" * 1_000)
    an_hour_ago = time.time() - 3_600
    os.utime(folder, (an_hour_ago, an_hour_ago))


@pytest.mark.parametrize("what", OPENED)
def test_what_a_killed_process_left_is_deleted_by_the_next_one(what: str, temporary: Path) -> None:
    with another_process(OPENED[what]):
        (left,) = temporary.iterdir()
    make_old(left)

    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]

    assert list(temporary.iterdir()) == []


def test_the_files_of_a_process_that_works_stay_however_old_they_are(temporary: Path) -> None:
    with another_process(OPENED["a folder"]):
        (used,) = temporary.iterdir()
        make_old(used)

        with scratch_folder():
            assert (used / "spilled.tmp").exists()


def test_a_folder_that_is_being_made_is_not_deleted_before_it_is_locked(temporary: Path) -> None:
    (temporary / "recon-scratch-new").mkdir()

    with scratch_folder():
        assert (temporary / "recon-scratch-new").exists()


def test_nothing_is_deleted_through_a_link(temporary: Path) -> None:
    kept = temporary / "kept"
    kept.mkdir()
    make_old(kept)
    (temporary / "recon-scratch-link").symlink_to(kept)

    with scratch_folder():
        assert (kept / "spilled.tmp").exists()
