"""Nothing of a source is passed over: each file is read, or named with why not, whatever its name says."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from recon_pipeline.core.backfill.columns import Unreadable
from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources import failures
from recon_pipeline.sources import rows as reading
from recon_pipeline.sources.finding import Unread
from recon_pipeline.sources.rows import read_files

EXPORTS = Path(__file__).parent / "exports"
HEADER = "customer,request,units,at\n"
TEXT = (HEADER + "".join(f"c,r{number},1,2025-05-17T12:00:00Z\n" for number in range(50))).encode()
TABLE = pa.table({"customer": ["c"] * 50, "request": [f"r{number}" for number in range(50)], "units": [1] * 50})


def read(*sources: Path | str, **options: Any) -> list[Any]:
    """All rows of files."""
    pieces = read_files([*map(str, sources)], **{"encoding": "utf-8", "delimiter": None, **options})
    return [row for piece in pieces for row in piece.rows]


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def zipped(data: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("audit.csv")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def written(write: Callable[[Any, io.BytesIO], object]) -> bytes:
    whole = io.BytesIO()
    write(TABLE, whole)
    return whole.getvalue()


def feather(table: pa.Table, file: io.BytesIO) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, 7)


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
READ = {
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "bzip2 in two streams": bz2.compress(TEXT[:100]) + bz2.compress(TEXT[100:]),
    "xz": lzma.compress(TEXT),
    "xz in two streams": lzma.compress(TEXT[:100]) + b"\0" * 8 + lzma.compress(TEXT[100:]),
    "zstd": zstd(TEXT),
    "zstd behind a skippable frame": SKIPPABLE + zstd(TEXT),
    "zip": zipped(TEXT, "audit.csv"),
    "parquet": written(pq.write_table),
    "orc": written(pyarrow.orc.write_table),
    "arrow": written(feather),
}


@pytest.mark.parametrize("name", ["audit.bz2", "audit.csv", "audit", "audit.parquet"])
@pytest.mark.parametrize("kind", READ)
def test_what_a_file_is_its_first_bytes_decide_and_never_its_name(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(READ[kind])
    found = read(tmp_path / name)
    assert [row["request"] for row in found] == [f"r{number}" for number in range(50)]


@pytest.mark.parametrize("kind", [kind for kind in READ if kind not in ("parquet", "orc", "arrow")])
def test_a_packed_file_that_is_cut_or_followed_by_something_else_is_an_error(tmp_path: Path, kind: str) -> None:
    whole = READ[kind]
    for name, broken in (("cut", whole[:-9]), ("half", whole[: len(whole) // 2]), ("more", whole + b"something else")):
        if (kind, name) == ("zip", "more"):
            continue  # an archive may be followed by a comment
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(ReconError, match=f"{name} cannot be read, or is truncated"):
            read(tmp_path / name)


LOCKED = re.sub(
    rb"(PK\x03\x04..|PK\x01\x02....)\0",
    lambda found: found[1] + b"\1",
    zipped(TEXT, "audit.csv"),
    flags=re.DOTALL,
)
"""The bit that says that a password is needed, in both places where it stands."""
REFUSED = {
    "a zip archive with a password": LOCKED,
    "an Excel workbook": (EXPORTS / "audit.xlsx").read_bytes(),
    "an Avro file": (EXPORTS / "audit.avro").read_bytes(),
    "a tar archive": tarred(TEXT),
    "a tar archive inside gzip": gzip.compress(tarred(TEXT)),
    "Parquet inside gzip": gzip.compress(READ["parquet"]),
    "an Arrow stream": written(lambda table, file: pa.ipc.new_stream(file, table.schema).write_table(table)),
    "lz4 behind a skippable frame": SKIPPABLE + b"\x04\x22\x4d\x18" + bytes(20),
    "an lzma file": lzma.compress(TEXT, lzma.FORMAT_ALONE),
    "an HTML page": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
    "a zip archive of 2 files": zipped(TEXT, "1.csv", "2.csv"),
    "empty": b"",
    "UTF-16, not UTF-8": TEXT.decode().encode("utf-16"),
    "zero bytes": TEXT.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_read_is_refused_by_what_it_is_before_any_row_of_another(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "1.csv").write_bytes(TEXT)
    (tmp_path / "2.bz2").write_bytes(REFUSED[kind])
    seen: list[Any] = []
    pieces = read_files([str(tmp_path)], encoding="utf-8", delimiter=None)
    with pytest.raises(ReconError) as refused:
        seen.extend(row for piece in pieces for row in piece.rows)
    assert kind in refused.value.what
    assert "2.bz2" in refused.value.what
    assert seen == []


def test_hidden_files_are_named_and_every_other_file_of_a_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "spark"
    (folder / "deeper" / "_temporary").mkdir(parents=True)
    (folder / "part-0").write_bytes(TEXT)
    (folder / "deeper" / "part-1.log").write_bytes(TEXT)
    for name in ("_SUCCESS", ".part-0.crc", "deeper/_temporary/part-2"):
        (folder / name).write_bytes(b"crc")
    for source in (folder, folder / "*"):
        unread: list[Unread] = []
        assert len(read(source, on_unread=unread.append)) == 100
        assert sorted(Path(one.name).name for one in unread) == [".part-0.crc", "_SUCCESS", "part-2"]
        assert all("hidden" in one.reason for one in unread)


def test_a_file_of_another_kind_in_a_folder_fails_unless_the_mapping_skips_it(tmp_path: Path) -> None:
    (tmp_path / "audit.csv").write_bytes(TEXT)
    (tmp_path / "README.bin").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(ReconError, match=r"README\.bin is an HDF5 file"):
        read(tmp_path)
    unread: list[Unread] = []
    assert len(read(tmp_path, skip=("README*",), on_unread=unread.append)) == 50
    assert [(Path(one.name).name, one.reason) for one in unread] == [("README.bin", "the mapping skips README*")]


def test_a_file_whose_name_is_a_pattern_is_itself_first(tmp_path: Path) -> None:
    (tmp_path / "audit[1].csv").write_bytes(TEXT)
    (tmp_path / "audit1.csv").write_text(HEADER + "other,o,1,2025-05-17T12:00:00Z\n")
    assert len(read(tmp_path / "audit[1].csv")) == 50
    (tmp_path / "audit[1].csv").unlink()
    assert [row["customer"] for row in read(tmp_path / "audit[1].csv")] == ["other"]


@pytest.mark.parametrize(
    "name", ["audit::1.csv", "audit::1/a.csv", "new\nline.csv", "*.csv", "a#b%20c?.csv", "x:y.csv"]
)
def test_a_file_is_itself_whatever_its_name_means_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "audit").write_text(HEADER + "other,o,1,2025-05-17T12:00:00Z\n")
    (tmp_path / "folder" / name).parent.mkdir(parents=True)
    (tmp_path / "folder" / name).write_bytes(TEXT)
    shutil.copytree(tmp_path / "folder", tmp_path, dirs_exist_ok=True)
    assert len(read(tmp_path / name)) == 50
    assert len(read(tmp_path / "folder")) == 50


def test_a_name_that_is_no_utf8_is_shown_and_stored_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller\n.csv")
    Path(name).write_bytes(TEXT)
    (piece, *_) = (one for one in read_files([name], encoding="utf-8", delimiter=None) if one.rows)
    assert piece.source.endswith("M\\xfcller\\n.csv")


def test_a_delta_table_is_refused_also_by_its_files_and_its_partitions(tmp_path: Path) -> None:
    table = tmp_path / "usage"
    pyarrow.dataset.write_dataset(TABLE, table, format="parquet", partitioning=["customer"], partitioning_flavor="hive")
    (table / "_delta_log").mkdir()
    removed = {"remove": {"path": "customer=c/part-0.parquet", "dataChange": True}}
    (table / "_delta_log" / "00000000000000000001.json").write_text(json.dumps(removed))
    for source in (table, table / "customer=c", table / "*" / "*.parquet", table / "customer=c" / "part-0.parquet"):
        with pytest.raises(ReconError, match=r"usage is a Delta table: its files also hold rows that were deleted"):
            read(source)


@pytest.mark.parametrize("asked", [".", "t", "t/data", "t/data/m=1", "t/data/m=1/part.parquet", "t/data/*/*.parquet"])
def test_an_iceberg_table_is_refused_also_by_its_files(tmp_path: Path, asked: str) -> None:
    (tmp_path / "t/data/m=1").mkdir(parents=True)
    (tmp_path / "t/metadata").mkdir()
    (tmp_path / "t/metadata/v1.metadata.json").write_text("{}")
    (tmp_path / "t/data/m=1/part.parquet").write_bytes(READ["parquet"])
    with pytest.raises(ReconError, match="t is an Iceberg table"):
        read(tmp_path / asked)


@pytest.mark.parametrize("log", ["t/_delta_log", "t/.hoodie", "t/2025/05/.hoodie_partition_metadata"])
@pytest.mark.parametrize("asked", ["t/2025/05", "t/2025/05/part.parquet", "t/2025"])
def test_a_file_of_a_table_is_refused_in_whichever_folder_below_its_log_it_is(
    tmp_path: Path, log: str, asked: str
) -> None:
    (tmp_path / "t/2025/05").mkdir(parents=True)
    (tmp_path / log).mkdir()
    (tmp_path / "t/2025/05/part.parquet").write_bytes(READ["parquet"])
    with pytest.raises(ReconError, match=r"is a (Delta|Hudi) table"):
        read(tmp_path / asked)


def test_folders_that_are_called_data_and_metadata_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/about.json").write_text("{}")
    (tmp_path / "data/audit.csv").write_bytes(TEXT)
    assert len(read(tmp_path / "data")) == 50


@pytest.mark.parametrize("leads", ["a folder", "no file"])
def test_a_link_to_a_folder_or_to_nothing_is_named(tmp_path: Path, leads: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "source/audit.csv").write_bytes(TEXT)
    (tmp_path / "source/latest").symlink_to(tmp_path / ("other" if leads == "a folder" else "gone"))
    for source in (tmp_path / "source", tmp_path / "*"):
        with pytest.raises(ReconError, match=rf"source/latest is a link to {leads}"):
            read(source)
    assert len(read(tmp_path / "source", skip=["latest"])) == 50
    (tmp_path / "source/latest").unlink()
    (tmp_path / "source/latest.csv").symlink_to(tmp_path / "source/audit.csv")
    assert len(read(tmp_path / "source")) == 100


def test_an_iceberg_table_is_refused(tmp_path: Path) -> None:
    for name in ("data/1.parquet", "metadata/v1.metadata.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(READ["parquet"])
    with pytest.raises(ReconError, match="is an Iceberg table"):
        read(tmp_path)


def test_folders_of_partitions_give_columns_to_every_kind_of_file(tmp_path: Path) -> None:
    pyarrow.dataset.write_dataset(
        TABLE, tmp_path / "p", format="parquet", partitioning=["customer"], partitioning_flavor="hive"
    )
    folder = tmp_path / "t" / "customer=a%20b" / "_day=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    (folder / "1.csv").write_text("request,units\nr1,1\n")
    (folder / "2.ndjson").write_text('{"request": "r2", "units": 1}\n')
    assert [row["customer"] for row in read(tmp_path / "p")] == ["c"] * 50
    for source in (tmp_path / "t", tmp_path / "t" / "*"):
        found = [(row["request"], row["customer"], row["_day"]) for row in read(source)]
        assert found == [("r1", "a b", None), ("r2", "a b", None)]


def test_the_name_of_a_partition_is_read_as_it_was_before_it_became_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "usage month=2026%2D05" / "re%3Dgion=a%20b" / "größe=1"
    folder.mkdir(parents=True)
    (folder / "part-0").write_bytes(TEXT)
    rows = read(tmp_path)
    assert {(row["usage month"], row["re=gion"], row["größe"]) for row in rows} == {("2026-05", "a b", "1")}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_byte_order_mark_is_no_letter_of_the_first_column(tmp_path: Path, encoding: str, form: str) -> None:
    text = TEXT.decode() if form == "csv" else json.dumps(TABLE.to_pylist(), indent=1)
    (tmp_path / f"audit.{form}").write_bytes(f"\ufeff{text}".encode(encoding))
    rows = read(tmp_path / f"audit.{form}", encoding=encoding)
    assert [row["customer"] for row in rows] == ["c"] * 50


def test_a_column_of_a_file_goes_before_that_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "customer=b").mkdir()
    (tmp_path / "customer=b" / "1.csv").write_bytes(TEXT)
    assert {row["customer"] for row in read(tmp_path)} == {"c"}


def test_the_columns_of_every_file_are_handed_on_before_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(TEXT)
    (tmp_path / "2.csv").write_text("other,columns\n")
    pieces = list(read_files([str(tmp_path)], encoding="utf-8", delimiter=None))
    assert [(piece.columns[0], len(piece.rows)) for piece in pieces[:2]] == [("customer", 0), ("other", 0)]


@pytest.mark.parametrize("change", ["cut", "longer", "replaced"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(reading, "CHUNK_ROWS", 1000)
    path = tmp_path / "audit.csv"
    row = b"c,r,1,2025-05-17T12:00:00Z\n"
    path.write_bytes(HEADER.encode() + row * 100_000)
    pieces = read_files([str(path)], encoding="utf-8", delimiter=None)
    assert len(next(pieces).rows) + len(next(pieces).rows) == 1000
    if change == "cut":
        os.truncate(path, len(HEADER) + len(row) * 50_000)
    elif change == "longer":
        with path.open("ab") as file:
            file.write(row)
    else:
        shutil.copy(path, tmp_path / "new")
        os.replace(tmp_path / "new", path)
    with pytest.raises(ReconError, match=r"audit\.csv changed while it was read after line [\d,]+\."):
        list(pieces)


def test_a_last_line_without_the_end_that_all_others_have_is_rejected_as_perhaps_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    for cut in (b"c,r50,12,2025-05-17T12:00:00Z", b"c,r50"):
        path.write_bytes(TEXT + cut)
        found = read(path)
        assert len(found) == 51
        assert isinstance(found[-1], Unreadable)
        assert "may be cut" in found[-1].reason
    path.write_bytes(TEXT + b'c,r50,12,"2025-05-17T12:00:00Z"')
    assert read(path)[-1]["request"] == "r50"
    path.write_text('{"request": 1}\n{"request": 2}')
    assert read(path) == [{"request": 1}, {"request": 2}]


def test_a_pipe_is_read_once_to_its_end(tmp_path: Path) -> None:
    for kind in ("gzip", "xz", "parquet", "zip"):
        fifo = tmp_path / f"{kind}.fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(READ[kind],))
        writer.start()
        assert len(read(fifo)) == 50
        writer.join()


def test_standard_input_is_a_source(tmp_path: Path) -> None:
    program = (
        "from recon_pipeline.sources.rows import read_files; import sys;"
        "print(sum(len(p.rows) for p in read_files(sys.argv[1:], encoding='utf-8', delimiter=None)))"
    )
    for source in ("-", "/dev/stdin"):
        ended = subprocess.run([sys.executable, "-c", program, source], input=TEXT, capture_output=True, check=True)
        assert ended.stdout == b"50\n"


def test_a_cell_of_any_size_stays_whole(tmp_path: Path) -> None:
    long = "x" * 200_000 + "\nevil,r9,5,2025-05-17T12:00:00Z\n" + "y" * 3_000_000
    path = tmp_path / "audit.csv"
    path.write_text(f'customer,request,units,at,note\nc,r1,1,2025-05-17T12:00:00Z,"{long}"\n')
    (row,) = read(path)
    assert row["note"] == long


def test_two_stray_quotation_marks_hide_no_rows_between_them(tmp_path: Path) -> None:
    lines = [
        "customer,request,units,at,note",
        'c,r1,1,2025-05-17T12:00:00Z,"5 inch',
        "c,r2,1,2025-05-17T12:00:00Z,plain",
    ]
    lines += ['c,r3,1,2025-05-17T12:00:00Z,7 inch"', "c,r4,1,2025-05-17T12:00:00Z,plain", ""]
    path = tmp_path / "audit.csv"
    path.write_text("\n".join(lines))
    hidden, last = read(path)
    assert isinstance(hidden, Unreadable)
    assert hidden.text == "\n".join(lines[1:4]) + "\n"
    assert "each of its 3 lines has cells enough for a row of its own" in hidden.reason
    assert last["request"] == "r4"
    assert [row["note"] for row in read(path, quote="none")] == ['"5 inch', "plain", '7 inch"', "plain"]
    (whole, _) = read(path, quote="double")
    assert whole["note"].count("\n") == 2


def test_a_quotation_mark_that_is_never_closed_ends_with_its_line_and_not_with_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon_pipeline.sources.delimited.MOST_CHARACTERS", 1_000)
    path = tmp_path / "audit.csv"
    path.write_bytes(TEXT + b'c,"r\n' + TEXT * 5)
    with pytest.raises(ReconError, match=re.escape("audit.csv: the row that begins in line 52 has no end")):
        read(path)


def test_unquoted_tsv_is_read_as_clickhouse_mysql_and_psql_write_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.tsv"
    lines = (
        "customer\trequest\tnote",
        'c\tr1\t"5 inch',
        "c\tr2\tplain",
        'c\tr3\t7 inch"',
        "c\tr4\ta\\tb\\nc\\\\d",
        "c\tr5\t\\N",
        "c\tr6\ta\\\tb\\\nc",
        "c\tr7\tC:\\Users",
        "c\tr8\t",
        'c\tr9\t"both"',
    )
    path.write_text("\n".join(lines) + "\n")
    found = read(path)
    notes = ['"5 inch', "plain", '7 inch"', "a\tb\nc\\d", "\\N", "a\tb\nc", "C:\\Users", ""]
    assert [row["note"] for row in found[:8]] == notes
    assert [row["request"] for row in found[:8]] == [f"r{number}" for number in range(1, 9)]
    assert isinstance(found[8], Unreadable)
    assert "quote: none" in found[8].reason
    assert read(path, quote="none")[8]["note"] == '"both"'
    (tmp_path / "quoted.tsv").write_text('customer\tnote\nc\t"a ""b"""\n')
    assert read(tmp_path / "quoted.tsv", quote="double") == [{"customer": "c", "note": 'a "b"'}]


def test_the_ending_of_the_file_in_an_archive_says_what_that_of_a_file_does(tmp_path: Path) -> None:
    text = 'customer\tnote\nc\t"5 inch\nd\tplain\ne\t7 inch"\n'
    (tmp_path / "audit.zip").write_bytes(zipped(text.encode(), "audit.tsv"))
    assert [row["note"] for row in read(tmp_path / "audit.zip")] == ['"5 inch', "plain", '7 inch"']
    (tmp_path / "rows.zip").write_bytes(zipped(b'[1]\n{"a": 1}\n', "rows.json"))
    assert [isinstance(row, Unreadable) for row in read(tmp_path / "rows.zip")] == [True, False]


ROWS = [{"request": f"r{number}", "note": 'a {[,"\\ ]}\n', "in": [{"x": [1, {}]}]} for number in range(40)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS, indent=None, separators=(",", ":")) + "\n",
        "\n".join(json.dumps(row, indent=4) for row in ROWS),
        "".join(json.dumps(row) + "\n" for row in ROWS),
        "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
        "".join(json.dumps(ROWS[start : start + 7]) + "\n" for start in range(0, 40, 7)),
    ],
    ids=["array", "pretty array", "dense array", "pretty objects", "lines", "array in lines", "arrays in lines"],
)
@pytest.mark.parametrize("block", [1, 7, 100_000])
def test_json_is_read_in_every_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int) -> None:
    monkeypatch.setattr("recon_pipeline.sources.json_rows._BLOCK_CHARACTERS", block)
    (tmp_path / "rows.json").write_text(text)
    assert read(tmp_path / "rows.json") == ROWS


def test_every_value_of_a_json_document_becomes_a_row_or_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n{"a": 1},\n{"a": 01},\n7,\n{"a": 2}\n{"a": 3}, "x",\n{"a": [1, 2')
    pieces = read_files([str(path)], encoding="utf-8", delimiter=None)
    found = [(line, row) for piece in pieces for line, row in zip(piece.lines, piece.rows, strict=True)]
    assert [line for line, _ in found] == [2, 3, 4, 5, 6, 6, 7]
    assert [row for _, row in found if not isinstance(row, Unreadable)] == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("block", [1, 100_000])
@pytest.mark.parametrize("end", ["", ",", ",\n", "\n", " , "])
def test_an_array_that_ends_behind_a_whole_row_is_cut_and_no_shorter_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, block: int
) -> None:
    monkeypatch.setattr("recon_pipeline.sources.json_rows._BLOCK_CHARACTERS", block)
    for rows in (ROWS, [{"a": 1}], [{"a": [1]}]):
        for indent in (None, 1):
            whole = json.dumps(rows, indent=indent)
            (tmp_path / "rows.json").write_text(whole)
            assert read(tmp_path / "rows.json") == rows
            (tmp_path / "rows.json").write_text(whole[:-1].rstrip() + end)
            with pytest.raises(ReconError, match=r"rows\.json ended in line [0-9]+ within an array: it is cut"):
                read(tmp_path / "rows.json")


def test_a_bracket_too_many_in_an_array_rejects_its_row_and_does_not_fail_the_file(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"a": 1}, {"a": {, {"a": 3}]')
    assert [isinstance(row, Unreadable) for row in read(tmp_path / "rows.json")] == [False, True]


def test_a_row_that_is_nested_too_deep_is_rejected_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    for depth in (960, 100_000):
        deep = '{"a": ' + "[" * depth + "]" * depth + "}"
        path.write_text(f'{{"b": 1}}\n{deep}\n{{"b": 2}}\n')
        found = read(path)
        assert [isinstance(row, Unreadable) for row in found] == [False, True, False]
        assert "nested more than" in found[1].reason
        path.write_text(f'[{{"b": 1}},\n{deep},\n{{"b": 2}}]')
        assert [isinstance(row, Unreadable) for row in read(path)] == [False, True, False]


def test_a_file_of_very_many_columns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{number}" for number in range(100_000)) + "\n" + ",".join(["1"] * 100_000) + "\n")
    (row,) = read(path)
    assert len(row) == 100_000


def test_another_delimiter_is_guessed_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "audit.csv").write_bytes(TEXT.replace(b",", b";"))
    with pytest.raises(ReconError, match=r"is ';' the delimiter\?"):
        read(tmp_path / "audit.csv")


def test_wide_rows_are_handed_on_in_small_pieces(tmp_path: Path) -> None:
    note = "x" * 40_000
    path = tmp_path / "wide.ndjson"
    path.write_text("".join(json.dumps({"request": number, "note": note}) + "\n" for number in range(1_000)))
    table = pa.table({"request": list(range(1_000)), "note": [note] * 1_000})
    pq.write_table(table, tmp_path / "wide.parquet")
    for source in (path, tmp_path / "wide.parquet"):
        pieces = list(read_files([str(source)], encoding="utf-8", delimiter=None))
        assert sum(len(piece.rows) for piece in pieces) == 1_000
        assert max(len(piece.rows) for piece in pieces) <= 1_000
    assert max(len(piece.rows) for piece in read_files([str(path)], encoding="utf-8", delimiter=None)) < 300


def test_wide_rows_are_handed_on_in_small_pieces_wherever_they_stand(tmp_path: Path) -> None:
    notes = ["x" if number % 10 == 0 else "x" * 40_000 for number in range(1_000)]
    rows = [json.dumps({"request": number, "note": note}) for number, note in enumerate(notes)]
    (tmp_path / "audit.ndjson").write_text("\n".join(rows) + "\n")
    (tmp_path / "audit.json").write_text(f"[{','.join(rows)}]")
    (tmp_path / "audit.csv").write_text("note\n" + "\n".join(notes) + "\n")
    for name in ("audit.ndjson", "audit.json", "audit.csv"):
        pieces = list(read_files([str(tmp_path / name)], encoding="utf-8", delimiter=None))
        assert sum(len(piece.rows) for piece in pieces) == 1_000
        assert max(len(piece.rows) for piece in pieces) < 300


PIPED = {
    **{kind: READ[kind] for kind in READ if kind not in ("bzip2 in two streams", "xz in two streams")},
    "an array": json.dumps([{"request": f"r{number}"} for number in range(50)]).encode(),
    "pretty objects": "\n".join(json.dumps({"request": f"r{number}"}, indent=1) for number in range(50)).encode(),
}


@pytest.mark.parametrize("kind", PIPED)
def test_what_a_pipe_holds_does_not_depend_on_how_much_its_program_hands_on_at_first(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "pipe", PIPED[kind]
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for part in (content[:1], content[1:20], content[20:]):
                pipe.write(part)
                handed_on.wait(0.05)

    handed_on = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [row["request"] for row in read(path)] == [f"r{number}" for number in range(50)]
    finally:
        writer.join()


def test_a_broken_row_of_a_pipe_ends_with_its_line_also_where_the_first_one_is_handed_on_in_parts(
    tmp_path: Path,
) -> None:
    first = json.dumps({"request": "r1", "data": {"units": 1}})
    text, path = f'{first}\n{{"request": "r2\n{{"request": "r3"}}\n', tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(text[: first.rindex("{") + 1].encode())
            handed_on.wait(0.05)
            pipe.write(text[first.rindex("{") + 1 :].encode())

    handed_on = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [isinstance(row, Unreadable) for row in read(path)] == [False, True, False]
    finally:
        writer.join()


def test_a_cloud_without_credentials_is_an_error_that_says_where_they_come_from() -> None:
    class NoCredentialsError(Exception):
        """As botocore raises it before it connects."""

    said = r"s3://audit/may cannot be read.*Unable to locate credentials"
    with pytest.raises(ReconError, match=said) as refused, failures.reading("s3://audit/may"):
        raise NoCredentialsError("Unable to locate credentials")
    assert "AWS_PROFILE" in refused.value.fix


def test_a_column_of_a_type_that_arrow_cannot_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    pl.DataFrame({"request": pl.Series([2**100], dtype=pl.Int128)}).write_parquet(tmp_path / "audit.parquet")
    with pytest.raises(ReconError, match="more than 64 bits") as refused:
        read(tmp_path / "audit.parquet")
    assert "another type" in refused.value.fix
