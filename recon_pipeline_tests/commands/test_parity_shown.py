"""What `recon parity`, the check and a seal say of keys that could not be compared, or that share one sum."""

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.parity import _requests  # pyright: ignore[reportPrivateUsage]
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.providers import stripe as provider
from recon_pipeline.store.parity import found as results
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import metrics
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.commands.test_parity_command import METER, NOON, app, compare, stripe
from recon_pipeline_tests.parity.comparing import EXTENT, Application

__all__ = ["app", "stripe"]

SHARED = f'{{"remote_commands": {{"meter": "{METER}", "customer": "metadata.s"}}}}'


def test_a_refused_customer_is_listed_with_the_reason_and_what_to_look_at(app: Application) -> None:
    for customer in ("known", "un[known]"):
        app.use(customer, 5, NOON)
    app.stripe.customers = {"known"}
    compare(app)
    shown = recon("parity", COLUMNS="200")
    assert shown.exit_code == 1
    assert (
        "1 keys have a customer that is refused: customer in RECON_STRIPE_METERS says where the log has it.\n"
        "un[known], remote_commands, 2025-05-01 to 2025-06-01: Stripe refuses: No such customer: 'un[known]'\n"
        "Of the keys that could be compared, Stripe has exactly what the log says was sent.\n"
    ) in shown.out
    (one,) = recon("parity", "--json").json["refused_keys"]
    assert (one["gateway_customer_id"], one["error"]) == ("un[known]", "Stripe refuses: No such customer: 'un[known]'")
    of_other = recon("parity", "--customer", "known")
    assert (of_other.exit_code, "refused" in of_other.out) == (0, False)


def test_where_nothing_could_be_compared_nothing_is_said_to_be_equal(app: Application) -> None:
    app.use("a", 5, NOON)
    app.stripe.customers = set()
    compare(app)
    assert "exactly what the log says" not in recon("parity").out
    app.billing.query("update recon.parity_key set compared_at = null, error = null")
    shown = recon("parity")
    assert (shown.exit_code, "0 of 1 keys were compared with Stripe" in shown.out) == (1, True)
    assert "exactly what the log says" not in shown.out


def test_the_check_names_refused_customers_however_many_keys_have_events_of_another_label(app: Application) -> None:
    june = NOON.replace(month=6, day=1, hour=0, minute=0), NOON.replace(month=7, day=1, hour=0, minute=0)
    for number in range(25):
        app.use(f"c{number}", 5, NOON)
        app.use(f"c{number}", 5, NOON, period=june, request_id=f"labelled {number}")
    app.use("unknown", 5, NOON)
    app.stripe.customers = {f"c{number}" for number in range(25)}
    _, checks = compare(app)
    assert "unknown" in str(checks["stripe_bills_what_was_used"].metadata["refused"].value)
    assert len(checks["labels_match_timestamps"].metadata["sample"].value.records) == 20  # pyright: ignore


def test_a_sum_that_customers_share_is_recorded_once_with_the_seal_and_so_is_the_logs(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_STRIPE_METERS", SHARED)
    for customer, named, units in (("a", "cus_1", 5), ("b", "cus_1", 7), ("c", "cus_2", 11), ("refused", "", 100)):
        app.use(customer, units, NOON, metadata=f'{{"s": "{named}"}}' if named else "{}", sends=0)
        if named:
            app.stripe.now = max(app.stripe.now, NOON)
            app.stripe.send(named, units, NOON, customer)
    compare(app)
    assert (app.coverage().log_units, app.coverage().provider_units) == (23, 23)
    assert recon("seal", "--period", "2025-05").exit_code == 0
    assert list(app.billing.query("select key_count, log_units, provider_units from recon.sealed_parity")) == [
        (4, 23, 23)
    ]


def test_whoever_is_asked_for_of_customers_who_are_one_of_stripes_their_difference_is_shown(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_STRIPE_METERS", SHARED)
    for customer, units in (("a", 5), ("b", 7)):
        app.use(customer, units, NOON, metadata='{"s": "cus_1"}', sends=0)
    app.billing.add_counter("unused", 0)
    app.stripe.send("cus_1", 5, NOON, "of a")
    compare(app)
    for customer in ("a", "b"):
        shown = recon("parity", "--customer", customer)
        assert (shown.exit_code, "a: expired, 5 at Stripe, 12 sent by the log" in shown.out) == (1, True)
    assert "12 sent by the log's timestamps, expired; " in recon("explain", "--customer", "a", COLUMNS="200").said
    said = recon("explain", "--customer", "b", COLUMNS="200").said
    assert "12 sent by the log's timestamps, listed with another customer who is the same one of Stripe's; " in said
    said = recon("explain", "--customer", "unused", COLUMNS="200").said
    assert "Stripe not asked: no event names a customer of Stripe's; compared on " in said


def test_a_key_that_was_never_compared_and_cannot_be_any_more_is_not_the_oldest_for_ever(app: Application) -> None:
    app.use("a", 5, NOON)
    app.compare(NOON + timedelta(days=1))
    for usage_type, years in (("given up", 1), ("remote_commands", 2)):
        app.billing.query(
            "insert into recon.parity_key "
            "(gateway_name, usage_type, gateway_customer_id, period_start, period_end, first_noted_at) "
            "values ('stripe', %s, 'a', %s, %s, %s)",
            usage_type,
            *(NOON - timedelta(days=days) for days in (365 * years, 365 * years - 30, 365 * years)),
        )
    extent = Extent(EXTENT.scope, BillingMonth(2023, 1), BillingMonth(2025, 5))
    with BillingDatabase(app.billing.url).transaction() as connection:
        read, covered = metrics.parity_metrics(connection), results.coverage(connection, extent)
    (compared_at,) = app.billing.query("select compared_at from recon.parity_key where compared_at is not null")[0]
    assert (covered.keys, covered.compared, covered.oldest) == (2, 1, compared_at)
    assert read.oldest_seconds == pytest.approx((datetime.now(UTC) - compared_at).total_seconds(), abs=60)


def test_a_usage_type_that_is_misspelt_is_an_error_everywhere_and_not_an_equality(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.use("lost", 5, NOON, sends=0)
    said = "RECON_STRIPE_METERS names no meter of a usage in RECON_SCOPE, which has stripe:remote_commands."
    monkeypatch.setenv("RECON_STRIPE_METERS", f'{{"remote_comands": {{"meter": "{METER}"}}}}')
    ran, checks = compare(app)
    assert (ran.success, checks) == (False, {})
    assert said in str(ran.all_events)
    context: Any = dg.build_schedule_context(scheduled_execution_time=datetime.now(UTC))
    with pytest.raises(ConfigurationError) as refused:
        list(_requests(context, Installation(Names(""))))
    assert refused.value.what == said
    assert said in recon("parity").said
    assert f"fail Stripe {said}" in " ".join(recon("doctor", COLUMNS="300").out.split())
    monkeypatch.setenv(
        "RECON_STRIPE_METERS", f'{{"remote_commands": {{"meter": "{METER}"}}, "sms": {{"meter": "mtr_2"}}}}'
    )
    doctor = " ".join(recon("doctor", COLUMNS="300").out.split())
    assert "RECON_STRIPE_METERS has a meter for sms, which is not compared: RECON_SCOPE has no stripe:sms" in doctor


NUMBERS = {
    "38 digits": "12345678901234567890123456789012345678",
    "negative": "-12345678901234567890123456789012345678",
    "smallest": "0.000000000001",
    "both": "9007199254740991.123456789012345678",
}


def use_numbers(app: Application, numbers: dict[str, str]) -> None:
    """Events that were never sent, with quantities that are numeric."""
    app.billing.query(
        "alter table billing_usage_events drop constraint billing_usage_events_quantity_check, "
        "alter quantity type numeric"
    )
    for customer, quantity in numbers.items():
        app.billing.add_event(customer, quantity, request_id=customer, event_timestamp=NOON, created_at=NOON)
        app.billing.add_counter(customer, 0)


@pytest.mark.parametrize("value", ["\udcff", "", "a\x00b"])
@pytest.mark.parametrize("command", [("parity",), ("parity", "probe")])
def test_a_customer_who_is_no_text_is_wrong_usage(app: Application, command: tuple[str, ...], value: str) -> None:
    shown = recon(*command, "--customer", value)
    assert shown.exit_code == 2
    assert f"--customer is {value!r}, which is empty or not printable text." in shown.err


def test_numbers_of_any_length_are_shown_and_written_with_every_digit_and_none_with_an_exponent(
    app: Application, tmp_path: Path
) -> None:
    use_numbers(app, NUMBERS)
    compare(app)
    prices = {"RECON_PRICES": '{"remote_commands": {"per_unit": "123456.000000000001", "currency": "USD"}}'}
    shown = recon("parity", "--output", str(tmp_path / "p.csv"), COLUMNS="200", **prices)
    assert "smallest: expired, 0 at Stripe, 0.000000000001 sent by the log" in shown.out
    assert (
        "not_comparable, 0 at Stripe, 12,345,678,901,234,567,890,123,456,789,012,345,678 sent by the log" in shown.out
    )
    with (tmp_path / "p.csv").open(encoding="utf-8-sig") as file:
        rows = {row["gateway_customer_id"]: row for row in csv.DictReader(file)}
    assert {customer: row["log_units"] for customer, row in rows.items()} == NUMBERS
    assert rows["smallest"]["units"] == "-0.000000000001"
    assert Decimal(rows["smallest"]["amount"]) == Decimal("-0.000000000001") * Decimal("123456.000000000001")
    assert recon("parity", "--output", str(tmp_path / "p.parquet")).exit_code == 1
    table = pq.read_table(tmp_path / "p.parquet")
    written = dict(zip(*(table.column(name).to_pylist() for name in ("gateway_customer_id", "log_units")), strict=True))
    assert written == {customer: Decimal(number) for customer, number in NUMBERS.items()}


def test_numbers_that_no_column_of_a_parquet_file_holds_are_an_error_that_says_what_to_do(
    app: Application, tmp_path: Path
) -> None:
    use_numbers(app, {"long": "1" + 60 * "0", "small": "0." + 30 * "0" + "1"})
    compare(app)
    refused = recon("parity", "--output", str(tmp_path / "p.parquet"), COLUMNS="200")
    assert refused.exit_code == 2
    assert "units has numbers of more digits than a column of a Parquet file holds." in refused.said
    assert not (tmp_path / "p.parquet").exists()
    assert f"--output {tmp_path / 'p.csv'}" in refused.said
    assert recon("parity", "--output", str(tmp_path / "p.csv")).exit_code == 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "Install recon-pipeline[stripe]; or unset RECON_STRIPE_PARITY, if it is set, to go on without it."),
        ({"RECON_STRIPE_PARITY": "on"}, "RECON_STRIPE_PARITY is 'on', which is neither off nor observe."),
    ],
)
def test_recon_dev_says_itself_that_the_comparison_cannot_be_made_and_not_in_a_log_of_dagsters(
    app: Application, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(provider, "find_spec", lambda name: None)
    refused = recon("dev", COLUMNS="200", **variables)
    assert (refused.exit_code, said in refused.said) == (2, True)
