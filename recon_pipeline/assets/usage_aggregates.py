"""Event sums per key, in `recon.usage_aggregate`: what each counter should be."""

from collections.abc import Iterator, Sequence

import dagster as dg

from recon_pipeline.assets import figures, sealed_months_hold
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.store.records import run_metrics
from recon_pipeline.store.sums import aggregates, increments, modes, odd_sums, quality
from recon_pipeline.store.sums.aggregates import Audit, StoredFromLog
from recon_pipeline.store.sums.horizons import Month
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.quality import Known


def usage_aggregates(names: Names) -> dg.AssetsDefinition:
    """The asset with its checks, of the installation of that name."""
    key = names.key("usage_aggregates")

    @dg.multi_asset(
        name="__".join(key.path),
        specs=[
            dg.AssetSpec(
                key,
                deps=[names.key("usage_events")],
                owners=["team:billing"],
                kinds={"postgres"},
                description="The sum of usage per customer, usage type and billing period, from valid events, each "
                "counted once. Stored in `recon.usage_aggregate`.",
            )
        ],
        check_specs=_check_specs(key),
        can_subset=True,  # so that a run need not evaluate each check
        **asset_options(names),
    )
    def summed(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step_of(context, names) as step:
            yield from _summed(context, step)

    return summed


def _check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "event_sums_fit_counters",
            asset=key,
            description="Every event sum is a whole number that a bigint counter can hold. A counter with another sum "
            "cannot be repaired; all others are.",
        ),
        dg.AssetCheckSpec(
            "quantities_are_not_negative",
            asset=key,
            description="No event has a negative quantity, or RECON_NEGATIVE_QUANTITIES=sum says that such events are "
            "credits. Else a drifted counter with such an event is reported and left alone.",
        ),
        dg.AssetCheckSpec(
            "aggregates_match_events",
            asset=key,
            description="Every stored sum equals the sum of the log. The nightly audit and runs with --full evaluate "
            "this; other runs in incremental mode do not.",
        ),
        sealed_months_hold.spec(key),
    ]


def _summed(context: dg.AssetExecutionContext, step: Step) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Add what is new in the log to the stored sums; audit them where that was asked for."""
    with step.decision("READ COMMITTED") as (connection, tables):
        choice, _ = step.open(connection, tables)
        can_advance = choice.mode is Mode.INCREMENTAL or modes.choose(connection, tables).mode is Mode.INCREMENTAL
    advance = _advance(step) if can_advance else Advance()
    stored = None if can_advance else _store_from_log(step)
    if can_advance and choice.mode is Mode.FULL:
        yield _audit(step)
    with step.database.transaction() as connection:
        count, oversized = odd_sums.oversized(connection, step.run, tables, months_tell=can_advance)
        known = quality.known(connection, step.run, tables) if can_advance else None
        are_any = known is None or any(month.negative_count for month in known.every_month)
        negative = odd_sums.negative_quantities(connection, step.run, tables) if are_any else (0, 0, ())
    yield dg.MaterializeResult(
        metadata={
            "months": step.months,
            "mode": choice.mode.value,
            **_texts(advance, known),
            **figures.by_month(
                context,
                step.run.extent,
                {**_counts(advance, stored), **(_sums(known.every_month) if known else {})},
                lambda month: _sums(known.of_month(month)) if known else {},
            ),
        },
    )
    yield dg.AssetCheckResult(
        check_name="event_sums_fit_counters",
        passed=count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{count:,} event sums are past bigint or not whole; their counters stay as they are. "
        "Look at the quantities of these customers' events."
        if count
        else None,
        metadata={"count": count, **sample("sample", oversized, odd_sums.OversizedSum)},
    )
    yield _not_negative(step, *negative)
    yield sealed_months_hold.sealed_months_hold(step, tables)


def _not_negative(
    step: Step, events: int, keys: int, found: tuple[odd_sums.NegativeQuantities, ...]
) -> dg.AssetCheckResult:
    refuses = step.run.refuses_negative
    what_becomes = (
        "Where the counter of such a key differs from the log, it is reported and left alone. If these events are "
        "credits, set RECON_NEGATIVE_QUANTITIES=sum; if they are mistakes, find their producer by request_id."
        if refuses
        else "They are summed, as RECON_NEGATIVE_QUANTITIES=sum says."
    )
    return dg.AssetCheckResult(
        check_name="quantities_are_not_negative",
        passed=not refuses or events == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{events:,} events of {keys:,} keys have a negative quantity. {what_becomes}" if events else None,
        metadata={"count": events, "keys": keys, **sample("sample", found, odd_sums.NegativeQuantities)},
    )


def _advance(step: Step) -> Advance:
    with step.decision("READ COMMITTED") as (connection, tables):
        advance = increments.advance(connection, step.run, tables)
        if advance.rebuilt_because is not None:
            run_metrics.note_aggregates(connection, step.run.run_id, rebuilt_because=advance.rebuilt_because)
    return advance


def _store_from_log(step: Step) -> StoredFromLog | None:
    with step.decision("READ COMMITTED") as (connection, tables):
        return aggregates.store_from_log(connection, step.run, tables)


def _audit(step: Step) -> dg.AssetCheckResult:
    """Compare the aggregates with the log, and correct those that differ."""
    with step.decision("READ COMMITTED") as (connection, tables):
        audit = aggregates.audit(connection, step.run, tables)
        run_metrics.note_aggregates(connection, step.run.run_id, aggregates_differing=audit.differing_count)
    return dg.AssetCheckResult(
        check_name="aggregates_match_events",
        passed=audit.differing_count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_audited(audit, step.months),
        metadata={
            "count": audit.differing_count,
            **sample("sample", audit.sample, aggregates.DifferingAggregate),
        },
    )


def _audited(audit: Audit, months: str) -> str:
    if audit.differing_count:
        return (
            f"{audit.differing_count:,} stored sums of {months} were not what the log adds up to; they were "
            "computed again. No counter was repaired by them, but a tick may have missed a drifted one, which this "
            "run repairs. Look for events that were written with an "
            "ingest_xid of their own (a restore, a copy, replication) or changed while triggers were off."
        )
    if audit.unaudited:
        return (
            f"Of {', '.join(map(str, audit.unaudited))} there are no stored sums of {months} to audit yet: "
            "the first are stored once RECON_SETTLE_SECONDS have passed since a run, or another run is writing them. "
            "Counters of this run were compared with the log itself."
        )
    return f"All stored sums of {months} are what the log adds up to."


def _sums(months: Sequence[Month]) -> figures.Figures:
    return {
        "keys": sum(month.key_count for month in months),
        "events": sum(month.event_count for month in months),
        "invalid_events": sum(month.invalid_count for month in months),
        "dedupe_count": sum(month.dedupe_count for month in months),
        "outside_period_events": sum(month.outside_period_count for month in months),
    }


def _counts(advance: Advance, stored: StoredFromLog | None) -> figures.Figures:
    if stored is not None:
        return {"keys": stored.keys, "events": stored.events, "keys_changed": stored.keys_changed}
    return {"absorbed_events": advance.absorbed_count}


def _texts(advance: Advance, known: Known | None) -> dict[str, str]:
    texts = {
        "months_built": ", ".join(advance.built_months),
        "months_recomputed": ", ".join(advance.recomputed_months),
        "rebuilt_because": advance.rebuilt_because,
        "horizon_waits_because": advance.waits_because,
        "horizon": str(known.horizon) if known else None,
    }
    return {name: text for name, text in texts.items() if text}
