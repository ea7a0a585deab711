"""Are the seals what was written, and is what was sealed still in the log?

Invariant: everything is computed again: the chain from the rows, totals and checksums from the sealed sums, and the
sums of sealed months from the log's own events, without those that came after the seal. The first that does not fit
is named. Of an archived month the archive has the events, and the log may have none. Which events came later is known
where they carry the transaction that inserted them; else all are summed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.core.seals import FIRST_LINK, chained
from recon_pipeline.store.counters.corrections import keys_differing
from recon_pipeline.store.counters.seal_records import RecordedSeal, Totals, read_seals, totals
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.sums.run import Reconciliation


@dataclass(frozen=True)
class VerifiedSeals:
    """What was found.

    Attributes:
        checked: Rows of `recon.month_seal` that fit.
        in_force: Seals that count, whose events were summed again, those of archived months aside.
        archived: Seals that count, whose events were summed again from their archives.
        misfit: What does not fit, the first of all, or None.
        fix: What to do about it.
    """

    checked: int
    in_force: int
    misfit: str | None = None
    fix: str | None = None
    archived: int = 0


def verify_seals(connection: Connection, run: Reconciliation, tables: BillingTables) -> VerifiedSeals:
    """Compute every seal again, up to the first that does not fit.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        run: Any; its months are not looked at.
        tables: How the tables are shaped.
    """
    seals = read_seals(connection)
    in_force = {one.seal_id for one in tables.sealed if one.archived_seen is None}
    checked, previous = 0, FIRST_LINK
    for recorded in seals:
        for misfit, fix in _misfits(connection, run, tables, recorded, previous, is_in_force=recorded.id in in_force):
            return VerifiedSeals(checked, len(in_force), misfit, fix)
        checked, previous = checked + 1, recorded.chain
    return VerifiedSeals(checked, len(in_force))


_CHANGED = (
    "Somebody changed schema recon by hand, or it was restored in part: restore recon.month_seal and "
    "recon.sealed_counter from a backup that recon verify-seals accepts."
)


def _misfits(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    recorded: RecordedSeal,
    previous: str,
    *,
    is_in_force: bool,
) -> Iterator[tuple[str, str]]:
    seal, name = recorded.seal, f"Seal {recorded.id} ({recorded.of_what}, {recorded.seal.kind} {recorded.by_whom})"
    if recorded.previous_chain != previous:
        yield f"{name} does not follow the seal before it: a row was taken out or changed.", _CHANGED
    if recorded.chain != chained(previous, seal):
        yield f"{name} is not what was written: its chain is of other content.", _CHANGED
    if seal.kind == "reopened":
        return
    if totals(connection, recorded.id) != Totals.of(seal):
        yield f"The sealed sums of seal {recorded.id} ({recorded.of_what}) are not those that it was made of.", _CHANGED
    if is_in_force:
        yield from _gone_from_log(connection, run, tables, recorded)


def _gone_from_log(
    connection: Connection, run: Reconciliation, tables: BillingTables, recorded: RecordedSeal
) -> Iterator[tuple[str, str]]:
    """What the log had when the month was sealed, and does not have any more."""
    month = BillingMonth.parse(recorded.seal.partition)
    asked = replace(run, extent=Extent((recorded.usage,), month, month))
    which = "in_extent_when_sealed" if tables.has_ingest_xid else "in_extent"
    rows = keys_differing(connection, asked, tables, recorded, which_events=which)
    if rows:
        first = rows[0]
        yield (
            f"The log does not have what was sealed of {recorded.of_what} any more: {len(rows):,} keys differ, the "
            f"first of customer {first.gateway_customer_id} ({first.sealed_events:,} events of {first.sealed_sum} "
            f"units were sealed, {first.events_now:,} of {first.sum_now} are there).",
            f"Counters follow the seal all the same. recon corrections --period {month.key} shows the keys; "
            "find out who changed or deleted events of that month.",
        )
