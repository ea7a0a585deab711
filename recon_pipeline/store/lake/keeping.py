"""Keeps what an engine counted of a month: the sums of its keys and the record of the count, in one transaction.

Invariant: the staged sums are of one month, whose session has locked them. The newest count of a month is the only one
whose sums are kept. A count repairs nothing: runs compare counters with it, as they compare them with a seal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.lake.counts import LakeCount, count_of
from recon_pipeline.store.postgres.copy import copy_bytes_in
from recon_pipeline.store.postgres.statements import labelled, statement, with_name

_COPY_STAGED = with_name(
    "copy_lake_sums",
    """
    copy recon.lake_staged_sum (
        gateway_customer_id, period_start, period_end,
        event_count, invalid_count, dedupe_count, outside_period_count, usage, credit
    ) from stdin (format csv)
    """,
)
# Lets one session count at a time: the staged sums are of one month.
_LOCK_STAGED = labelled("lock_lake_sums", "lock table recon.lake_staged_sum in exclusive mode")
# Deletes staged sums; the table is locked.
_EMPTY_STAGED = labelled("empty_lake_sums", "truncate recon.lake_staged_sum")


@dataclass(frozen=True)
class Counting:
    """What is recorded of a count before its sums are known."""

    usage: MeteredUsage
    month: BillingMonth
    counted_by: str
    run_id: str | None
    engine: str
    complete_until: datetime
    source: Mapping[str, Any]


def keep(connection: Connection, counting: Counting, pieces: Iterable[bytes], powers: Sequence[int]) -> LakeCount:
    """Keep the sums of a month, in the connection's transaction.

    Args:
        connection: In a transaction.
        counting: What is counted.
        pieces: Lines of CSV, as `copy_lake_sums` reads them.
        powers: By which power of ten each piece of a sum is multiplied.
    """
    connection.execute(_LOCK_STAGED)
    connection.execute(_EMPTY_STAGED)
    copy_bytes_in(connection, _COPY_STAGED, pieces)
    asked = {
        **vars(counting.usage),
        "partition": counting.month.key,
        "acted_by": counting.counted_by,
        "run_id": counting.run_id,
        "engine": counting.engine,
        "complete_until": counting.complete_until,
        "source": json.dumps(counting.source),
        "powers": [Decimal(10) ** power for power in powers],
    }
    found = count_of(connection.execute(statement("keep_lake_sums"), asked).mappings().one())
    connection.execute(_EMPTY_STAGED)
    return found
