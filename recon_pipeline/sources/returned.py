"""Files that `recon rejected` wrote, fixed or not: read as they were written, whatever the mapping says of the source.

Their column `recon_kind` identifies them. Encoding, delimiter and quotation marks are read from the file itself, also
after a spreadsheet has saved it in its own way.
"""

import re
from collections.abc import Iterator

from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.round_trip import KIND, OWN, TEXT, TYPES, unguarded, values_of_row
from recon_pipeline.sources.delimited import Dialect, Numbered
from recon_pipeline.sources.json_rows import json_row

_DELIMITER = re.compile(rf'(?P<before>[^\w"\'])?"?{KIND}"?(?P<after>[^\w"\'\r\n])?')


def is_returned(head: str) -> bool:
    """Whether a file that begins so was written by `recon rejected`."""
    start = head.lstrip()
    return KIND in (start if start[:1] in ("{", "[") else start.partition("\n")[0])


def dialect_of(header: str) -> Dialect:
    """The dialect of a file with this first line."""
    found = _DELIMITER.search(header.removeprefix("\ufeff"))
    delimiter = (found["after"] or found["before"]) if found else None
    return Dialect(delimiter or ",", quoted=True, is_said=True)


def json_as_it_was(numbered: Numbered) -> Numbered:
    """The rows of JSON as their source had them."""
    for line, row in numbered:
        yield line, row if isinstance(row, Unreadable) or KIND not in row else _as_it_was(row)


def cells_as_they_were(columns: tuple[str, ...], numbered: Numbered) -> tuple[tuple[str, ...], Numbered]:
    """The columns and rows of CSV as their source had them."""
    names = {name: unguarded(name.removeprefix("\ufeff")) for name in columns}
    own = (*OWN, TYPES, TEXT)
    return tuple(name for name in names.values() if name not in own), _unguarded_rows(names, numbered)


def _unguarded_rows(names: dict[str, str], numbered: Numbered) -> Iterator[tuple[int, Row | Unreadable]]:
    for line, row in numbered:
        if isinstance(row, Unreadable):
            yield line, row
        else:
            yield line, _as_it_was({names[name]: unguarded(str(value)) for name, value in row.items()})


def _as_it_was(row: Row) -> Row | Unreadable:
    values = values_of_row(row)
    text = values.pop(TEXT, None)
    if not text or not isinstance(text, str):
        return values
    if text.lstrip()[:1] == "{":
        found = json_row(text)
        return found if isinstance(found, Unreadable) else values_of_row(found)
    return Unreadable(text, str(row.get(OWN[-1]) or "it has a text in recon_text that is no row; clear it"))
