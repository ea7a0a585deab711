"""What `recon seal`, `recon reopen` and `recon verify-seals` do, and how it is shown."""

import uuid
from dataclasses import asdict, replace
from typing import Any

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, err, out
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.counters import reopening, verify_seals
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.counters.sealing import NotSealedError, Sealed
from recon_pipeline.store.counters.verify_seals import VerifiedSeals
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import STATEMENT_TIMEOUT_MS, limit_waits
from recon_pipeline.store.records.closing import close_month
from recon_pipeline.store.records.retention import read_retention
from recon_pipeline.store.sums.run import Reconciliation

_WAITS_MS = 30_000
"""For a run that is writing what is known of the log; with a large log to be summed it may take longer."""


def seal(settings: Settings, month: BillingMonth, *, reason: str | None) -> tuple[Sealed, ...]:
    """Seal a month of every metered usage.

    Raises:
        ConfigurationError: No run looks at the month.
        ReconError: It cannot be sealed, with the reason, or the database cannot be used.
    """
    with err.status(f"Sealing {month.key} …"), billing_database(settings).connection() as connection:
        return close_month(connection, settings, month, sealed_by=user_name(), reason=reason)


def reopen(settings: Settings, month: BillingMonth, *, reason: str) -> tuple[RecordedSeal, ...]:
    """Make a sealed month an ordinary one again.

    Raises:
        ReconError: It is not sealed, or the database cannot be used.
    """
    first, _ = known_months()
    question = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, month, month))
    with billing_database(settings).connection() as connection, decision(connection) as tables:
        limit_waits(connection, lock_timeout_ms=_WAITS_MS, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
        retention = read_retention(connection)
        if month < first or (retention is not None and month.key < retention.before_partition):
            why = f"{retention}" if retention is not None and month >= first else f"it is before {first.key}"
            raise NotSealedError(
                f"{month.key} is not reopened: {why}. No run compares its counters, and it could not be sealed again.",
                fix="Nothing, if that is right. Else make it a month that runs look at first: RECON_START_PERIOD, "
                "recon retention.",
            )
        return reopening.reopen(connection, question, tables, reason=reason, reopened_by=user_name())


def verify(settings: Settings, *, kept_chain: str | None = None) -> VerifiedSeals:
    """Compute every seal again, up to the first that does not fit.

    Args:
        settings: With the scope.
        kept_chain: A chain that was the newest once, to prove that no seal was taken out since.

    Raises:
        ReconError: The log cannot be trusted, or the database cannot be used.
    """
    question = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, *known_months()))
    with err.status("Computing seals again …"), billing_database(settings).connection() as connection:
        with decision(connection, "REPEATABLE READ") as tables:
            retention = read_retention(connection)
            in_log_from = BillingMonth.parse(retention.before_partition) if retention is not None else None
            found = verify_seals.verify_seals(
                connection, question, tables, in_log_from=in_log_from, kept_chain=kept_chain
            )
            archived = [one for one in tables.stand_ins if one.is_sealed and one.archived_seen is not None]
        if found.misfit is not None or not archived:
            return found
        from recon_pipeline.assets.archiving import verify_archives  # noqa: PLC0415 - slow

        misfit = verify_archives(connection, settings, [one.seal_id for one in archived])
    if misfit is None:
        return replace(found, archived=len(archived))
    return replace(found, misfit=misfit.what, fix=misfit.fix)


def sealed_as_json(done: tuple[Sealed, ...]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "sealed": [_as_json(one.record) | _since(one) for one in done]}


def reopened_as_json(done: tuple[RecordedSeal, ...]) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": True, "reopened": [_as_json(one) for one in done]}


def verified_as_json(found: VerifiedSeals) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": found.misfit is None, **asdict(found)}


def show_sealed(done: tuple[Sealed, ...]) -> None:
    """The same for a person."""
    for one in done:
        seal_ = one.record.seal
        out.print(
            f"Sealed {one.record.of_what}: {seal_.key_count:,} keys, {seal_.event_count:,} events, "
            f"{int(seal_.usage_count):,} units.",
            markup=False,
            soft_wrap=True,
        )
        out.print(f"Checksum {seal_.checksum}", markup=False, soft_wrap=True)
        if seal_.lake_source is not None:
            out.print(
                f"Of the sums that {seal_.lake_source['engine']} counted in {seal_.lake_source['url']}; events are no "
                "part of the checksum.",
                markup=False,
                soft_wrap=True,
            )
        if one.since is not None:
            out.print(
                f"It had been reopened {one.since.by_whom} ({one.since.seal.reason}); since the seal before, "
                f"{one.keys_changed:,} keys changed, by {one.units_changed:+,} units in all.",
                markup=False,
                soft_wrap=True,
            )
    out.print("Its counters follow the seal from now on; recon corrections shows what comes after.", soft_wrap=True)


def show_reopened(done: tuple[RecordedSeal, ...]) -> None:
    """The same for a person."""
    for one in done:
        out.print(f"Reopened {one.of_what}: {one.seal.reason}", markup=False, soft_wrap=True)
    if any(one.seal.lake_source is None for one in done):
        out.print(
            "Its counters follow the log again, from the next run on; what left the log meanwhile waits for an "
            "approval.",
            soft_wrap=True,
        )
    for one in done:
        if one.seal.lake_source is not None:
            out.print(
                f"The counters of {one.of_what} follow its newest count in the lake, from the next run on.",
                soft_wrap=True,
            )


def show_verified(found: VerifiedSeals) -> None:
    """The same for a person."""
    if found.misfit is not None:
        out.print(found.misfit, style="red", markup=False, soft_wrap=True)
        out.print(f"What to do: {found.fix}", markup=False, soft_wrap=True)
        return
    is_in_log = bool(found.in_force) or not (found.archived or found.in_lake)
    places = (
        f"the events of the {found.in_force:,} in force are in the log" if is_in_log else "",
        f"the events of the {found.archived:,} archived are in their files" if found.archived else "",
        f"{found.in_lake:,} are of sums counted in the lake, whose events were not read again" if found.in_lake else "",
        f"{found.declared_gone:,} are of months declared gone (recon retention)" if found.declared_gone else "",
    )
    where = "; ".join(filter(None, places))
    out.print(f"All {found.checked:,} seals fit: chain, sums and checksums; {where}.", soft_wrap=True)
    if found.head is not None:
        out.print(f"Newest chain: {found.head}", soft_wrap=True)


def exit_code(found: VerifiedSeals) -> int:
    """0 if every seal fits."""
    return EXIT_CLEAN if found.misfit is None else EXIT_NOT_CLEAN


def _as_json(recorded: RecordedSeal) -> dict[str, Any]:
    return {"seal_id": recorded.id, **asdict(recorded.seal), "usage_count": int(recorded.seal.usage_count)}


def _since(one: Sealed) -> dict[str, Any]:
    if one.since is None:
        return {}
    return {
        "reopened_at": one.since.seal.acted_at,
        "keys_changed": one.keys_changed,
        "units_changed": one.units_changed,
    }
