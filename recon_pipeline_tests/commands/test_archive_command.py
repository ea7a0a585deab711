"""`recon archive`: a sealed month as files, on a disk and on S3, under kills and a store that fails."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.config import Config
from fsspec.implementations.local import LocalFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from recon_pipeline.definitions import defs
from recon_pipeline.lake import archive_files
from recon_pipeline.lake.folders import Folder
from recon_pipeline.lake.manifest import Manifest
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(3)
ONE = CUSTOMERS[0]
MAY = ("--period", "2025-05")
IN_MAY = "period_start < '2025-06-01 00:00Z'"
KILLED = """
import os, signal, sys
from recon_pipeline.lake import archive_files
from recon_pipeline.faces.cli import main
write = archive_files.pq.ParquetWriter.write_batch
def killed(*args, **kwargs):
    write(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
archive_files.pq.ParquetWriter.write_batch = killed
main(sys.argv[1:])
"""


@pytest.fixture
def sealed(billing: Billing) -> Billing:
    """Three customers used 10 in May, which is sealed."""
    for customer in CUSTOMERS:
        billing.record(customer, 10)
    assert run_assets().record.outcome == "clean"
    assert recon("seal", *MAY).exit_code == 0
    return billing


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of an S3 on loopback, which the environment names."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # of another test's server
    service: Any = boto3.resource("s3", config=Config(retries={"max_attempts": 0}))
    found = service.Bucket("events")
    found.create()
    try:
        yield found
    finally:
        found.objects.all().delete()  # of all servers of a process there is one memory
        server.stop()


def test_a_month_is_archived_and_says_which_statement_lets_its_events_leave(sealed: Billing, tmp_path: Path) -> None:
    done = recon("archive", *MAY, "--to", str(tmp_path))
    assert (done.exit_code, done.err) == (0, "")
    first, folder, nothing, statement = done.out.splitlines()
    assert first.startswith("Archived 2025-05 of stripe:remote_commands: 3 events in 1 files, ")
    assert first.endswith(" bytes, read back as sealed.")
    assert Path(folder.removeprefix("Folder ")).joinpath("manifest.json").exists()
    assert nothing == "Nothing was deleted. The events may leave the log now; as its owner, run:"
    assert sealed.value(f"select count(*) from billing_usage_events where {IN_MAY}") == 3
    sealed.query(statement)
    assert sealed.value(f"select count(*) from billing_usage_events where {IN_MAY}") == 0
    assert recon("reconcile", *MAY).exit_code == 0
    assert recon("verify-seals").out == (
        "All 1 seals fit: chain, sums and checksums; the events of the 1 archived are in their files.\n"
        f"Newest chain: {recon('verify-seals', '--json').json['head']}\n"
    )
    assert recon("corrections", *MAY).out == (
        "What was sealed is exactly what is there now: nothing is to be corrected.\n"
    )
    again = recon("archive", *MAY, "--to", str(tmp_path))
    assert again.exit_code == 1
    assert f"2025-05 of stripe:remote_commands is archived already, in {tmp_path}/month=2025-05/" in again.said
    assert "recon verify-seals proves that archive" in again.said
    (file,) = tmp_path.rglob("*.parquet")
    file.unlink()
    missing = recon("verify-seals", "--json")
    assert (missing.exit_code, missing.json["misfit"]) == (1, f"{file} is missing.")


def test_refusals_say_what_to_do(sealed: Billing, tmp_path: Path) -> None:
    refused = recon("archive", "--period", "2025-06", "--to", str(tmp_path), "--json")
    assert refused.exit_code == 1
    assert refused.json["error"] == "2025-06 of stripe:remote_commands is not sealed, so it cannot be archived."
    assert refused.json["changed"] == "No event was deleted, no archive was recorded. No counter was changed."
    assert refused.json["what_to_do"] == "recon seal --period 2025-06, then archive it again."
    file = tmp_path / "a file"
    file.write_text("")
    assert f"{file}/month=2025-05" in recon("archive", *MAY, "--to", str(file)).said
    password = recon("archive", *MAY, "--to", "s3://user:secret@bucket/events")
    assert (password.exit_code, "holds a password" in password.said, "secret" in password.said) == (2, True, False)
    assert sealed.query("select * from recon.archived_month") == []


@pytest.mark.parametrize("module", ["duckdb", "adbc_driver_postgresql"])
def test_without_the_extra_nothing_is_written_and_the_error_names_it(
    sealed: Billing, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    refused = recon("archive", *MAY, "--to", str(tmp_path))
    assert refused.exit_code == 2
    assert "Archives need packages that are not installed: " in refused.said
    assert "uv pip install 'recon-pipeline[lake]'." in refused.said
    assert [*tmp_path.rglob("*.*")] == []


def test_a_killed_archive_leaves_nothing_that_looks_whole_and_the_next_one_writes_beside_it(
    sealed: Billing, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, "archive", *MAY, "--to", str(tmp_path)]
    killed = subprocess.run(command, env=os.environ | {"DATABASE_URL": sealed.url}, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.rglob("*.parquet")
    assert [*tmp_path.rglob("manifest.json*")] == sealed.query("select * from recon.archived_month") == []
    assert recon("archive", *MAY, "--to", str(tmp_path)).exit_code == 0
    (manifest,) = tmp_path.rglob("manifest.json")
    assert sealed.query("select folder from recon.archived_month") == [(str(manifest.parent),)]
    assert manifest.parent != left.parent
    assert left.exists(), "it could be one that is being written"


def test_a_disk_that_is_full_when_the_manifest_is_written_gets_its_room_back(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "mv", full)
        refused = recon("archive", *MAY, "--to", str(tmp_path))
    assert (refused.exit_code, "manifest.json cannot be written: OSError: [Errno 28] No space" in refused.said) == (
        1,
        True,
    )
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []
    assert recon("archive", *MAY, "--to", str(tmp_path)).exit_code == 0


def test_a_target_that_vanishes_before_the_manifest_is_written_is_not_made_again_without_the_files(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "unmounted"

    def gone(folder: Folder, manifest: Manifest) -> str:
        shutil.rmtree(to)
        return archive_files.write_manifest(folder, manifest)

    monkeypatch.setattr("recon_pipeline.assets.archiving.write_manifest", gone)
    refused = recon("archive", *MAY, "--to", str(to))
    assert (refused.exit_code, "manifest.json cannot be written: FileNotFoundError" in refused.said) == (1, True)
    assert sealed.query("select * from recon.archived_month") == []
    assert not to.exists()


@pytest.mark.parametrize("how", ["is missing", "was changed"])
def test_a_file_that_does_not_stay_until_it_is_read_back_is_no_lost_archive(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def changed(folder: Folder, batches: Any) -> Any:
        written = archive_files.write_files(folder, batches)
        (file,) = tmp_path.rglob("*.parquet")
        if how == "is missing":
            file.unlink()
        else:
            file.write_bytes(b"")
        return written

    monkeypatch.setattr("recon_pipeline.assets.archiving.write_files", changed)
    refused = recon("archive", *MAY, "--to", str(tmp_path), "--json")
    assert refused.json["error"].startswith(f"What was written did not stay: {tmp_path}/month=2025-05/")
    assert how in refused.json["error"]
    assert refused.json["changed"] == "No event was deleted, no archive was recorded. No counter was changed."
    assert refused.json["what_to_do"] == (
        "Find out what deletes or changes files there, then archive the month again; the log has its events."
    )


def test_a_copy_for_which_there_is_no_room_here_is_no_fault_of_the_store(
    sealed: Billing, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recon("archive", *MAY, "--to", "s3://events/log").exit_code == 0

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(S3FileSystem.current(), "get_file", full)
    for refused in (recon("verify-seals"), recon("archive", *MAY, "--to", "s3://events/log")):
        assert refused.exit_code == 1
        assert (
            f"/part-00000.parquet cannot be read: {tmp_path} has no room for a copy of it (No space left on device)."
        ) in refused.said
        assert "What to do: Free space there, or let TMPDIR name another folder; " in refused.said
    assert len(list(bucket.objects.all())) == 2, "the first archive alone"


def test_without_a_folder_for_temporary_files_the_error_says_so(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "not there")])
    refused = recon("archive", *MAY, "--to", str(tmp_path))
    assert (refused.exit_code, "There is no folder for temporary files: " in refused.said) == (2, True)
    assert "What to do: Let TMPDIR name a folder that has room" in refused.said


def test_a_month_is_archived_to_s3_and_read_back_from_there(sealed: Billing, bucket: Any) -> None:
    done = recon("archive", *MAY, "--to", "s3://events/log", "--json").json
    (one,) = done["archived"]
    assert one["folder"].startswith("s3://events/log/month=2025-05/gateway=stripe/usage=remote_commands/seal-")
    names = sorted(file.key.rpartition("/")[2] for file in bucket.objects.all())
    assert names == ["manifest.json", "part-00000.parquet"]
    sealed.query(done["statements"][0])
    assert recon("verify-seals").exit_code == 0
    for file in bucket.objects.filter(Prefix="log"):
        if file.key.endswith(".parquet"):
            file.delete()
            assert recon("verify-seals", "--json").json["misfit"] == f"s3://{bucket.name}/{file.key} is missing."
    assert sealed.counters() == dict.fromkeys(CUSTOMERS, 10)


def test_a_bucket_that_is_not_there_is_not_made_and_nothing_is_recorded(sealed: Billing, bucket: Any) -> None:
    refused = recon("archive", *MAY, "--to", "s3://elsewhere/log")
    assert (refused.exit_code, "s3://elsewhere/log/month=2025-05" in refused.said) == (1, True)
    assert " cannot be written: " in refused.said
    assert "What to do: Check that the folder or bucket is there and has room, and " in refused.said
    assert sealed.query("select * from recon.archived_month") == []


def test_files_are_of_bounded_size(sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon_pipeline.store.archive.export._BATCH_BYTES", 1)
    monkeypatch.setattr(archive_files, "FILE_BYTES", 1)
    (done,) = archive(sealed, tmp_path).months
    assert (done.archive.file_count, done.archive.row_count) == (3, 3)


def test_the_asset_archives_a_sealed_month_to_the_target_of_its_config(sealed: Billing, tmp_path: Path) -> None:
    job = defs.resolve_job_def("archive_months")
    config = {"ops": {"archived_events": {"config": {"to": str(tmp_path)}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(
            instance=instance, partition_key="2025-05", run_config=config, tags={"user": "ada"}, raise_on_error=False
        )
    assert done.success
    (event,) = done.get_asset_materialization_events()
    assert event.partition == "2025-05"
    assert sealed.query("select archived_by, run_id, row_count from recon.archived_month") == [("ada", done.run_id, 3)]


def test_without_a_target_the_asset_archives_nothing_and_fails_no_run_of_all_assets(sealed: Billing) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def("archive_months").execute_in_process(instance=instance, partition_key="2025-05")
    assert (done.success, done.get_asset_materialization_events()) == (True, [])
    (observed,) = done.get_asset_observation_events()
    assert "Nothing was archived, since no target is named" in str(observed.event_specific_data)
    assert sealed.query("select * from recon.archived_month") == []
