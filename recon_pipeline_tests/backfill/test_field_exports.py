"""Exports as people describe them in reports: each row is an event, or is rejected; none is passed over or made up."""

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import read_rows
from recon_pipeline.core.backfill.rows import Reading
from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources.rows import read_files
from recon_pipeline_tests.backfill.inserting import SCOPE, SPEC

AT = "2025-05-17T12:00:00Z"
HEADER = "customer,request,units,at\n"
CSV = f"{HEADER}c,1,1,{AT}\nc,2,1,{AT}\n"
BOM = codecs.BOM_UTF8


def ndjson(*requests: str) -> str:
    return "".join(json.dumps({"customer": "c", "request": one, "units": 1, "at": AT}) + "\n" for one in requests)


def requests(folder: Path, files: dict[str, bytes], mapping: dict[str, Any] = SPEC) -> list[str | None]:
    """The request ids of the events in files; None for each rejected row."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    spec = parse_mapping(mapping)
    source = folder / next(iter(files)) if len(files) == 1 else folder
    pieces = read_files([str(source)], encoding=spec.encoding, delimiter=spec.delimiter, quote=spec.quote)
    read = read_rows(pieces, spec, batch_id="b", quantity_range=QuantityRange.of("integer"), scope=SCOPE)
    found: list[Reading] = [reading for piece in read for reading in piece.readings]
    return [None if reading.reasons else reading.request_id for reading in found]


READ = {
    "Excel tells itself the delimiter": b"sep=;\r\n" + CSV.replace(",", ";").encode(),
    "Excel tells itself the delimiter in UTF-8": BOM + b"sep=,\r\n" + CSV.encode(),
    "BigQuery writes UTC": CSV.replace("T12:00:00Z", " 12:00:00.000000 UTC").encode(),
    "Snowflake writes milliseconds and an offset": CSV.replace("T12:00:00Z", " 05:00:00.000 -0700").encode(),
    "ClickHouse quotes texts and no numbers": (
        '"customer","request","units","at"\n' + "".join(f'"c","{one}",1,"{AT}"\n' for one in (1, 2))
    ).encode(),
    "pandas writes its index without a name": (f",customer,request,units,at\n0,c,1,1,{AT}\n1,c,2,1,{AT}\n".encode()),
    "a delimiter ends each line": CSV.replace("\n", ",\n").encode(),
    "gzip of several members": gzip.compress(HEADER.encode())
    + b"".join(gzip.compress(f"c,{one},1,{AT}\n".encode()) for one in (1, 2)),
    "lines that end in three ways": f"customer,request,units,at\r\nc,1,1,{AT}\nc,2,1,{AT}\r".encode(),
    "lines that end as on an old Mac": CSV.replace("\n", "\r").encode(),
}


@pytest.mark.parametrize("case", READ)
def test_csv_as_a_program_writes_it_is_read(tmp_path: Path, case: str) -> None:
    assert requests(tmp_path, {"audit.csv" + (".gz" if "gzip" in case else ""): READ[case]}) == ["1", "2"]


READ_JSON = {
    "jq prints objects over several lines": "".join(
        json.dumps(json.loads(line), indent=2) + "\n" for line in ndjson("1", "2").splitlines()
    ).encode(),
    "jq --seq begins each with a separator": ndjson("1", "2").replace("{", "\x1e{").encode(),
    "two files with byte order marks were put together": BOM + ndjson("1").encode() + BOM + ndjson("2").encode(),
    "BigQuery writes numbers as texts": ndjson("1", "2").replace('"units": 1', '"units": "1"').encode(),
    "an array with a comma at its end": f"[{','.join(ndjson('1', '2').splitlines())},]".encode(),
    "lines that end in two ways with empty ones between": ndjson("1", "2").replace("\n", "\r\n\n").encode(),
}


@pytest.mark.parametrize("case", READ_JSON)
def test_json_as_a_program_writes_it_is_read(tmp_path: Path, case: str) -> None:
    assert requests(tmp_path, {"audit.json": READ_JSON[case]}) == ["1", "2"]


def test_a_log_shipper_that_interleaves_lines_loses_and_invents_no_row(tmp_path: Path) -> None:
    first, second = ndjson("1").strip(), ndjson("2").strip()
    torn = (
        f"{first}\n{second[:20]}{first}\n{second[20:]}\n{first}{second}\nstdout F {first}\n\0\0\0{second}\n{second}\n"
    )
    assert requests(tmp_path, {"audit.ndjson": torn.encode()}) == ["1", None, None, None, None, None, "2"]


def test_a_folder_of_spark_is_read_with_parts_that_hold_no_row(tmp_path: Path) -> None:
    parts = {"part-0.csv": CSV.encode(), "part-1.csv": HEADER.encode(), "_SUCCESS": b"", ".part-0.csv.crc": b"crc"}
    assert requests(tmp_path, parts) == ["1", "2"]


def test_a_part_of_spark_without_the_header_that_others_have_fails_before_any_row(tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=r"part-1\.csv has no column"):
        requests(tmp_path, {"part-0.csv": CSV.encode(), "part-1.csv": f"c,3,1,{AT}\n".encode()})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named_and_read_where_the_mapping_says_so(tmp_path: Path, encoding: str) -> None:
    content = {"audit.csv": CSV.replace("c,", "Müller,").encode(encoding)}
    with pytest.raises(ReconError, match=f"is {encoding.upper()}, not UTF-8") as refused:
        requests(tmp_path, content)
    assert f"encoding: {encoding}" in refused.value.fix
    assert requests(tmp_path, content, SPEC | {"encoding": encoding}) == ["1", "2"]


def test_what_psql_and_clickhouse_write_around_rows_is_no_event(tmp_path: Path) -> None:
    assert requests(tmp_path, {"audit.csv": f"{CSV}(2 rows)\n".encode()}) == ["1", "2", None]
    types = CSV.replace(",", "\t").replace("at\n", "at\nString\tString\tUInt64\tDateTime\n")
    assert requests(tmp_path, {"audit.tsv": types.encode()}) == [None, "1", "2"]
    assert requests(tmp_path, {"mysql.csv": f'{CSV}"c","a \\"b\\"",1,{AT}\n'.encode()}) == ["1", "2", None]
