"""The metrics for Prometheus: names and units by its conventions, with the product's four metrics among them.

Invariant: counters come from the records of runs, so they survive restarts, and two processes report the same values.
A value that cannot be read is not exposed as 0: the scrape fails.
"""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from recon_pipeline.core.parity.classes import DifferenceClass
from recon_pipeline.store.records.metrics import Metrics, RunTotals

OUTCOMES = ("clean", "not_clean", "compared", "paused", "blocked", "put_off", "failed")
_COUNTERS: tuple[tuple[str, str, Callable[[RunTotals], int]], ...] = (
    (
        "recon_drift_count",
        "Drifted keys that runs found; every run counts a key again that stays drifted.",
        lambda totals: totals.drift_count,
    ),
    (
        "recon_dedupe_count",
        "Duplicate events that runs found and did not count; every run counts those again that stay.",
        lambda totals: totals.dedupe_count,
    ),
    (
        "recon_reconcile_failures",
        "Keys that could not be repaired, and 1 for each run that failed as a whole.",
        lambda totals: totals.reconcile_failures,
    ),
    (
        "recon_over_quota_transitions",
        "Customers whom a repair would push or pushed over their limit.",
        lambda totals: totals.over_quota_transitions,
    ),
    (
        "recon_under_quota_transitions",
        "Customers whom a repair would bring or brought back below their limit.",
        lambda totals: totals.under_quota_transitions,
    ),
    ("recon_rows_repaired", "Counters that runs repaired.", lambda totals: totals.rows_repaired),
)


class ReconCollector(Collector):
    """Reads the metrics for each scrape."""

    def __init__(self, read: Callable[[], Metrics]) -> None:
        """Take the function that reads them."""
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry would otherwise read the metrics to learn the names."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        metrics = self._read()
        yield from _counters(metrics)
        yield from _parity(metrics)
        yield from _gauges(metrics)


def _counters(metrics: Metrics) -> Iterator[Metric]:
    runs = CounterMetricFamily("recon_runs", "Runs that ended, by outcome.", labels=["outcome"])
    ended = {totals.outcome: totals.runs for totals in metrics.totals}
    for outcome in OUTCOMES:
        runs.add_metric([outcome], ended.get(outcome, 0))
    yield runs
    for name, text, figure in _COUNTERS:
        yield CounterMetricFamily(name, text, value=sum(map(figure, metrics.totals)))


def _parity(metrics: Metrics) -> Iterator[Metric]:
    """Nothing where nothing was ever compared."""
    if metrics.parity.oldest_seconds is None and not metrics.parity.units:
        return
    units = GaugeMetricFamily(
        "recon_stripe_difference_units",
        "Units by which Stripe's meters differ from the log, too many or too few, by class.",
        labels=["class"],
    )
    for kind in DifferenceClass:
        units.add_metric([kind], float(metrics.parity.units.get(kind, 0)))
    yield units
    yield GaugeMetricFamily(
        "recon_stripe_oldest_comparison_seconds",
        "For how long the key has not been compared with Stripe of which that is longest; closed periods do not count.",
        value=metrics.parity.oldest_seconds or 0,
    )


def _gauges(metrics: Metrics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "recon_last_success_timestamp_seconds",
        "When a run last verified the current month for every customer, since 1970; 0 if none did.",
        value=metrics.last_success.timestamp() if metrics.last_success else 0,
    )
    latest = metrics.latest
    if latest is not None:
        yield GaugeMetricFamily(
            "recon_last_run_duration_seconds",
            "How long the latest run took that reached the current month.",
            value=latest.duration_seconds,
        )
        if latest.drift_count is not None:
            yield GaugeMetricFamily(
                "recon_drifted_keys", "Keys that the latest run found drifted.", value=latest.drift_count
            )
            units = GaugeMetricFamily(
                "recon_drifted_units",
                "Units by which the counters of these keys were too low (missed) or too high (excess).",
                labels=["direction"],
            )
            units.add_metric(["missed"], float(latest.units_missed))
            units.add_metric(["excess"], float(latest.units_excess))
            yield units
            yield GaugeMetricFamily(
                "recon_events_left_the_log",
                "Events that had been counted and are gone, for which the latest run did not lower counters.",
                value=latest.events_left_the_log,
            )
            yield GaugeMetricFamily(
                "recon_units_left_the_log",
                "Units of events that are gone or lowered, for which the latest run did not lower counters.",
                value=float(latest.units_left_the_log),
            )
        if latest.mismatch_count is not None:
            yield GaugeMetricFamily(
                "recon_mismatched_keys",
                "Keys that still differed from the log at the end of the latest run.",
                value=latest.mismatch_count,
            )
    yield GaugeMetricFamily(
        "recon_horizon_lag_seconds",
        "For how long the oldest open transaction has stopped the horizon.",
        value=metrics.horizon_lag_seconds,
    )
    yield GaugeMetricFamily("recon_open_holds", "Holds that are in force.", value=metrics.open_holds)
    yield GaugeMetricFamily("recon_paused", "1 while repairs are paused.", value=metrics.is_paused)
    failing = GaugeMetricFamily("recon_alerts_failing", "Alerts that fail now, by severity.", labels=["severity"])
    for severity, count in metrics.alarms.items():
        failing.add_metric([severity.value], count)
    yield failing
    yield GaugeMetricFamily(
        "recon_alerts_undelivered", "Messages not yet delivered to a target.", value=metrics.undelivered
    )
