"""The exact comparison of counters with the log at one snapshot, and the guards before anything is repaired."""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets import approval, by_month, counters_in_known_months, events_left, figures
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.errors import BlockedError
from recon_pipeline.core.event_identity import identity_of
from recon_pipeline.core.guards import Breach, DriftSummary
from recon_pipeline.store.counters import compare, doubt_of_identity, doubt_of_periods
from recon_pipeline.store.counters.doubt_of_identity import SharedEvent, SharedEvents
from recon_pipeline.store.counters.events_left import EventsLeft
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.records import runs
from recon_pipeline.store.sums.run import SAMPLE_ROWS


def counter_drift(names: Names) -> dg.AssetsDefinition:
    """The asset with its checks, of the installation of that name."""
    key = names.key("counter_drift")

    @dg.asset(
        key=key,
        deps=[names.key(one) for one in ("usage_aggregates", "billing_usage_counters", "billing_subscriptions")],
        check_specs=_check_specs(key),
        owners=["team:billing"],
        kinds={"postgres"},
        description="Every counter that differs from the log, with the kind of drift and the effect of a repair on the "
        "customer's quota. Stored in `recon.counter_drift`.",
        **asset_options(names),
    )
    def compared(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult | dg.Output[None] | dg.AssetCheckEvaluation]:
        with step_of(context, names) as step:
            yield by_month.output(compared, events_left.CHECK)
            yield from _compared(context, key, step)

    return compared


def _check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "drift_is_within_budgets",
            asset=key,
            blocking=True,
            description="The repairs of this drift are within the budgets of a day. Beyond them nothing is written "
            "until a person approves it with a reason.",
        ),
        events_left.check_spec(key),
        dg.AssetCheckSpec(
            "event_identity_is_known",
            asset=key,
            description="The log's unique keys agree with RECON_EVENT_IDENTITY, and no event of a drifted counter "
            "shares its identity with an event of another key. A drifted counter with such an event is left as it is.",
        ),
        dg.AssetCheckSpec(
            "quota_limits_are_known",
            asset=key,
            description="The table `billing_subscriptions` exists, so that limits and quota transitions are known.",
        ),
        counters_in_known_months.spec(key),
        dg.AssetCheckSpec(
            "periods_are_written_in_one_way",
            asset=key,
            description="No drifted key has a period that another key of the same customer and usage type writes in "
            "another way: cut to other fractions of a second, or, if counters are unique without the end, with "
            "another end. None has a counter whose events are under another, overlapping period. Neither of two such "
            "keys is repaired. The nightly audit checks all counters, drifted or not.",
        ),
    ]


def _compared(
    context: dg.AssetExecutionContext, key: dg.AssetKey, step: Step
) -> Iterator[dg.MaterializeResult | dg.AssetCheckEvaluation]:
    """Compare counters with the log at one snapshot."""
    found, tables = step.compare()
    with step.database.transaction() as connection:
        drifted = compare.sample(connection, step.run.run_id)
        left = events_left.note(connection, step.run) if found.summary.doubtful else EventsLeft()
        twice = doubt_of_periods.written_twice(connection, step.run.run_id) if found.summary.doubtful else (0, ())
        pairs = (
            doubt_of_periods.counters_written_twice(connection, step.run, tables)
            if runs.reads_all(connection, step.run.run_id)
            else (0, ())
        )
    shared = SharedEvents()
    if not tables.refuses_repetitions:
        with step.decision("READ COMMITTED") as (connection, _):
            shared = doubt_of_identity.shared_events(connection, step.run.run_id, tables)
    summary = found.summary
    exceeded, blocked = approval.decide(step, found)
    yield dg.MaterializeResult(
        metadata={
            "months": step.months,
            **figures.by_month(
                context,
                step.run.extent,
                {
                    **_figures(summary),
                    "counters_scanned": summary.counters_scanned,
                    "keys_compared": summary.keys_compared,
                },
                lambda month: _figures(found.of_month(month)),
            ),
            **sample("sample", drifted, compare.DriftedKey),
            **sample("by_month", found.cells, compare.DriftCell),
        },
        check_results=[
            _within_budgets(step, found, drifted, exceeded, blocked),
            _identity_is_known(tables, shared),
            dg.AssetCheckResult(
                check_name="quota_limits_are_known",
                passed=tables.has_subscriptions,
                severity=dg.AssetCheckSeverity.WARN,
                description=None
                if tables.has_subscriptions
                else "There is no table billing_subscriptions, so quota transitions are unknown (shown as 0). "
                "Counters are compared and repaired all the same.",
            ),
            counters_in_known_months.counters_are_in_known_months(step, tables),
            _written_in_one_way(*twice, pairs),
        ],
    )
    yield from events_left.evaluations(
        context.instance,
        key,
        step.run,
        left,
        approved=approval.approved_by(step) if summary.approved else None,
        is_blocked=blocked is not None,
        how_to_approve=step.how_to_approve,
    )
    if blocked is not None:
        raise blocked


def _figures(found: DriftSummary) -> figures.Figures:
    return {
        "drift_count": found.drift_count,
        **found.by_kind,
        "over_quota_transitions": found.over_quota_transitions,
        "under_quota_transitions": found.under_quota_transitions,
        "usage_missed": found.usage_missed,
        "usage_excess": found.usage_excess,
    }


def _written_in_one_way(
    count: int,
    found: tuple[doubt_of_periods.WrittenTwice, ...],
    pairs: tuple[int, tuple[doubt_of_periods.WrittenTwice, ...]],
) -> dg.AssetCheckResult:
    sentences = [
        f"{count:,} drifted keys were left alone: their period is written in two ways, or their usage is under two "
        "periods, a counter under one and its events under the other."
        if count
        else "",
        f"{pairs[0]:,} pairs of counters count one period that is written in two ways: usage is split in two, and so "
        "is the quota."
        if pairs[0]
        else "",
        "Have it written in one way from now on, and correct what is there: docs/runbook.md shows how.",
    ]
    return dg.AssetCheckResult(
        check_name="periods_are_written_in_one_way",
        passed=not (count or pairs[0]),
        severity=dg.AssetCheckSeverity.ERROR if count else dg.AssetCheckSeverity.WARN,
        description=" ".join(filter(None, sentences)) if count or pairs[0] else None,
        metadata={
            "count": count,
            "pairs": pairs[0],
            **sample("sample", (*found, *pairs[1])[:SAMPLE_ROWS], doubt_of_periods.WrittenTwice),
        },
    )


def _within_budgets(
    step: Step,
    found: compare.Comparison,
    drifted: tuple[compare.DriftedKey, ...],
    exceeded: tuple[Breach, ...],
    blocked: BlockedError | None,
) -> dg.AssetCheckResult:
    approved = approval.approved_by(step) if exceeded else None
    return dg.AssetCheckResult(
        check_name="drift_is_within_budgets",
        passed=blocked is None,
        description=str(blocked) if blocked is not None else approved,
        metadata={
            "months": step.months,
            "drift_count": found.summary.drift_count,
            **sample("would_repair", drifted, compare.DriftedKey),
            **{f"{breach.variable} allows": breach.allowed for breach in exceeded},
            **{f"{breach.variable} used in the last 24 hours": breach.earlier for breach in exceeded if breach.earlier},
        },
    )


def _like(tables: BillingTables, shared: SharedEvents) -> str:
    found = identity_of(frozenset(tables.event_identity.columns) | shared.columns)
    return f", like {found.setting}" if found is not None and shared.columns else ""


def _identity_is_known(tables: BillingTables, shared: SharedEvents) -> dg.AssetCheckResult:
    sentences: list[str] = []
    if shared.key_count:
        sentences.append(
            f"{shared.key_count:,} drifted counters were left as they are: the log does not say what is one event."
        )
    if tables.wider_key is not None:
        sentences.append(f"{tables.wider_key}. {tables.wider_key.ways_to_declare}")
    elif shared.key_count:
        sentences.append(
            f"Events of different keys have the same {tables.event_identity}, which {tables.event_identity.setting} "
            f"says are one event. If they are several: name them by more columns{_like(tables, shared)}, then recon "
            "init. "
            "If they are one: delete the event that should not be there; the next run asks before it lowers a counter."
        )
    elif shared.sample:
        sentences.append("Events that repeat another one have another quantity than it; the first to arrive counts.")
    return dg.AssetCheckResult(
        check_name="event_identity_is_known",
        passed=not shared.key_count and tables.wider_key is None,
        severity=dg.AssetCheckSeverity.ERROR if shared.key_count else dg.AssetCheckSeverity.WARN,
        description=" ".join(sentences) or None,
        metadata={
            "count": shared.key_count,
            "event_identity": str(tables.event_identity),
            **sample("sample", shared.sample, SharedEvent),
        },
    )
