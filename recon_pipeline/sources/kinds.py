"""The format of a file, by its first bytes; its name is not used.

Knows no file: whoever opens one passes its first bytes.
"""

from typing import NamedTuple

HEAD_BYTES = 4_096
"""How many first bytes are needed."""

_ARROW_AS_TABLE = "Write it as Parquet, CSV or NDJSON, and backfill that."


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        name: As people call it.
        packing: The codec that unpacks it, by pyarrow's name or `xz` or `zip`, or None.
        reader: `text`, `parquet`, `orc` or `arrow`; empty for what is packed and for what cannot be read.
        fix: What to do about a file that cannot be read.
    """

    name: str
    packing: str | None = None
    reader: str = ""
    fix: str = ""


TEXT = Kind("text", reader="text")
_EXCEL = Kind("an Excel workbook", fix="Save the sheet as CSV UTF-8 in Excel, and backfill that file.")
_UNPACK = "Unpack it, and give the folder."
_REPACK = "Compress it with gzip or zstd instead."
_KINDS = {
    b"\x1f\x8b": Kind("gzip", packing="gzip"),
    b"BZh": Kind("bzip2", packing="bz2"),
    b"\xfd7zXZ\x00": Kind("xz", packing="xz"),
    b"\x28\xb5\x2f\xfd": Kind("zstd", packing="zstd"),
    b"\x04\x22\x4d\x18": Kind("lz4", packing="lz4"),
    b"PK\x03\x04": Kind("zip", packing="zip"),
    b"PK\x05\x06": Kind("zip", packing="zip"),
    b"PAR1": Kind("Parquet", reader="parquet"),
    b"ORC": Kind("ORC", reader="orc"),
    b"ARROW1": Kind("Arrow", reader="arrow"),
    b"\xff\xff\xff\xff": Kind(  # nothing at its end shows whether it is whole
        "an Arrow stream", fix="Write it as an Arrow file (Feather, write_ipc), or as Parquet, and backfill that."
    ),
    b"PARE": Kind("an encrypted Parquet file", fix="Decrypt it first."),
    b"FEA1": Kind("an old Feather file", fix=_ARROW_AS_TABLE),
    b"Obj\x01": Kind("an Avro file", fix=_ARROW_AS_TABLE),
    b"\xd0\xcf\x11\xe0": _EXCEL,
    b"SQLite format 3\x00": Kind("a SQLite database", fix="Export the table as CSV: sqlite3 -header -csv."),
    b"\x89HDF": Kind("an HDF5 file", fix=_ARROW_AS_TABLE),
    b"%PDF": Kind("a PDF", fix="Export the rows as CSV."),
    b"7z\xbc\xaf\x27\x1c": Kind("a 7z archive", fix=_UNPACK),
    b"Rar!": Kind("a RAR archive", fix=_UNPACK),
    b"\x02\x21\x4c\x18": Kind("lz4 of the old kind", fix=_REPACK),
    b"\x5d\x00\x00": Kind("an lzma file", fix=_REPACK),
    b"\x1f\x9d": Kind("a file of compress", fix=_REPACK),
    b"PGCOPY\n\xff": Kind("a binary COPY of Postgres", fix="Copy it with (format csv, header)."),
    b"PGDMP": Kind(
        "a dump of Postgres", fix="Restore it and give table:NAME, or copy the table with (format csv, header)."
    ),
    b"\xff\x06\x00\x00sNaPpY": Kind("a Snappy stream", fix=_REPACK),
}
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def kind_of(head: bytes) -> Kind:
    """What a file is that begins with these bytes.

    Args:
        head: The first `HEAD_BYTES`, or all of a shorter file.
    """
    for magic, kind in _KINDS.items():
        # A text may begin with the word ORC, too.
        if head.startswith(magic) and (kind.reader != "orc" or min(head[3:256], default=9) < 9):
            return kind
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        # It begins with a skippable frame, as pzstd and rsyncable writers do; no reader of ours takes one before lz4.
        behind = 8 + int.from_bytes(head[4:8], "little")
        is_lz4 = head[behind : behind + 4] == b"\x04\x22\x4d\x18"
        return Kind("lz4 behind a skippable frame", fix=_REPACK) if is_lz4 else Kind("zstd", packing="zstd")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", fix=_UNPACK)
    if head[8:12] == b"DUCK":
        return Kind("a DuckDB database", fix="Export the table: copy TABLE to 'rows.parquet'.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_PAGES):
        return Kind("an HTML page", fix="A login or error page was saved in place of the export: get the export again.")
    if start.startswith(b"<?xml"):
        return Kind("an XML document", fix="Export the rows as CSV, NDJSON or Parquet.")
    return TEXT


def archived_kind(names: list[str]) -> Kind | None:
    """What a zip archive really is that holds these names, or None if it is just an archive."""
    if any(name.startswith(("xl/", "/xl/")) for name in names):
        return _EXCEL
    if "mimetype" in names and "content.xml" in names:
        return Kind("an OpenDocument file", fix="Save the sheet as CSV in UTF-8, and backfill that file.")
    return None
