"""The event sums of a month as rows for a database: the pieces of each sum put together, and what they all add up to.

Invariant: no digit is lost. A key without a name, with a name that Postgres cannot hold, or whose events do not count
has no row; its events are in the totals.
"""

import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from recon_pipeline.core.exact import as_text, total
from recon_pipeline.lake.exact import added_up
from recon_pipeline.lake.sums import KEY

pc: Any = pyarrow.compute  # whose functions are made when it is imported
_LAST_YEARS_END = 253_402_300_800_000_000 - 1  # that of 9999, in microseconds since 1970
_INFINITE = 2**63 - 1
_ERA = 146_097 * 86_400 * 10**6  # 400 years, after which the calendar begins anew
_Sums = tuple[pa.Array, Decimal, int]
"""Of one column: each sum as text, all of them added up, and how many are not 0."""


class MonthSums:
    """The event sums of a month, to be read once.

    Args:
        batches: As the table of `EventSums` has them.
        powers: By which power of ten each piece of a sum is multiplied before all are added.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], powers: Sequence[int]) -> None:
        self._batches = batches
        self._powers = powers
        self.key_count = self.nonzero_count = self.event_count = 0
        self.invalid_count = self.dedupe_count = self.outside_period_count = 0
        self.usage_count = Decimal(0)

    @property
    def totals(self) -> dict[str, Any]:
        """What all rows add up to, by column of `recon.lake_count`, once all lines have been read."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def lines(self, count_id: int) -> Iterator[bytes]:
        """Lines of CSV, with the columns of `recon.lake_counter`.

        Args:
            count_id: The first of them.
        """
        for batch in self._batches:
            yield self._as_csv(batch, count_id)

    def _as_csv(self, batch: pa.RecordBatch, count_id: int) -> bytes:
        names = batch.column("gateway_customer_id")
        has_nul = pc.match_substring(names, "\0")  # such a name belongs to no counter
        nameless = batch.filter(has_nul)
        self.invalid_count += _total(batch, "invalid_count") + _total(nameless, "event_count", "dedupe_count")
        self.dedupe_count += _total(batch, "dedupe_count") - _total(nameless, "dedupe_count")
        self.outside_period_count += _total(batch, "outside_period_count")

        is_kept = pc.and_(pc.greater(batch.column("event_count"), 0), pc.not_equal(names, ""))
        kept = batch.filter(pc.and_not(is_kept, has_nul))
        usage, units, nonzero_count = self._sums(kept, "usage")
        credit, _, _ = self._sums(kept, "credit")
        self.key_count += kept.num_rows
        self.nonzero_count += nonzero_count
        self.event_count += _total(kept, "event_count")
        self.usage_count = total((self.usage_count, units))

        number = pa.repeat(count_id, kept.num_rows)
        customer, start, end = (kept.column(name) for name in KEY)
        columns = [number, customer, _in_utc(start), _in_utc(end), usage, kept.column("event_count"), credit]
        buffer = io.BytesIO()
        table = pa.table(columns, names=[str(place) for place in range(len(columns))])
        pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(include_header=False))
        return buffer.getvalue()

    def _sums(self, batch: pa.RecordBatch, of: str) -> _Sums:
        pieces = [batch.column(f"{of}_{place}") for place in range(len(self._powers))]
        if len(pieces) == 1 and pieces[0].type.scale == 0:
            whole = pieces[0].fill_null(Decimal(0))
            return whole.cast(pa.string()), pc.sum(whole).as_py() or Decimal(0), _nonzero(whole)
        parts = zip(*(piece.to_pylist() for piece in pieces), strict=True)
        sums = [added_up(part, self._powers) for part in parts]
        texts = pa.array([as_text(one) for one in sums], pa.string())
        return texts, total(sums), sum(1 for one in sums if one)


def _in_utc(instants: pa.Array) -> pa.Array:
    """Times as text; Arrow takes thirty times as long for one that has a zone."""
    texts = pc.binary_join_element_wise(instants.cast(pa.timestamp("us")).cast(pa.string()), "Z", "")
    microseconds = instants.cast(pa.int64())
    late = pc.greater(microseconds, _LAST_YEARS_END)
    if not pc.any(late).as_py():
        return texts
    of_late = [_late_in_utc(one) for one in microseconds.filter(late).to_pylist()]
    return pc.replace_with_mask(texts, late, pa.array(of_late, pa.string()))


def _late_in_utc(microseconds: int) -> str:
    """A time that Arrow and Python have no text for: infinity as DuckDB has it, or many times 400 years later."""
    if microseconds == _INFINITE:
        return "infinity"
    eras, rest = divmod(microseconds, _ERA)
    moment = datetime(1970, 1, 1) + timedelta(microseconds=rest)  # noqa: DTZ001 - as text, with its zone
    return f"{moment.year + 400 * eras}-{moment:%m-%d %H:%M:%S.%f}Z"


def _total(batch: pa.RecordBatch, *names: str) -> int:
    return sum(pc.sum(batch.column(name)).as_py() or 0 for name in names)


def _nonzero(whole: pa.Array) -> int:
    return pc.sum(pc.not_equal(whole, pa.scalar(Decimal(0), whole.type))).as_py() or 0
