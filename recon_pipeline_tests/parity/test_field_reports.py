"""Mistakes of senders that people report in public trackers, each as what log and meter have, and what is found."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
Figures = tuple[tuple[int, datetime], ...]


@dataclass(frozen=True)
class Report:
    """What a customer used, what was sent for it, and what is found.

    Attributes:
        used: Units and time of each event of the log.
        sent: Units and timestamp of each event of the meter.
        compared_at: When both are compared.
        found: Class and units of each difference.
    """

    used: Figures
    sent: Figures
    compared_at: datetime
    found: tuple[tuple[str, int], ...]


REPORTS = {
    "the total so far is sent each time, as if it were set": Report(
        ((1, NOON), (1, NOON + 2 * HOUR), (1, NOON + 4 * HOUR)),
        ((1, NOON), (2, NOON + 2 * HOUR), (3, NOON + 4 * HOUR)),
        NOON + DAY,
        (("over_reported", 1), ("over_reported", 2)),
    ),
    "a day is sent on the next morning, with no timestamp": Report(
        ((19, NOON - DAY), (20, NOON)),
        ((19, NOON - 9 * HOUR), (20, NOON + 15 * HOUR)),
        NOON + 2 * DAY,
        (),
    ),
    "the last day of a period is sent after its end, with no timestamp": Report(
        ((5, MAY[1] - HOUR),),
        ((5, MAY[1] + 3 * HOUR),),
        MAY[1] + 5 * HOUR,
        (("misplaced", -5),),
    ),
    "one sum of the whole period is stamped a second before its end": Report(
        ((5, NOON), (6, NOON + 2 * DAY)),
        ((11, MAY[1] - SECOND),),
        MAY[1] + 2 * HOUR,
        (),
    ),
    "a sender takes its local time for UTC, two hours before it": Report(
        ((5, MAY[0] + HOUR), (7, NOON)),
        ((5, MAY[0] - HOUR), (7, NOON - 2 * HOUR)),
        NOON + DAY,
        (("misplaced", -5),),
    ),
    "what was given back is in the log and was never sent": Report(
        ((10, NOON), (-4, NOON + 2 * HOUR)),
        ((10, NOON),),
        NOON + DAY,
        (("over_reported", 4),),
    ),
    "a refused repetition stops a sender, and nothing after it is sent": Report(
        ((1, NOON), (2, NOON + HOUR), (3, NOON + 2 * HOUR)),
        ((1, NOON),),
        NOON + DAY,
        (("missing", -3), ("missing", -2)),
    ),
    "a batch that failed is sent from its beginning, without identifiers": Report(
        ((1, NOON), (2, NOON + HOUR), (4, NOON + 2 * HOUR)),
        ((1, NOON), (2, NOON + HOUR), (1, NOON), (2, NOON + HOUR), (4, NOON + 2 * HOUR)),
        NOON + DAY,
        (("over_reported", 1), ("over_reported", 2)),
    ),
    "a new meter takes over in the middle of the period": Report(
        ((3, NOON - 10 * DAY), (4, NOON)),
        ((4, NOON),),
        NOON + DAY,
        (("missing", -3),),
    ),
    "thousands of units are sent where the log counts single ones": Report(
        ((5_000, NOON),),
        ((5, NOON),),
        NOON + DAY,
        (("missing", -4_995),),
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_mistake_of_a_sender_is_found_for_what_it_is(app: Application, name: str) -> None:
    report = REPORTS[name]
    app.billing.query("alter table billing_usage_events drop constraint if exists billing_usage_events_quantity_check")
    for number, (units, at) in enumerate(report.used):
        app.use("a", units, at, sends=0, request_id=f"used {number}")
    for number, (units, at) in enumerate(report.sent):
        app.stripe.now = max(app.stripe.now, at)
        app.stripe.send("a", units, at, f"sent {number}")
    app.compare(report.compared_at)
    assert sorted((kind, units) for _, kind, units in app.found()) == sorted(report.found)
