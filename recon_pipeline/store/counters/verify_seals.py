"""Are the seals what was written, and is what was sealed still in the log?

Invariant: everything is computed again: the chain from the rows, totals and checksums from the sealed sums, and the
sums of sealed months from the log's own events. The first that does not fit is named. A key fits if its events are the
sealed ones, with or without those that came after the seal; which these are is known where events carry the transaction
that inserted them. Of an archived month the archive has the events, and the log may have none; so it may of a month
that is declared to be no longer in the log. Of a count in the lake the sealed sums are proved, and not its events.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.errors import one_line
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.core.seals import FIRST_LINK, chained
from recon_pipeline.store.counters.corrections import keys_differing
from recon_pipeline.store.counters.seal_records import RecordedSeal, Totals, read_seals, sums_without_seal, totals
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.sums.run import Reconciliation


@dataclass(frozen=True)
class VerifiedSeals:
    """What was found.

    Attributes:
        checked: Rows of `recon.month_seal` that fit.
        in_force: Seals that count, whose events were summed again, those of archived months aside.
        archived: Seals that count, whose events were summed again from their archives.
        declared_gone: Seals that count, of months that are declared to be no longer in the log.
        in_lake: Seals that count, of sums that were counted in the lake, where their events are: these were not read.
        head: The chain of the newest seal; whoever keeps it elsewhere can prove later that none was taken out.
        misfit: What does not fit, the first of all, or None.
        fix: What to do about it.
    """

    checked: int
    in_force: int
    misfit: str | None = None
    fix: str | None = None
    archived: int = 0
    declared_gone: int = 0
    in_lake: int = 0
    head: str | None = None


def verify_seals(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    in_log_from: BillingMonth | None = None,
    kept_chain: str | None = None,
) -> VerifiedSeals:
    """Compute every seal again, up to the first that does not fit.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        run: Any; its months are not looked at.
        tables: How the tables are shaped.
        in_log_from: Months before it are declared to be no longer in the log.
        kept_chain: A chain that was the newest once.
    """
    in_log = [one for one in tables.stand_ins if one.is_sealed and not one.is_of_lake and one.archived_seen is None]
    in_lake = [one for one in tables.stand_ins if one.is_sealed and one.is_of_lake]
    gone = [one for one in in_log if in_log_from is not None and one.month < in_log_from]
    in_force = {one.seal_id for one in in_log if one not in gone}
    seals = read_seals(connection)
    head = seals[-1].chain if seals else None
    found = VerifiedSeals(0, len(in_force), declared_gone=len(gone), in_lake=len(in_lake), head=head)
    misfit = (
        misfit_of_records(connection, seals, summed={recorded.id for recorded in seals})
        or _sums_of_no_seal(connection)
        or _taken_out(seals, kept_chain)
    )
    if misfit is not None:
        return replace(found, misfit=misfit, fix=CHANGED)
    for recorded in seals:
        for misfit, fix in _gone_from_log(connection, run, tables, recorded) if recorded.id in in_force else ():
            return replace(found, misfit=misfit, fix=fix)
    return replace(found, checked=len(seals))


def misfit_of_records(connection: Connection, seals: Sequence[RecordedSeal], *, summed: Collection[int]) -> str | None:
    """What is not as it was written, of the first seal of which something is not; the log is not read.

    Args:
        connection: In a transaction.
        seals: All of them, the oldest first; the chain of each is computed again.
        summed: Those whose sealed sums are added up again, by id.
    """
    previous = FIRST_LINK
    for recorded in seals:
        for misfit in _changed(connection, recorded, previous, is_summed=recorded.id in summed):
            return misfit
        previous = recorded.chain
    return None


def _sums_of_no_seal(connection: Connection) -> str | None:
    unsealed = sums_without_seal(connection)
    if not unsealed:
        return None
    return f"recon.sealed_counter has {unsealed:,} rows without a seal: a seal was taken out, or rows were added."


def _taken_out(seals: Sequence[RecordedSeal], kept_chain: str | None) -> str | None:
    if kept_chain is None or any(recorded.chain == kept_chain for recorded in seals):
        return None
    return f"No seal has the chain {kept_chain}: seals were taken out, or it is of another database."


CHANGED = (
    "Somebody changed schema recon by hand, or it was restored in part: restore recon.month_seal and "
    "recon.sealed_counter from a backup that recon verify-seals accepts."
)


def _changed(connection: Connection, recorded: RecordedSeal, previous: str, *, is_summed: bool) -> Iterator[str]:
    seal, name = recorded.seal, f"Seal {recorded.id} ({recorded.of_what}, {recorded.seal.kind} {recorded.by_whom})"
    if recorded.previous_chain != previous:
        yield f"{name} does not follow the seal before it: a row was taken out or changed."
    if recorded.chain != chained(previous, seal):
        yield f"{name} is not what was written: its chain does not fit its content."
    if is_summed and seal.kind == "sealed" and totals(connection, recorded.id) != Totals.of(seal):
        yield f"The sealed sums of seal {recorded.id} ({recorded.of_what}) are not those that it was made of."


def _gone_from_log(
    connection: Connection, run: Reconciliation, tables: BillingTables, recorded: RecordedSeal
) -> Iterator[tuple[str, str]]:
    """What the log had when the month was sealed, and does not have any more."""
    month = BillingMonth.parse(recorded.seal.partition)
    asked = replace(run, extent=Extent((recorded.usage,), month, month))
    rows = keys_differing(connection, asked, tables, recorded, which_events="in_extent")
    if rows and tables.has_ingest_xid:
        with_later = {_key(row) for row in rows}
        when_sealed = keys_differing(connection, asked, tables, recorded, which_events="in_extent_when_sealed")
        rows = [row for row in when_sealed if _key(row) in with_later]
    if rows:
        first = rows[0]
        yield (
            f"The log does not have what was sealed of {recorded.of_what} any more: {len(rows):,} keys differ, the "
            f"first of customer {one_line(first.gateway_customer_id)} ({first.sealed_events:,} events of "
            f"{first.sealed_sum} units were sealed, {first.events_now:,} of {first.sum_now} are there).",
            f"Counters follow the seal all the same. recon corrections --period {month.key} shows the keys; "
            "find out who changed or deleted events of that month. Where the log was moved to another server, was "
            "loaded anew, or has no ingest_xid, late events are among them, since nothing distinguishes them from "
            "sealed ones; where RECON_EVENT_IDENTITY was changed, other events count. To accept what the log says now: "
            "recon reopen, recon reconcile, recon seal.",
        )


def _key(row: Any) -> tuple[str, str, str]:
    return row.gateway_customer_id, row.period_start, row.period_end
