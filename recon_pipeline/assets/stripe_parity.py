"""What Stripe's meters have beside what the log says was sent: an asset that only reads, with RECON_STRIPE_PARITY."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import dagster as dg

from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.months import BILLING_MONTHS, months_of_run
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.parity_pass import LONGEST_PASS, Comparison, Passed
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.classes import MEANING, DifferenceClass
from recon_pipeline.core.parity.metering import metered
from recon_pipeline.core.periods import range_in_words
from recon_pipeline.core.scope import Extent
from recon_pipeline.core.words import many
from recon_pipeline.providers.stripe import StripeMeters
from recon_pipeline.store.parity import found
from recon_pipeline.store.parity.found import ClassTotal, Coverage, DifferenceFound, OddKey
from recon_pipeline.store.parity.sending import Sending
from recon_pipeline.store.postgres.database import BillingDatabase, open_database

_BILLS, _LABELS = "stripe_bills_what_was_used", "labels_match_timestamps"
_LOOK = "recon parity lists all differences; docs/stripe.md says what to do about each class."


def stripe_parity(names: Names) -> dg.AssetsDefinition:
    """The asset, of the installation of that name."""
    key = names.key("stripe_parity")

    @dg.asset(
        key=key,
        deps=[names.key("repaired_counters")],
        partitions_def=BILLING_MONTHS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=names.group,
        required_resource_keys={names.database},
        owners=["team:billing"],
        kinds={"postgres", "stripe"},
        description="What Stripe's meters have, beside what the log says was sent, by the timestamps as sent. It only "
        "looks: nothing is written to Stripe, and no counter changes. Stored in `recon.parity_key` and "
        "`recon.parity_difference`.",
        check_specs=[
            dg.AssetCheckSpec(
                _BILLS,
                asset=key,
                description="For each customer and period, Stripe's meter has exactly what the log says was sent. A "
                f"difference that is younger than RECON_STRIPE_LAG_MINUTES is no failure. {_LOOK}",
            ),
            dg.AssetCheckSpec(
                _LABELS,
                asset=key,
                description="Events lie in the period of their label by the timestamps as sent too. Stripe bills by "
                "timestamp, the counter counts by label: correct the one or the other where the application sends.",
            ),
        ],
    )
    def parity(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        try:
            return _compared(context, getattr(context.resources, names.database))
        except ReconError as error:
            raise failure(error) from error

    return parity


def _compared(context: dg.AssetExecutionContext, resource: ReconciledDatabase) -> dg.MaterializeResult:
    settings, parity = resource.settings(), resource.parity()
    first, last = months_of_run(dict(context.run.tags))
    scope = metered(settings.scope, parity.meters)
    extent = Extent(scope, first, last)
    database, meters = open_database(settings, keeps_connection=True), StripeMeters(parity.key, parity.url)
    passes = [
        Comparison(
            database,
            Sending(usage, parity.meters[usage.usage_type], extent),
            meters,
            timedelta(minutes=parity.lag_minutes),
            lambda: datetime.now(UTC),
            LONGEST_PASS / len(scope),
        ).run()
        for usage in scope
    ]
    found = _result(database, extent, passes, calls=meters.pace.calls)
    database.close()
    return found


def _result(database: BillingDatabase, extent: Extent, passes: Sequence[Passed], *, calls: int) -> dg.MaterializeResult:
    with database.transaction() as connection:
        covered = found.coverage(connection, extent)
        classes = found.by_class(connection, extent)
        largest = found.differences(connection, extent)
        refused = found.odd_keys(connection, extent, are_refused=True)
        elsewhere = found.odd_keys(connection, extent, are_refused=False)
    ended = "; ".join(filter(None, (one.ended_because for one in passes)))
    unknown = "; ".join(filter(None, (one.rejections_unknown_because for one in passes)))
    return dg.MaterializeResult(
        metadata={
            "months": range_in_words(extent.first, extent.last),
            "keys": covered.keys,
            "keys_compared_now": sum(one.compared for one in passes),
            "keys_never_compared": covered.keys - covered.compared,
            "calls": calls,
            **{f"units_{kind}": _number(units) for kind, units in _units_by_class(classes).items()},
            **({"ended_because": ended} if ended else {}),
            **({"error_reports": unknown} if unknown else {}),
        },
        check_results=[_bills(covered, classes, largest, refused, ended), _labels(covered, elsewhere)],
    )


def _units_by_class(classes: Sequence[ClassTotal]) -> dict[str, Decimal]:
    return {kind: sum((one.units for one in classes if one.kind == kind), Decimal(0)) for kind in DifferenceClass}


def _number(units: Decimal) -> int | float:
    """For metadata, which plots numbers: whole units exactly."""
    return int(units) if units == units.to_integral_value() else float(units)


def _bills(
    covered: Coverage,
    classes: Sequence[ClassTotal],
    largest: Sequence[DifferenceFound],
    refused: Sequence[OddKey],
    ended: str,
) -> dg.AssetCheckResult:
    real = [one for one in classes if one.kind != DifferenceClass.LAGGING]
    count = sum(one.differences for one in real)
    never = covered.keys - covered.compared
    said = [
        f"{one.differences:,} {one.kind} ({one.units:+,f} units of {many(one.customers, 'customer')}): "
        f"{MEANING[DifferenceClass(one.kind)]}."
        for one in real
    ]
    if covered.refused:
        said.append(f"Stripe refuses {many(covered.refused, 'customer')} of the log: see refused.")
    if ended:
        said.append(f"The comparison ended early, and goes on in the next run: {ended}")
    if never:
        said.append(f"{never:,} of {covered.keys:,} keys were never compared.")
    is_wrong = bool(count or covered.refused)
    return dg.AssetCheckResult(
        check_name=_BILLS,
        passed=not (is_wrong or ended),
        severity=dg.AssetCheckSeverity.ERROR if is_wrong else dg.AssetCheckSeverity.WARN,
        description=" ".join((*said, _LOOK)) if said else None,
        metadata={
            "count": count,
            "units": _number(sum((abs(one.units) for one in real), Decimal(0))),
            **sample("sample", [one for one in largest if one.kind != DifferenceClass.LAGGING], DifferenceFound),
            **sample("refused", refused, OddKey),
        },
    )


def _labels(covered: Coverage, elsewhere: Sequence[OddKey]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=_LABELS,
        passed=covered.elsewhere_count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{covered.elsewhere_count:,} events with {covered.elsewhere_units:,f} units have the label of "
        "another period than the one in which they were sent: Stripe bills them by timestamp. Correct the label or the "
        "timestamp where the application sends."
        if covered.elsewhere_count
        else None,
        metadata={
            "count": covered.elsewhere_count,
            "units": _number(covered.elsewhere_units),
            **sample("sample", elsewhere, OddKey),
        },
    )
