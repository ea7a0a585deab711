"""The event log as a run finds it. Reads only: the log is the application's."""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets import approval, figures
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import known_months, start_period_is_declared
from recon_pipeline.store.counters import lost_log
from recon_pipeline.store.counters.compare import DriftedKey
from recon_pipeline.store.records import run_metrics
from recon_pipeline.store.sums import events_beyond_months, horizons, quality
from recon_pipeline.store.sums.horizons import OldestTransaction
from recon_pipeline.store.sums.modes import Mode, ModeChoice


def _check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "event_log_is_visible",
            asset=key,
            blocking=True,
            description="At least one event is visible in each metered usage that has counters. "
            "An empty log beside counters is a lost log, and a repair from it would set all counters to 0.",
        ),
        dg.AssetCheckSpec(
            "events_are_valid",
            asset=key,
            description="Every event has a finite quantity, a period that ends after it begins, and a customer whose "
            "name is not too long for an index. Others are never summed.",
        ),
        dg.AssetCheckSpec(
            "request_ids_are_unique",
            asset=key,
            description="Each event occurs once, by its identity (RECON_EVENT_IDENTITY; by default gateway and request "
            "id). If it occurs again, only the first counts.",
        ),
        dg.AssetCheckSpec(
            "events_lie_in_their_period",
            asset=key,
            description="Each event_timestamp lies in the event's own billing period. Other events are summed too, "
            "because the period decides what is billed.",
        ),
        dg.AssetCheckSpec(
            "events_lie_in_known_months",
            asset=key,
            description="Each event's period begins in a month from RECON_START_PERIOD to next month. If that variable "
            "is set, earlier periods are left out on purpose. No run reads other events: their counters are left as "
            "they are.",
        ),
        dg.AssetCheckSpec(
            "horizon_advances",
            asset=key,
            description=f"No transaction has been open for more than {horizons.HELD_BACK_SECONDS // 60} minutes. "
            "Events after it are counted all the same, but read again by every run until it ends.",
        ),
    ]


def usage_events(names: Names) -> dg.AssetsDefinition:
    """The asset with its checks, of the installation of that name."""
    key = names.key("usage_events")

    @dg.asset(
        key=key,
        deps=[names.key("backfilled_events")],
        check_specs=_check_specs(key),
        owners=["team:billing"],
        kinds={"postgres"},
        description="The metered actions of a billing month in `billing_usage_events`: how many there are, how many "
        "count, and why the others do not.",
        **asset_options(names),
    )
    def measured(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        with step_of(context, names) as step:
            yield from _measured(context, step)

    return measured


def _measured(context: dg.AssetExecutionContext, step: Step) -> Iterator[dg.MaterializeResult]:
    """Take the log's horizon and measure its quality."""
    with step.decision() as (connection, tables):
        choice, start = step.open(connection, tables)
        known = quality.known(connection, step.run, tables) if choice.mode is Mode.INCREMENTAL else None
        found = quality.measure(connection, step.run, tables, known, since=start.previous_started_at)
        measured = found.quality
        run_metrics.note_events(connection, step.run.run_id, measured)
        oldest = horizons.oldest_transaction(connection)
        first, current = known_months()
        known_until = current.next()  # whose events may come a little early
        beyond = events_beyond_months.find_events_beyond(
            connection, step.run, tables, first=first, last=known_until, mode=choice.mode
        )
    lost, approved = approval.lost_log_refusal(step)
    would_change = _without_a_log(step) if lost or approved else ()
    yield dg.MaterializeResult(
        metadata={
            "months": step.months,
            "mode": choice.mode.value,
            **({"mode_reason": choice.reason} if choice.reason else {}),
            "horizon_lag_seconds": round(oldest.seconds or 0) if oldest else 0,
            "horizon": start.horizon,
            **figures.by_month(
                context,
                step.run.extent,
                {
                    "events_scanned": measured.events_scanned,
                    "new_events": measured.new_count,
                    "invalid_events": measured.invalid_count,
                    "dedupe_count": measured.dedupe_count,
                    "outside_period_events": measured.outside_period_count,
                },
                # Of each month usage_aggregates says it, which has added what is new to its sums.
            ),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="event_log_is_visible",
                passed=lost is None,
                description=str(lost) if lost else approved,
                metadata=sample("would_change", would_change, DriftedKey),
            ),
            _warning(
                "events_are_valid",
                measured.invalid_count,
                "events are invalid and were not summed. Find their producer by request_id; "
                "the log itself is never changed.",
                found.invalid,
            ),
            _warning(
                "request_ids_are_unique",
                measured.dedupe_count,
                "events repeat another one and were not summed. "
                + (
                    f"{tables.wider_key}: see the check event_identity_is_known."
                    if tables.wider_key is not None
                    else f"A unique index on ({tables.event_identity}) keeps them out."
                ),
                (),
            ),
            _warning(
                "events_lie_in_their_period",
                measured.outside_period_count,
                "events were billed in a period that does not hold their timestamp. They are summed; "
                "look at the clock and the period choice of their producer.",
                found.outside,
            ),
            _in_known_months(beyond, first, known_until),
            _advances(choice, oldest),
        ],
    )
    if lost is not None:
        raise lost


def _without_a_log(step: Step) -> tuple[DriftedKey, ...]:
    with step.decision("READ COMMITTED") as (connection, tables):
        return lost_log.largest(connection, step.run, tables)


def _advances(choice: ModeChoice, oldest: OldestTransaction | None) -> dg.AssetCheckResult:
    if choice.mode is Mode.FULL or oldest is None or (oldest.seconds or 0) <= horizons.HELD_BACK_SECONDS:
        return dg.AssetCheckResult(check_name="horizon_advances", passed=True, severity=dg.AssetCheckSeverity.WARN)
    if oldest.prepared_as is not None:
        who = f"the prepared transaction {oldest.prepared_as!r}"
        fix = "Commit it or roll it back: commit prepared ...; or rollback prepared ...;"
    elif oldest.pid is not None:
        who = (
            f"backend {oldest.pid} ({oldest.application or 'without a name'}, role {oldest.role}, "
            f"database {oldest.database}, {oldest.state})"
        )
        fix = f"Ask its owner to end it, or: select pg_terminate_backend({oldest.pid});"
    else:
        who = f"transaction {oldest.horizon}, whose backend our role may not see"
        fix = "Let the role see it: grant pg_read_all_stats to the role of DATABASE_URL; or look in pg_stat_activity."
    return dg.AssetCheckResult(
        check_name="horizon_advances",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"The horizon has been held back for {(oldest.seconds or 0) / 60:.0f} minutes by {who}. "
        f"Nothing is lost: later events are counted, but read again by every run. {fix}",
        metadata={"seconds": round(oldest.seconds or 0), "transaction": oldest.horizon},
    )


def _in_known_months(
    beyond: events_beyond_months.BeyondMonths | None, first: BillingMonth, last: BillingMonth
) -> dg.AssetCheckResult:
    name, severity = "events_lie_in_known_months", dg.AssetCheckSeverity.WARN
    if beyond is None:
        description = (
            "This run did not check it, because it would have to read the whole log: no index begins with "
            "(usage_type, period_start). The nightly audit checks it, and so does recon reconcile --full."
        )
        return dg.AssetCheckResult(check_name=name, passed=True, severity=severity, description=description)
    is_declared = start_period_is_declared()
    parts = (
        (
            beyond.earlier_count,
            f"begin before RECON_START_PERIOD ({first.key})"
            + (", as declared" if is_declared else ": set it to the first month that counts"),
        ),
        (beyond.later_count, f"begin after {last.key}: find their producer by request_id, and look at its clock"),
        (beyond.never_count, "have no period_start: find their producer by request_id"),
    )
    counts = "; ".join(f"{count:,} events {what}" for count, what in parts if count)
    at_least = "" if beyond.is_exact else "At least so many; the nightly audit counts them all. "
    return dg.AssetCheckResult(
        check_name=name,
        passed=beyond.later_count + beyond.never_count == 0 and (beyond.earlier_count == 0 or is_declared),
        severity=severity,
        description=f"{counts}. {at_least}No run reads them, and their counters are left as they are."
        if counts
        else None,
        metadata={"count": beyond.event_count, **sample("sample", beyond.sample, quality.OddEvent)},
    )


def _warning(name: str, count: int, sentence: str, odd: tuple[quality.OddEvent, ...]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{count:,} {sentence}" if count else None,
        metadata={"count": count, **sample("sample", odd, quality.OddEvent)},
    )
