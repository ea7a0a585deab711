"""`recon explain`: every figure is what log, ledger and subscriptions say; the report needs nothing but the file."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recon_pipeline.store.records.explain import KEYS_EXPLAINED, KEYS_SHOWN, ROWS_SHOWN
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing, in_month
from recon_pipeline_tests.reconciliation.traffic import wait_until

CUSTOMER = "cus_<b>[red]&1"
MAY_ONLY = ("--period", "2025-05")


def on(day: int, hour: int = 12) -> datetime:
    return datetime(2025, 5, day, hour, tzinfo=UTC)


@pytest.fixture
def denied(billing: Billing) -> Billing:
    """A customer of the free plan in May: 30 units on the 3rd, and on the 9th 25 in one minute, which came late."""
    billing.subscribe(CUSTOMER, status="past_due")
    for number in range(3):
        billing.add_event(
            CUSTOMER, 10, event_timestamp=on(3), created_at=on(3), request_id=f"web-{number}-0a1b2c3d",
            metadata='{"device_id": "thermostat-7"}',
        )  # fmt: skip
    for number in range(5):
        billing.add_event(
            CUSTOMER, 5, event_timestamp=on(9), created_at=on(9) + timedelta(hours=30),
            request_id=f"retry:{number}:9f8b7c6d-0000-4000-8000-00000000000{number}",
            metadata='{"device": {"id": "gateway-1"}}',
        )  # fmt: skip
    billing.add_counter(CUSTOMER, 90)
    billing.record("somebody else", 1_000)
    return billing


def test_every_figure_of_a_key_is_what_the_log_says(denied: Billing, orchestrated: None) -> None:
    recon("reconcile", *MAY_ONLY)
    output = recon("explain", "--customer", CUSTOMER, *MAY_ONLY, "--json")
    assert output.exit_code == 0
    (one,) = output.json["explanations"]

    assert (one["key"]["usage_count"], one["difference"]) == (55, 0)
    sums = one["sums"]
    assert (sums["event_count"], sums["usage_count"], sums["late_count"], sums["late_usage"]) == (8, 55, 5, 25)
    assert (sums["invalid_count"], sums["repeated_count"], sums["latest_by_seconds"]) == (0, 0, 30 * 3600)
    assert one["limit"]["units"] == 50
    assert (
        "no active or trialing subscription covers the period; the latest is subscription past_due"
        in (one["limit"]["source"])
    )
    assert [(day["day"], day["usage_count"], day["running_total"]) for day in one["days"]] == [
        ("2025-05-03", 30, 30),
        ("2025-05-09", 25, 55),
    ]
    assert [(crossing["name"], crossing["day"]) for crossing in one["crossings"]] == [
        ("free", "2025-05-09"),
        ("paid", None),
    ]
    assert [(producer["pattern"], producer["device"], producer["usage_count"]) for producer in one["producers"]] == [
        ("web-*-*", "thermostat-7", 30),
        ("retry:*:*", "gateway-1", 25),
    ]
    assert [(burst["event_count"], burst["usage_count"]) for burst in one["bursts"]] == [(3, 30), (5, 25)]
    assert [(repair["kind"], repair["usage_count_before"], repair["usage_delta"]) for repair in one["repairs"]] == [
        ("over", 90, -35)
    ]


@pytest.mark.usefixtures("orchestrated")
def test_a_subscription_that_begins_four_hours_later_than_the_period_is_shown_to_the_second(billing: Billing) -> None:
    four_hours = timedelta(hours=4)
    billing.subscribe("a", period=(MAY[0] + four_hours, MAY[1] + four_hours))
    billing.add_event("a", 5)
    billing.add_event("b", 5, period=(MAY[0] + four_hours / 8, MAY[1] + timedelta(microseconds=1)))
    billing.subscribe("b", period=(MAY[1] + four_hours, JUNE[1]))

    output, other = recon("explain", "--customer", "a"), recon("explain", "--customer", "b")

    assert "stripe:remote_commands, 2025-05-01 to 2025-06-01 " in output.said
    assert (
        "50 (free: no active or trialing subscription covers the period; the latest is subscription active, 2025-05-01 "
        "04:00:00 to 2025-06-01 04:00:00, whose bounds in UTC are others than the period's)" in output.said
    )
    assert "stripe:remote_commands, 2025-05-01 00:30:00 to 2025-06-01 00:00:00.000001 " in other.said
    assert "others than" not in other.said


def test_a_person_reads_the_same_in_words(denied: Billing, orchestrated: None) -> None:
    denied.subscribe(CUSTOMER, status="active")
    recon("hold", "--customer", CUSTOMER, "--reason", "TICKET-9", "--until", "1h")
    output = recon("explain", "--customer", CUSTOMER)

    assert output.exit_code == 0
    assert CUSTOMER in output.out
    for sentence in (
        "90: 35 above the event sum",
        "55 in 8 events",
        "10,000 (paid: subscription active, 2025-05-01 to 2025-06-01)",
        "9,910 left",
        "50: reached on 2025-05-09",
        "5 events with 25 units arrived more than an hour after they happened, the last of them by 30.0 hours",
        "Held by",
    ):
        assert sentence in output.said


def test_why_the_latest_run_left_a_counter_alone_is_said(denied: Billing, orchestrated: None) -> None:
    denied.query("alter table billing_usage_events drop constraint billing_usage_events_quantity_check")
    denied.add_event(CUSTOMER, -5)
    assert recon("reconcile", *MAY_ONLY).exit_code != 0

    reason = "has 1 events of negative quantity: set RECON_NEGATIVE_QUANTITIES=sum if they are credits"
    (one,) = recon("explain", "--customer", CUSTOMER, *MAY_ONLY, "--json").json["explanations"]
    assert (one["key"]["left_alone_as"], one["key"]["left_alone_because"]) == ("doubtful", reason)
    assert f"doubtful: {reason}" in recon("explain", "--customer", CUSTOMER, *MAY_ONLY).said
    (other,) = recon("explain", "--customer", "somebody else", *MAY_ONLY, "--json").json["explanations"]
    assert (other["key"]["left_alone_as"], other["key"]["left_alone_because"]) == (None, None)


@pytest.mark.parametrize(
    ("start", "end", "output"),
    [
        ("2025-05-01", "infinity", "2025-05-01 to infinity"),
        ("-infinity", "20000-01-01", "-infinity to 20000-01-01"),
    ],
)
def test_a_subscription_of_any_dates_is_explained(
    denied: Billing, orchestrated: None, start: str, end: str, output: str
) -> None:
    denied.query("update billing_subscriptions set current_period_start = %s, current_period_end = %s", start, end)

    assert output in recon("explain", "--customer", CUSTOMER).said


def test_the_report_is_one_file_that_loads_nothing_and_quotes_every_name(
    denied: Billing, orchestrated: None, tmp_path: Path
) -> None:
    output = recon("explain", "--customer", CUSTOMER, "--html", str(tmp_path / "report.html"), "--json")

    assert output.json["report"] == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 200_000
    assert "cus_&lt;b&gt;[red]&amp;1" in page
    assert "<b>" not in page
    assert "<svg" in page
    assert "90: 35 above the event sum" in page
    loads = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"'#][^\"']*)|url\(([^#)][^)]*)\)|@import|<script|<link", page)
    assert loads == []


def test_odd_events_are_counted_and_never_summed(make_billing: MakeBilling, orchestrated: None) -> None:
    billing = make_billing(
        """
        alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;
        alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
        alter table billing_usage_events drop column metadata;
        alter table billing_usage_events alter column quantity type numeric;
        drop table billing_subscriptions;
        """
    )
    for quantity, request_id in ((2.5, "a"), (2.5, "a"), ("NaN", "b"), (4, "c")):
        billing.add_event("odd", quantity, request_id=request_id, event_timestamp=on(3), created_at=on(3))
    billing.add_event("odd", 1, request_id="d", event_timestamp=datetime(2025, 7, 1, tzinfo=UTC))

    (one,) = recon("explain", "--customer", "odd", "--json").json["explanations"]
    sums = one["sums"]

    assert (sums["event_count"], float(sums["usage_count"])) == (3, 7.5)
    assert (sums["invalid_count"], sums["repeated_count"], sums["outside_period_count"]) == (1, 1, 1)
    assert (one["key"]["usage_count"], one["limit"]["units"]) == (None, None)
    said = recon("explain", "--customer", "odd").said
    assert "no row: 7.5 below the event sum" in said
    assert "free and paid customers cannot be distinguished" in said


def test_what_is_shown_is_bounded_however_much_there_is(billing: Billing, orchestrated: None) -> None:
    for days in range(1, KEYS_SHOWN + 4):
        billing.add_counter("many", 1, period=in_month(MAY, days))
    billing.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start, "
        "period_end, event_timestamp) select 'stripe', 'many', 'remote_commands', "
        "chr(65 + mod(n, 26)) || chr(103 + mod(n, 19)) "
        "|| '-' || n, %s, %s, %s::timestamptz + n / 2 * interval '1 minute' from generate_series(0, 2999) as n",
        *MAY,
        MAY[0],
    )

    output = recon("explain", "--customer", "many", *MAY_ONLY, "--json").json

    assert (len(output["keys"]), len(output["explanations"])) == (KEYS_SHOWN, KEYS_EXPLAINED)
    (longest,) = [one for one in output["explanations"] if one["sums"]["event_count"]]
    assert longest["sums"]["event_count"] == 3_000
    assert len(longest["producers"]) == len(longest["bursts"]) == ROWS_SHOWN


def test_a_customer_of_years_is_explained_by_reading_each_event_a_few_times(
    billing: Billing, orchestrated: None
) -> None:
    """When the customer's first event arrived was once looked up again for each event and each day of the month."""
    days, years = 31, 3
    billing.query(
        """
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end, event_timestamp
        )
        select
            'stripe', 'a', 'remote_commands', month || '-' || n, %s::timestamptz - month * interval '1 month',
            %s::timestamptz - month * interval '1 month',
            %s::timestamptz - month * interval '1 month' + mod(n, %s) * interval '1 day'
        from generate_series(0, %s) as month, generate_series(1, 100) as n
        """,
        *MAY, MAY[0], days, 12 * years - 1,
    )  # fmt: skip
    events = billing.value("select count(*) from billing_usage_events")
    billing.query("analyze billing_usage_events")
    before = rows_read(billing)

    (one,) = recon("explain", "--customer", "a", *MAY_ONLY, "--json").json["explanations"]

    assert (one["sums"]["event_count"], len(one["days"])) == (100, days)
    assert rows_read(billing) - before <= 10 * events


def rows_read(billing: Billing) -> int:
    """Rows of the log that scans have returned, once our sessions, which tell that when they end, are gone."""
    wait_until(
        lambda: (
            billing.value(
                "select count(*) from pg_stat_activity "
                "where datname = current_database() and application_name = 'recon_pipeline'"
            )
            == 0
        )
    )
    billing.query("select pg_stat_force_next_flush()")
    return billing.value(
        "select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_user_tables where relname = 'billing_usage_events'"
    )


def test_without_a_period_the_latest_that_has_begun_is_explained(billing: Billing, orchestrated: None) -> None:
    ahead = datetime.now(UTC) + timedelta(days=1)
    for period in (MAY, JUNE, (ahead, ahead + timedelta(days=30))):
        billing.add_counter("a", 1, period=period)

    output = recon("explain", "--customer", "a", "--json").json

    assert [one["key"]["period_start"][:7] for one in output["explanations"]] == ["2025-06"]
    assert "Other periods" in recon("explain", "--customer", "a").out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("--customer", "nobody"), 2, "--customer nobody: no counter, event or subscription has that id"),
        (("--customer", "a"), 1, "a has neither a counter nor an event in stripe:remote_commands, in any month"),
        (("--customer", ""), 2, "--customer is ''"),
        (("--customer", "a", "--period", "May"), 2, "'May' is not a billing month"),
        (("--customer", "a", "--html", "/no/such/folder/x.html"), 2, "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_be_explained_is_an_error(
    billing: Billing, orchestrated: None, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    billing.subscribe("a")
    output = recon("explain", *arguments, "--json")
    assert output.exit_code == exit_code
    assert said in output.json["error"]


def test_history_that_was_imported_is_not_called_late(billing: Billing, orchestrated: None) -> None:
    """What happened before the customer's first event arrived was loaded, perhaps years later."""
    for day in (3, 4, 5):
        billing.add_event(CUSTOMER, 10, event_timestamp=on(day), created_at=on(20))
    billing.add_event(CUSTOMER, 5, event_timestamp=on(21), created_at=on(21))
    billing.add_event(CUSTOMER, 7, event_timestamp=on(22), created_at=on(22) + timedelta(hours=2))

    (one,) = recon("explain", "--customer", CUSTOMER, *MAY_ONLY, "--json").json["explanations"]
    said = recon("explain", "--customer", CUSTOMER, *MAY_ONLY).said

    sums = one["sums"]
    assert (sums["imported_count"], sums["late_count"], sums["late_usage"]) == (3, 1, 7)
    assert sums["latest_by_seconds"] == 2 * 3600
    assert "3 events happened before the customer's first event arrived: they are history that was imported" in said
