"""`recon parity probe`: how usage was sent is found from Stripe's figures of one customer, and said as the setting."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.parity.metering import Metering, parse_meters
from recon_pipeline.core.parity.probing import ways
from recon_pipeline.faces.demo.fake_stripe import KEY, METER
from recon_pipeline.faces.parity_probe import Asked, Probe, exit_code, probe, show
from recon_pipeline.parity_settings import read_parity
from recon_pipeline.providers.pace import Pace
from recon_pipeline.providers.stripe import StripeMeters
from recon_pipeline.settings import read_settings
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY

NOW = datetime(2025, 5, 25, 12, 40, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
USES = tuple(
    (units, datetime(2025, 5, day, hour, minute, tzinfo=UTC), timedelta(minutes=delay))
    for units, day, hour, minute, delay in (
        (5, 12, 7, 10, 15),
        (7, 12, 7, 40, 25),
        (1, 13, 23, 50, 20),
        (9, 14, 5, 30, 130),
        (2, 17, 9, 59, 2),
    )
)
"""Units, when they were used, and how much later they reached the log."""


def record(app: Application, customer: str = "a", *, metadata: str = "{}", delayed: bool = True) -> None:
    """Usage in the log, which is not sent yet."""
    for units, at, delay in USES:
        created_at = at + delay if delayed else at
        app.use(customer, units, at, sends=0, created_at=created_at, metadata=metadata)


def send(app: Application, way: Metering, customer: str = "a") -> None:
    """What an application sends that works in this way, once a sum is over."""
    sums = Counter[datetime]()
    for number, (units, at, delay) in enumerate(USES):
        stamp = {"event_timestamp": at, "created_at": at + delay, "period_start": MAY[0]}[way.timestamp]
        if way.sends == "each":
            app.stripe.now = at + delay
            app.stripe.send(customer, units, stamp, f"{customer}/{number}")
        else:
            begun = stamp.replace(minute=0) if way.sends == "hour" else stamp.replace(hour=0, minute=0)
            sums[begun] += units
    for begun, units in sorted(sums.items()):
        ended = begun + (HOUR if way.sends == "hour" else DAY)
        app.stripe.now = ended
        app.stripe.send(customer, units, ended if way.stamped_at == "end" else begun, f"{customer}/{begun}")


def probed(
    app: Application, customer: str = "a", *, meter: str | None = METER, meters: str = "{}", days: int = 35
) -> Probe:
    app.stripe.now = NOW
    variables = {
        "DATABASE_URL": app.billing.url,
        "STRIPE_API_KEY": KEY,
        "RECON_STRIPE_URL": app.stripe.url,
        "RECON_STRIPE_METERS": meters,
    }
    of_stripe = StripeMeters(KEY, app.stripe.url, Pace(calls_per_second=1_000_000))
    parity = read_parity(variables, is_asked=True)
    return probe(read_settings(variables), parity, of_stripe, Asked("a", None, METER, 35), now=NOW)


def metering_of(setting: str) -> dict[str, Any]:
    """What a printed setting says, as the comparison takes it."""
    way = parse_meters(setting)["remote_commands"]
    return {name: getattr(way, name) for name in ("sends", "timestamp", "stamped_at", "customer")}


@pytest.mark.parametrize("way", ways(Metering(METER)), ids=lambda way: f"{way.sends}-{way.timestamp}-{way.stamped_at}")
def test_each_way_of_sending_is_found_and_the_setting_leaves_no_difference(app: Application, way: Metering) -> None:
    record(app)
    send(app, way)
    before = app.billing.log_checksum(), app.billing.counters()
    found = probed(app)
    (setting,) = found.settings
    assert parse_meters(setting)["remote_commands"] == way
    assert exit_code(found) == 0
    assert (app.billing.log_checksum(), app.billing.counters()) == before
    assert app.billing.value("select count(*) from recon.parity_key") == 0
    app.compare(NOW, **metering_of(setting))
    assert app.found() == []


def test_the_setting_is_printed_to_the_letter_beside_what_is_set_for_other_usage(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    record(app)
    send(app, Metering(METER, sends="hour", stamped_at="end"))
    show(probed(app, meters='{"sms": {"meter": "mtr_sms"}, "remote_commands": {"meter": "mtr_old", "final_hours": 3}}'))
    assert capsys.readouterr().out.splitlines() == [
        "One way of sending explains exactly what Stripe has from 2025-04-20 to 2025-05-25 UTC:",
        'RECON_STRIPE_METERS={"sms": {"meter": "mtr_sms", "sends": "each", "timestamp": "event_timestamp"}, '
        f'"remote_commands": {{"meter": "{METER}", "sends": "hour", "timestamp": "event_timestamp", '
        '"stamped_at": "end", "final_hours": 3}}',
    ]


@pytest.mark.parametrize(
    ("column", "metadata", "prepare"),
    [
        ("metadata.stripe", '{"stripe": "cus_1", "email": "a@example.com"}', ""),
        (
            "stripe_customer",
            '{"email": "a@example.com"}',
            "alter table billing_usage_events add stripe_customer text default 'cus_1'",
        ),
    ],
)
def test_the_column_that_has_stripes_customer_is_found_and_nothing_else_of_it_is_sent(
    app: Application, column: str, metadata: str, prepare: str
) -> None:
    if prepare:
        app.billing.query(prepare)
    record(app, metadata=metadata)
    send(app, Metering(METER), "cus_1")
    app.stripe.customers = {"cus_1"}
    asked = set[str]()
    answer = app.stripe.answer

    def noting(path: str, given: dict[str, str]) -> dict[str, Any]:
        asked.add(given.get("customer", ""))
        return answer(path, given)

    app.stripe.answer = noting  # pyright: ignore[reportAttributeAccessIssue]
    found = probed(app)
    (setting,) = found.settings
    assert parse_meters(setting)["remote_commands"].customer == column
    assert found.refused == {"gateway_customer_id": "Stripe refuses: No such customer: 'a'"}
    assert asked == {"", "a", "cus_1"}
    app.compare(NOW, **metering_of(setting))
    assert (app.found(), app.coverage().refused) == ([], 0)


def test_where_two_ways_come_to_the_same_both_are_said_and_how_to_tell_them_apart(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    record(app, delayed=False)
    for number, (units, at, _) in enumerate(USES):
        app.stripe.now = at.replace(minute=59)
        app.stripe.send("a", units, at, f"{number}")
    found = probed(app)
    show(found)
    said = capsys.readouterr().out
    assert [metering_of(setting)["timestamp"] for setting in found.settings] == ["event_timestamp", "created_at"]
    assert "2 ways of sending explains exactly" not in said
    assert "2 ways of sending explain exactly" in said
    assert "Nothing in what this customer used distinguishes them." in said
    assert exit_code(found) == 1


def test_where_no_way_explains_it_the_closest_are_shown_with_what_differs(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    record(app)
    send(app, Metering(METER, sends="day"))
    app.stripe.send("a", 3, USES[0][1], "another program's")
    found = probed(app)
    show(found)
    assert (found.settings, exit_code(found)) == ((), 1)
    closest = found.tried[0]
    assert (closest.metering.sends, closest.hours, closest.units) == ("day", 1, 3)
    said = capsys.readouterr().out
    assert said.startswith("No way of sending explains what Stripe has from 2025-04-20 to 2025-05-25 UTC.")
    assert "something was lost or sent twice" in said


def test_a_surplus_within_an_hour_that_is_right_in_all_is_no_explanation(app: Application) -> None:
    """The hour is equal, and its minutes are not: the application sends in a way that is none of ours."""
    record(app)
    for number, (units, at, _) in enumerate(USES):
        app.stripe.now = at.replace(minute=59)
        app.stripe.send("a", units, at.replace(minute=33), f"{number}")
    found = probed(app)
    assert found.settings == ()
    assert found.tried[0].hours == 1


def test_a_customer_of_whom_stripe_has_nothing_shows_no_way_of_sending(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    record(app)
    found = probed(app)
    show(found)
    assert exit_code(found) == 1
    assert capsys.readouterr().out == (
        "Stripe's meter has nothing of a from 2025-04-20 to 2025-05-25 UTC: nothing can be concluded. Probe another "
        "customer, or more days (--days).\n"
    )


def test_a_comparison_by_a_column_that_the_log_does_not_have_is_refused(app: Application) -> None:
    record(app)
    with pytest.raises(ReconError) as refused:
        app.compare(NOW, customer="stripe_id")
    assert refused.value.what == (
        "RECON_STRIPE_METERS: customer of 'remote_commands' is 'stripe_id', and billing_usage_events has no column "
        "stripe_id."
    )
    assert refused.value.fix == "Name the column that has Stripe's customer: recon parity probe --customer ID finds it."


def test_a_customer_whose_events_name_none_of_stripes_is_refused_and_one_without_events_is_not_asked_about(
    app: Application,
) -> None:
    record(app)
    app.billing.add_counter("unused", 0)
    assert app.compare(NOW, customer="metadata.stripe").refused == 1
    assert app.billing.value("select error from recon.parity_key where gateway_customer_id = 'a'") == (
        "Its events name no customer of the provider."
    )
    assert app.billing.value("select provider_units from recon.parity_key where gateway_customer_id = 'unused'") is None
