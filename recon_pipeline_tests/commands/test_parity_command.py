"""The comparison with Stripe as people meet it: asset, checks, schedule, `recon parity`, doctor, explain, metrics."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest
from dagster._core.test_utils import create_run_for_test
from prometheus_client import CollectorRegistry, generate_latest

from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.automation.installation import LANE_TAG, Installation
from recon_pipeline.automation.parity import _requests  # pyright: ignore[reportPrivateUsage]
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.definitions import build_definitions, defs
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, FakeStripe, fake_stripe
from recon_pipeline.faces.serve.metrics import ReconCollector
from recon_pipeline.parity_settings import read_parity, read_prices
from recon_pipeline.providers import stripe as provider
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import metrics
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
METERS = f'{{"remote_commands": {{"meter": "{METER}"}}}}'
OBSERVE = {"RECON_STRIPE_PARITY": "observe", "STRIPE_API_KEY": KEY, "RECON_STRIPE_METERS": METERS}


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStripe]:
    with fake_stripe(NOON) as running:
        for name, value in {**OBSERVE, "RECON_STRIPE_URL": running.url}.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def app(billing: Billing, stripe: FakeStripe) -> Application:
    return Application(billing, stripe)


def read_both(variables: dict[str, str]) -> None:
    read_prices(variables)
    read_parity(variables)


def compare(app: Application) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetCheckEvaluation]]:
    """One run of the job over May, and what its checks say."""
    app.stripe.now = datetime.now(UTC)
    job = build_definitions().resolve_job_def("compare_with_stripe")
    with dg.DagsterInstance.ephemeral() as instance:
        ran = job.execute_in_process(instance=instance, partition_key="2025-05", raise_on_error=False)
    return ran, {one.check_name: one for one in ran.get_asset_check_evaluations()}


def test_the_asset_says_how_much_stripe_bills_otherwise_and_what_to_do(app: Application) -> None:
    app.use("counted", 5, NOON)
    app.use("doubled", 5, NOON, sends=2)
    app.use("lost", 7, NOON, sends=0)
    app.use("counted", 2, NOON, period=JUNE, request_id="labelled june")
    ran, checks = compare(app)
    assert ran.success
    bills = checks["stripe_bills_what_was_used"]
    assert (bills.passed, bills.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert bills.description == (
        "1 expired (-7 units of 1 customer): too old for Stripe to accept; add an invoice item. "
        "1 over_reported (+5 units of 1 customer): Stripe has more than the log; find the sender, and credit the "
        "customer. recon parity lists all differences; docs/stripe.md says what to do about each class."
    )
    assert (bills.metadata["count"].value, bills.metadata["units"].value) == (2, 12)
    labels = checks["labels_match_timestamps"]
    assert (labels.passed, labels.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(labels.description).startswith("1 events with 2 units have the label of another period")
    (made,) = ran.get_asset_materialization_events()
    figures = made.materialization.metadata
    assert (figures["keys"].value, figures["units_expired"].value) == (3, -7)


def test_units_beyond_what_a_float_holds_are_exact_in_the_check_too(app: Application) -> None:
    app.use("large", 1, NOON)
    app.stripe.send("large", 2**53, NOON, "of another program")
    app.use("doubled", 5, NOON, sends=2)
    ran, checks = compare(app)
    assert checks["stripe_bills_what_was_used"].metadata["units"].value == 2**53 + 5
    (made,) = ran.get_asset_materialization_events()
    assert made.materialization.metadata["units_not_comparable"].value == 2**53


def test_where_everything_is_equal_both_checks_pass_and_an_outage_is_no_equality(app: Application) -> None:
    app.use("counted", 5, NOON)
    _, checks = compare(app)
    assert [one.passed for one in checks.values()] == [True, True]
    app.use("counted", 5, NOON, request_id="one more", sends=0)
    asked = app.stripe.answer

    def answer(path: str, given: dict[str, str]) -> dict[str, Any]:
        if path.endswith("event_summaries"):
            app.stripe.customers = set()
        return asked(path, given)

    app.stripe.answer = answer  # pyright: ignore[reportAttributeAccessIssue]
    _, checks = compare(app)
    assert "Stripe refuses 1 customer of the log: see refused." in str(checks["stripe_bills_what_was_used"].description)


def test_a_key_that_stripe_does_not_accept_fails_the_run_and_is_in_none_of_its_words(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.use("counted", 5, NOON)
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_wrong_hunter2secret")
    ran, _ = compare(app)
    assert not ran.success
    assert "Stripe does not accept the key in STRIPE_API_KEY." in str(ran.all_events)
    assert "hunter2" not in str(ran.all_events) + str(ran.dagster_run)


def test_only_with_observe_there_are_an_asset_a_job_and_a_schedule() -> None:
    assert "stripe_parity" not in str(defs.get_repository_def().asset_graph.get_all_asset_keys())
    observing = build_definitions(
        database=ReconciledDatabase(stripe_parity="observe", stripe_meters={"remote_commands": {"meter": METER}})
    )
    assert observing.resolve_schedule_def("compare_with_stripe_every_hour").cron_schedule == "7 * * * *"
    with pytest.raises(ConfigurationError, match="RECON_STRIPE_PARITY is 'on', which is neither off nor observe"):
        build_definitions(database=ReconciledDatabase(stripe_parity="on"))


def test_without_the_sdk_the_definitions_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "find_spec", lambda name: None)
    build_definitions()
    with pytest.raises(ConfigurationError) as refused:
        build_definitions(database=ReconciledDatabase(stripe_parity="observe"))
    assert refused.value.fix == (
        "Install recon-pipeline[stripe]; or unset RECON_STRIPE_PARITY, if it is set, to go on without it."
    )


def test_the_schedule_asks_for_the_months_that_are_open_or_ended_lately(
    app: Application, run_history: dg.DagsterInstance
) -> None:
    app.use("old", 5, NOON)
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    context: Any = dg.build_schedule_context(scheduled_execution_time=datetime.now(UTC), instance=run_history)
    (skipped,) = _requests(context, Installation(Names("")))
    app.billing.add_counter("new", 5, period=(this_month, this_month.replace(year=this_month.year + 1)))
    (request,) = _requests(context, Installation(Names("")))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "No counter has a period that is open or ended lately."
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/asset_partition_range_start"] == f"{this_month:%Y-%m}"
    by_hand = build_definitions().resolve_job_def("compare_with_stripe")
    assert by_hand.run_tags[LANE_TAG] == request.tags[LANE_TAG], "whoever starts the job waits for the hourly run"


@pytest.mark.parametrize(("minutes", "is_waited_for"), [(54, True), (56, False)])
def test_a_comparison_whose_process_was_killed_holds_up_no_later_hour(
    app: Application, dagster_instance: dg.DagsterInstance, dagster_database_url: str, minutes: int, is_waited_for: bool
) -> None:
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    app.billing.add_counter("new", 5, period=(this_month, this_month + timedelta(days=365)))
    context: Any = dg.build_schedule_context(scheduled_execution_time=datetime.now(UTC), instance=dagster_instance)
    (request,) = _requests(context, Installation(Names("")))
    assert isinstance(request, dg.RunRequest)
    killed = create_run_for_test(
        dagster_instance, "compare_with_stripe", status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags)
    )
    with psycopg.connect(dagster_database_url) as connection:
        connection.execute("update runs set update_timestamp = now() - make_interval(mins => %s)", [minutes])

    (answer,) = _requests(context, Installation(Names("")))

    assert isinstance(answer, dg.SkipReason) == is_waited_for
    status = dagster_instance.get_run_by_id(killed.run_id).status  # pyright: ignore[reportOptionalMemberAccess]
    assert status == (dg.DagsterRunStatus.STARTED if is_waited_for else dg.DagsterRunStatus.FAILURE)


def test_the_command_shows_classes_units_money_and_each_difference_and_writes_all_of_them(
    app: Application, tmp_path: Path
) -> None:
    app.use("doubled", 5, NOON, sends=2)
    app.use("lost", 7, NOON, sends=0)
    before = recon("parity")
    assert (before.exit_code, "Nothing of this was compared with Stripe yet." in before.said) == (1, True)
    compare(app)
    prices = {"RECON_PRICES": '{"remote_commands": {"per_unit": "0.002", "currency": "USD"}}'}
    shown = recon("parity", "--output", str(tmp_path / "parity.csv"), COLUMNS="80", **prices)
    assert shown.exit_code == 1
    assert "2 of 2 keys were compared with Stripe" in shown.out
    assert "expired 1 1 -7 -0.014 USD" in " ".join(shown.out.split())
    assert "over_reported: Stripe has more than the log; find the sender, and credit the customer\n" in shown.out
    assert "doubled: over_reported, 10 at Stripe, 5 sent by the log\n" in shown.out
    assert "  2025-05-20 12:00 to 2025-05-20 13:00 UTC; Stripe has 2 times what the log has: sent again" in shown.out
    with (tmp_path / "parity.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [[row[name] for name in ("gateway_customer_id", "kind", "units", "amount", "currency")] for row in rows] == [
        ["lost", "expired", "-7", "-0.014", "USD"],
        ["doubled", "over_reported", "5", "0.010", "USD"],
    ]
    answer = recon("parity", "--customer", "lost", "--period", "2025-05", "--json", **prices)
    assert (answer.exit_code, answer.json["success"]) == (1, False)
    (one,) = answer.json["differences"]
    assert (one["gateway_customer_id"], one["kind"], one["units"], one["amount"]) == ("lost", "expired", "-7", "-0.014")
    assert recon("parity", "--output", str(tmp_path / "p.parquet")).exit_code == 1
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column("units").to_pylist() == [-7, 5]
    assert table.column("window_start").to_pylist() == [NOON.replace(minute=0)] * 2
    assert table.column("amount").null_count == 2
    assert recon("parity", "--output", "parity.txt").exit_code == 2
    assert recon("parity", "--customer", "nobody").exit_code == 2
    assert recon("parity", RECON_STRIPE_METERS="{}").exit_code == 2


@pytest.mark.parametrize("price", ["0.0000002", "2e-7"])
def test_an_amount_of_the_smallest_fractions_is_written_digit_by_digit_for_every_spreadsheet(
    app: Application, tmp_path: Path, price: str
) -> None:
    app.use("lost", 3, NOON, sends=0)
    compare(app)
    prices = {"RECON_PRICES": f'{{"remote_commands": {{"per_unit": "{price}", "currency": "USD"}}}}'}
    shown = recon("parity", "--output", str(tmp_path / "parity.csv"), **prices)
    assert "-0.0000006 USD" in shown.out
    assert "-0.0000006" in (tmp_path / "parity.csv").read_text(encoding="utf-8-sig")
    assert recon("parity", "--json", **prices).json["differences"][0]["amount"] == "-0.0000006"


def test_explain_metrics_and_the_seal_show_what_stripe_has(app: Application) -> None:
    app.use("lost", 7, NOON, sends=0)
    compare(app)
    shown = recon("explain", "--customer", "lost", COLUMNS="200").said
    assert "0 at Stripe, 7 sent by the log's timestamps, expired; compared on " in shown
    registry = CollectorRegistry()
    with BillingDatabase(app.billing.url).transaction() as connection:
        read = metrics.read(connection)
    registry.register(ReconCollector(lambda: read))
    assert b'recon_stripe_difference_units{class="expired"} 7.0' in generate_latest(registry)
    assert recon("seal", "--period", "2025-05").exit_code == 0
    assert list(
        app.billing.query("select key_count, compared_count, log_units, provider_units from recon.sealed_parity")
    ) == [(1, 1, 7, 0)]
    sealed = recon("parity", "--period", "2025-05")
    assert "2025-05 of remote_commands was sealed on " in sealed.out
    assert "Stripe had 0 units, and the log 7; 1 of 1 keys were compared, 1 differed." in sealed.out
    (recorded,) = recon("parity", "--json").json["sealed"]
    assert (recorded["partition"], recorded["provider_units"], recorded["log_units"]) == ("2025-05", "0", "7")
    assert recon("reopen", "--period", "2025-05", "--reason", "a late event").exit_code == 0
    assert recon("parity", "--json").json["sealed"] == []


def test_the_doctor_checks_the_key_its_rights_and_the_meter(app: Application) -> None:
    def said(**variables: str) -> str:
        return " ".join(recon("doctor", COLUMNS="300", **variables).out.split())

    found = said()
    assert f"pass Stripe's meter {METER} sums the events commands" in found
    assert "pass Stripe's error reports the key may read them" in found
    assert f"pass Stripe's summaries the key may read those of {METER}" in found
    app.stripe.customers = set()
    assert f"pass Stripe's summaries the key may read those of {METER}" in said(), "no account has this customer"
    app.stripe.may_read_summaries = False
    assert (
        f"fail Stripe's meter The key in STRIPE_API_KEY may not read /v1/billing/meters/{METER}/event_summaries."
        in said()
    )
    app.stripe.may_read_summaries = True
    app.stripe.may_read_events = False
    assert "note Stripe's error reports The key in STRIPE_API_KEY may not read /v2/core/events." in said()
    app.stripe.meter["status"] = "inactive"
    assert f"fail Stripe's meter {METER} cannot be compared: it is inactive" in said()
    assert "fail Stripe STRIPE_API_KEY is not set." in said(STRIPE_API_KEY="")
    assert "Stripe" not in said(RECON_STRIPE_PARITY="off")


@pytest.mark.parametrize(
    ("variables", "said", "fix"),
    [
        ({"RECON_STRIPE_PARITY": "on"}, "RECON_STRIPE_PARITY is 'on'", "RECON_STRIPE_PARITY=observe"),
        ({"STRIPE_API_KEY": "hunter2"}, "STRIPE_API_KEY is not a key of Stripe", "restricted key"),
        ({"STRIPE_API_KEY": "rk_live_1"}, "STRIPE_API_KEY is a key of live mode", "RECON_STRIPE_LIVE=yes"),
        ({"RECON_STRIPE_URL": "http://example.com"}, "RECON_STRIPE_URL is neither", "Unset it"),
        ({"RECON_STRIPE_LAG_MINUTES": "0"}, "RECON_STRIPE_LAG_MINUTES is '0'", "RECON_STRIPE_LAG_MINUTES=30"),
        ({"RECON_STRIPE_LAG_MINUTES": "²"}, "RECON_STRIPE_LAG_MINUTES is '²'", "RECON_STRIPE_LAG_MINUTES=30"),
        ({"RECON_STRIPE_METERS": ""}, "RECON_STRIPE_METERS is not JSON", "RECON_STRIPE_METERS={"),
        ({"RECON_STRIPE_METERS": "{}"}, "RECON_STRIPE_PARITY is observe, and", "RECON_STRIPE_METERS={"),
        ({"RECON_STRIPE_METERS": "[]"}, "RECON_STRIPE_METERS is not a JSON object", "RECON_STRIPE_METERS={"),
        ({"RECON_STRIPE_METERS": '{"a": {"meter": 1}}'}, "RECON_STRIPE_METERS: meter of 'a' is 1", "mtr_123"),
        ({"RECON_STRIPE_METERS": '{"a": {"sends": "each"}}'}, "RECON_STRIPE_METERS: 'a' must have a meter", "mtr_123"),
        (
            {"RECON_STRIPE_METERS": '{"a": {"meter": "mtr_1", "sends": "week"}}'},
            "RECON_STRIPE_METERS: sends of 'a' is 'week', which is not each or hour or day.",
            "mtr_123",
        ),
        (
            {"RECON_STRIPE_METERS": '{"a": {"meter": "mtr_1", "final_hours": 73}}'},
            "RECON_STRIPE_METERS: final_hours of 'a' is 73, which is not a whole number from 1 to 72.",
            "mtr_123",
        ),
        (
            {"RECON_STRIPE_METERS": '{"a": {"meter": "mtr_1", "customer": "metadata.a;b"}}'},
            "RECON_STRIPE_METERS: customer of 'a' is 'metadata.a;b'",
            "mtr_123",
        ),
        (
            {"RECON_PRICES": '{"a": {"per_unit": 0.1, "currency": "USD"}}'},
            "RECON_PRICES: 'a' must have per_unit",
            "0.002",
        ),
        *(
            (
                {"RECON_PRICES": f'{{"a": {{"per_unit": "{price}", "currency": "USD"}}}}'},
                "RECON_PRICES: 'a' must",
                "0.002",
            )
            for price in ("1e999999", "1e-99", "1_0", " 1", "٣", "-1", "Infinity", "0,002", "")
        ),
        (
            {"RECON_PRICES": '{"a": {"per_unit": "1", "currency": "USD"}, "a": {"per_unit": "2", "currency": "EUR"}}'},
            "RECON_PRICES is not JSON: 'a' is there twice.",
            "0.002",
        ),
        (
            {"RECON_STRIPE_METERS": '{"a": {"meter": "mtr_1"}, "a": {"meter": "mtr_2"}}'},
            "RECON_STRIPE_METERS is not JSON: 'a' is there twice.",
            "mtr_123",
        ),
        ({"RECON_PRICES": '{"a": {"per_unit": "NaN", "currency": "USD"}}'}, "RECON_PRICES: 'a' must have", "0.002"),
    ],
)
def test_a_wrong_variable_is_named_with_its_fix_and_a_key_is_never_shown(
    variables: dict[str, str], said: str, fix: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_both({**OBSERVE, **variables})
    assert refused.value.what.startswith(said)
    assert fix in refused.value.fix
    assert "hunter2" not in str(refused.value)


def test_the_settings_never_show_the_key() -> None:
    settings = read_parity({**OBSERVE, "STRIPE_API_KEY": "rk_live_hunter2", "RECON_STRIPE_LIVE": "yes"})
    assert (settings.key, "hunter2" in repr(settings)) == ("rk_live_hunter2", False)
    assert read_parity({}).observes is False


def test_the_command_probe_prints_the_setting_without_any_and_needs_a_key_and_a_meter(app: Application) -> None:
    # In no first or last minute of an hour, to which sums would be stamped, too.
    at = (datetime.now(UTC) - timedelta(days=3)).replace(minute=17)
    app.use("a", 5, at, created_at=at + timedelta(hours=3))
    app.stripe.now = datetime.now(UTC)
    unset = {"RECON_STRIPE_PARITY": None, "RECON_STRIPE_METERS": None}
    found = recon("parity", "probe", "--customer", "a", "--meter", METER, **unset)
    setting = f'{{"remote_commands": {{"meter": "{METER}", "sends": "each", "timestamp": "event_timestamp"}}}}'
    assert f"RECON_STRIPE_METERS={setting}\n" in found.out
    assert found.exit_code == 0
    answer = recon("parity", "probe", "--customer", "a", "--json").json
    assert (answer["success"], answer["settings"]) == (True, [f"RECON_STRIPE_METERS={setting}"])
    assert len(answer["tried"]) == 11
    without = recon("parity", "probe", "--customer", "a", **unset)
    assert (without.exit_code, "Name it with --meter mtr_123" in without.said) == (2, True)
    assert "STRIPE_API_KEY is not set." in recon("parity", "probe", "--customer", "a", STRIPE_API_KEY=None).said
    assert recon("parity", "probe", "--customer", "nobody").exit_code == 2
    wrong = recon("parity", "probe", "--customer", "a", "--usage-type", "sms")
    assert "RECON_SCOPE has remote_commands of the gateway stripe, and not sms." in wrong.said
    assert recon("parity", "--json", "probe", "--customer", "a").exit_code == 2
