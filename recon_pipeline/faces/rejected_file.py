"""The file that `recon rejected --output` writes: to be fixed, and read again with the same mapping."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recon_pipeline.core.backfill.default_mapping import NEEDED
from recon_pipeline.core.backfill.exact_json import decode, encode
from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.round_trip import OWN, TEXT, TYPES, as_cells, fits_csv, guarded, whole_row
from recon_pipeline.store.backfill.batches import NotTaken


def write_rejected(read: Callable[[], Iterable[NotTaken]], mapping: Mapping[str, Any], output: Path) -> None:
    """Write rows that were not taken.

    Args:
        read: Gives them, as often as it is called; twice for CSV, whose first line names the columns of all.
        mapping: Of their batch; empty for none.
        output: Ends in `.csv` or `.ndjson`.
    """
    spec = parse_mapping(mapping) if mapping else None
    mapped = sorted(NEEDED if spec is None else spec.columns)

    def rows() -> Iterator[dict[str, Any]]:
        for one in read():
            own = (one.kind, one.source, one.line, "; ".join(one.reasons))
            yield dict(zip(OWN, own, strict=True)) | whole_row(decode(one.raw_row), mapped)

    if output.suffix == ".ndjson":
        with output.open("w", encoding="ascii") as file:
            file.writelines(f"{encode(row)}\n" for row in rows())
        return
    columns = list({name: None for row in rows() for name in (*_for_csv(row), TYPES)})
    # With a byte order mark, so that a spreadsheet reads and saves it as UTF-8.
    with output.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=(spec and spec.delimiter) or ",")
        writer.writerow(map(guarded, columns))
        writer.writerows(as_cells(_for_csv(row), columns).values() for row in rows())


def _for_csv(row: dict[str, Any]) -> dict[str, Any]:
    """The same row; as one text if it has names that no first line of a CSV file can have."""
    if fits_csv(row):
        return row
    own = {name: row[name] for name in OWN}
    return own | {TEXT: encode({name: value for name, value in row.items() if name not in OWN})}
