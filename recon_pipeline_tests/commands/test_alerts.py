"""Alerts as people get them: real runs, the real sensor, real HTTP and SMTP servers; no webserver of Dagster runs."""

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRunStatus, SensorResult

from recon_pipeline.assets.counters_match_event_sums import NAME as MATCH
from recon_pipeline.assets.events_left import CHECK as LEFT
from recon_pipeline.assets.months import BILLING_MONTHS, range_tags
from recon_pipeline.automation import alert_delivery, alert_sensor, ended_runs
from recon_pipeline.automation.ended_runs import ROWS_SHOWN
from recon_pipeline.automation.housekeeping import KEEP_ALERTS_DAYS
from recon_pipeline.core.alerts import DEAD_MANS_SWITCH_MINUTES, REMINDER_HOURS, Severity
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.definitions import defs
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.commands.modes import finding
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.support.dagster import run_in_location, sensor_context
from recon_pipeline_tests.support.defined import alerts
from recon_pipeline_tests.support.receivers import Mailbox, Webhook

NOBODY = "postgresql://app:hunter2secret@127.0.0.1:1/billing"
SECRET = "hunter2"
A_RUN = ("reconcile", "--period", "2025-05", "--json")
IN_MAY = MAY[0] + timedelta(days=3)


@pytest.fixture
def watched(
    billing: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> Billing:
    """A database whose alerts are sent to `hook` from now on."""
    monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
    monkeypatch.setenv("RECON_UI_URL", "https://dagster.example.com/")
    assert "0 messages" in evaluate(dagster_instance)
    return billing


def evaluate(instance: DagsterInstance, cursor: str = "") -> str:
    """One evaluation of the sensor; what its page in the UI says."""
    return result_of(instance, cursor).skip_reason.skip_message


def result_of(instance: DagsterInstance, cursor: str = "") -> Any:
    result = alerts(sensor_context(instance, cursor))
    assert isinstance(result, SensorResult)
    return result


def make_due(billing: Billing) -> None:
    """As if an hour had passed for everything that waits to be sent."""
    billing.query("update recon.alert_delivery set next_attempt_at = next_attempt_at - interval '1 hour'")


def report_failed_run(instance: DagsterInstance) -> str:
    """A run over May that ended as a killed one does."""
    may = BillingMonth(2025, 5)
    run = run_in_location(instance, "reconcile", tags=range_tags(may, may))
    instance.report_run_failed(run)
    return run.run_id


def test_a_check_that_fails_in_several_months_is_one_alert_with_what_it_says_of_each(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    watched.query("alter table billing_usage_counters add constraint broken check (usage_count < 7) not valid")
    for customer, period in (("may", MAY), ("may too", MAY), ("june", JUNE)):
        watched.add_event(customer, 9, period=period, event_timestamp=period[0])
    assert recon("reconcile", "--period", "2025-05", "--period", "2025-06", "--period", "2025-07").exit_code == 1
    evaluate(dagster_instance)

    (output,) = [one for one in hook.received if "counters_match_event_sums" in one["title"]]
    assert output["title"] == "[recon error] FAILING: counters_match_event_sums"
    assert "2 counters of 2025-05 differ from their event sums." in output["message"]
    assert "1 counters of 2025-06 differ from their event sums." in output["message"]
    assert "2025-07 differ" not in output["message"]
    assert "mismatch_count 3" in output["message"]


def test_a_check_that_failed_in_one_month_of_a_run_passes_again_when_that_month_does(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    """The alert of an audit over all months was over with the next audit, though a tick had repaired the month."""
    watched.query("alter table billing_usage_counters add constraint broken check (usage_count < 7) not valid")
    watched.add_event("a", 9, event_timestamp=IN_MAY)
    watched.add_event("b", 1, period=JUNE, event_timestamp=JUNE[0])
    assert recon("reconcile", "--period", "2025-04", "--period", "2025-05", "--period", "2025-06").exit_code == 1
    evaluate(dagster_instance)
    watched.query("alter table billing_usage_counters drop constraint broken")
    assert recon("reconcile", "--period", "2025-06").exit_code == 0
    evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: counters_match_event_sums"]
    assert "counters_match_event_sums (2025-05), error" in hook.received[0]["message"]

    assert recon(*A_RUN).exit_code == 0
    evaluate(dagster_instance)

    assert hook.titles[1:] == ["[recon error] RESOLVED: counters_match_event_sums"]


def test_what_left_a_month_is_no_alert_any_more_once_retention_declares_it(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    """No run compares such a month again, so no check would ever pass in it; reminders came for ever."""
    for period in (MAY, JUNE):
        for customer in ("a", "stays"):
            watched.add_event(customer, 9, period=period, event_timestamp=period[0])
            watched.add_counter(customer, 9, period=period)
    months = ("--period", "2025-05", "--period", "2025-06")
    assert recon("reconcile", *months).exit_code == 0
    watched.query("delete from billing_usage_events where gateway_customer_id = 'a'")
    assert recon("reconcile", *months).exit_code == 1
    evaluate(dagster_instance)
    left, differ = hook.titles
    assert (left, differ) == (
        "[recon error] FAILING: events_stay_in_the_log",
        "[recon warn] FAILING: counters_match_event_sums",
    )
    output = hook.received[0]["message"]
    assert "events_stay_in_the_log (2025-05 to 2025-06), error" in output
    assert "2025-05: 1 events of 9 units, of 1 counters.\n2025-06: 1 events of 9 units, of 1 counters.\n" in output
    assert output.count("If the usage is to be taken back:\nrecon reconcile --period 2025-05") == 1

    watched.add_event("a", 9, period=JUNE, event_timestamp=JUNE[0])
    assert recon("reconcile", "--period", "2025-06").exit_code == 0
    evaluate(dagster_instance)
    assert hook.titles[2:] == [], "May still fails"
    assert recon("retention", "--before", "2025-06", "--reason", "a test").exit_code == 0
    evaluate(dagster_instance)

    assert hook.titles[2:] == [left.replace("FAILING", "RESOLVED"), differ.replace("FAILING", "RESOLVED")]
    for check in (AssetCheckKey(AssetKey("counter_drift"), LEFT), AssetCheckKey(AssetKey("repaired_counters"), MATCH)):
        states = dagster_instance.event_log_storage.get_asset_check_state([(check, BILLING_MONTHS)])
        assert {status.name for status, months in states[check].subsets.items() if not months.is_empty} == {"SUCCEEDED"}


def test_a_flood_of_failing_keys_is_one_alert_with_the_exact_count_and_is_resolved_once(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    watched.query(
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start, "
        "period_end, event_timestamp) select 'stripe', 'cus_' || n, 'remote_commands', n::text, %s, %s, %s "
        "from generate_series(1, 1200) as n",
        *MAY,
        IN_MAY,
    )
    assert recon(*A_RUN).exit_code == recon(*A_RUN).exit_code == 3
    evaluate(dagster_instance)
    evaluate(dagster_instance)

    (output,) = hook.received
    assert output["title"] == "[recon error] FAILING: drift_is_within_budgets"
    assert output["type"] == "failure"
    assert "FAILING: drift_is_within_budgets (2025-05), error, failing since " in output["message"]
    assert "drift_count 1,200" in output["message"]
    assert "What to do: Look at the sample" in output["message"]
    assert output["message"].count("gateway_customer_id cus_") == ROWS_SHOWN
    assert (
        "https://dagster.example.com/assets/counter_drift?view=checks&checkDetail=drift_is_within_budgets"
        in output["message"]
    )
    assert SECRET not in str(output)

    assert recon(*A_RUN, "--approve", "INC-1").exit_code == 0
    evaluate(dagster_instance)
    evaluate(dagster_instance)
    assert hook.titles[1:] == ["[recon error] RESOLVED: drift_is_within_budgets"]
    assert hook.received[1]["type"] == "success"


def test_a_database_with_latin_letters_only_sends_alerts_like_any_other(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = make_billing(encoding="LATIN1")
    monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
    evaluate(dagster_instance)
    for number in range(ROWS_SHOWN + 1):
        watched.add_event(f"caf\u00e9 {number}", 1, event_timestamp=IN_MAY)
    monkeypatch.setenv("RECON_MAX_REPAIRS", "1")

    assert recon(*A_RUN).exit_code == 3
    evaluate(dagster_instance)

    (output,) = hook.received
    assert "caf\u00e9" in output["message"]


def test_a_run_goes_on_and_its_failure_is_notified_with_its_link_while_the_webserver_is_down(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_UI_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 1)):
        pass
    watched.record("a", 10)
    watched.set_counter("a", 4)
    assert recon(*A_RUN).exit_code == 0
    assert watched.counter("a") == 10

    failed = report_failed_run(dagster_instance)
    evaluate(dagster_instance)

    (output,) = [one for one in hook.received if failed in one["message"]]
    assert f"http://127.0.0.1:1/runs/{failed}" in output["message"]


def test_status_says_of_an_alert_that_was_noticed_just_now_that_it_was_not_tried_yet(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said "1 alerts are not delivered to 1 (json): None" in the second after each block."""
    report_failed_run(dagster_instance)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(alert_sensor, "deliver", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(dagster_instance)

    assert "1 alerts are not delivered to 1 (json): not tried yet" in recon("status").said
    (undelivered,) = recon("status", "--json").json["alerts"]["undelivered"]
    assert undelivered["error"] is None
    evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs"]


def test_what_a_target_missed_while_it_was_down_for_an_hour_comes_in_order_and_once_when_it_is_back(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    hook.answers_with = 503
    failed = report_failed_run(dagster_instance)
    assert "1 attempts failed" in evaluate(dagster_instance)
    watched.add_event("a", 3, event_timestamp=IN_MAY)
    assert recon(*A_RUN).exit_code == 0
    for _ in range(3):
        make_due(watched)
        evaluate(dagster_instance)
    assert hook.refused == 1 + 3 * 2, "a round ends with the second failure"

    status = recon("status", "--json").json["alerts"]
    assert status["failing"] == []
    (undelivered,) = status["undelivered"]
    assert (undelivered["target_name"], undelivered["messages"]) == ("1 (json)", 2)
    assert "503" in undelivered["error"]
    output = recon("status")
    assert "2 alerts are not delivered to 1 (json)" in output.said
    assert SECRET not in output.said

    hook.answers_with = 200
    assert evaluate(dagster_instance).startswith("0 messages written, 0 delivered"), "each attempt waits longer"
    make_due(watched)
    for _ in range(3):
        evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs", "[recon error] RESOLVED: reconcile_runs"]
    assert failed in hook.received[0]["message"]
    assert recon("status", "--json").json["alerts"]["undelivered"] == []


def test_the_wait_between_attempts_doubles_up_to_a_bound(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    hook.answers_with = 500
    report_failed_run(dagster_instance)
    waits = []
    for _ in range(8):
        evaluate(dagster_instance)
        waits.append(
            watched.value(
                "select extract(epoch from next_attempt_at - clock_timestamp())::float from recon.alert_delivery"
            )
        )
        watched.query("update recon.alert_delivery set next_attempt_at = now()")
    assert 15 < waits[0] < 26
    assert waits[0] < waits[2] < waits[-1]
    assert 200 < waits[-1] <= 300


def test_a_message_that_a_target_refuses_for_its_content_does_not_delay_the_others(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    hook.refuses = "FAILING: reconcile_runs"
    report_failed_run(dagster_instance)
    evaluate(dagster_instance)
    assert recon(*A_RUN).exit_code == 0
    evaluate(dagster_instance)
    assert hook.titles == ["[recon error] RESOLVED: reconcile_runs"]
    assert recon("status", "--json").json["alerts"]["undelivered"][0]["messages"] == 1


def test_severity_decides_who_is_notified_and_a_target_that_hangs_costs_the_others_nothing(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.answers_with = None
    monkeypatch.setenv("RECON_ALERT_URLS", f"{hook.url}?rto=1 warn={box.url} error=json://127.0.0.1:1/{SECRET}")
    watched.add_event("a", 3)  # today, in a period of last year: summed, with a warning
    assert recon(*A_RUN).exit_code == 0
    assert "1 messages written, 1 delivered, 1 attempts failed" in evaluate(dagster_instance)
    (mail,) = box.mails
    assert mail["subject"] == "[recon warn] FAILING: events_lie_in_their_period"
    assert "1 events were billed in a period that does not hold their timestamp" in box.text_of(mail)

    errors = [row.error for row in watched.query("select error from recon.alert_delivery where delivered_at is null")]
    assert len(errors) == 1
    assert "Connection error" in errors[0]
    assert SECRET not in errors[0]


def test_silence_is_notified_even_where_no_schedule_runs_and_not_while_repairs_are_paused(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    minutes = DEAD_MANS_SWITCH_MINUTES + 1
    watched.query("update recon.alert_watch set watching_since = watching_since - make_interval(mins => %s)", minutes)
    watched.query(
        "insert into recon.control (action, reason, acted_by, until) "
        "values ('pause', 'INC-2', 'me', now() + interval '1 hour')"
    )
    evaluate(dagster_instance)
    watched.query("insert into recon.control (action, acted_by) values ('resume', 'me')")
    evaluate(dagster_instance)
    assert hook.received == [], "after a pause a run has its time"

    watched.query("update recon.alert_watch set paused_at = paused_at - make_interval(mins => %s)", minutes)
    evaluate(dagster_instance)
    evaluate(dagster_instance)
    watched.query(
        "update recon.alert_state set told_at = told_at - make_interval(hours => %s)", REMINDER_HOURS[Severity.ERROR]
    )
    evaluate(dagster_instance)
    evaluate(dagster_instance)
    # A run over an old month, or over one customer, is no sign of life.
    watched.add_event("a", 1, event_timestamp=IN_MAY)
    watched.add_counter("a", 1)
    this_month = ("reconcile", "--period", BillingMonth.containing(datetime.now(UTC)).key)
    assert recon(*A_RUN).exit_code == recon(*this_month, "--customer", "a").exit_code == 0
    evaluate(dagster_instance)
    assert recon(*this_month).exit_code == 0
    evaluate(dagster_instance)
    turns = [title.removeprefix("[recon error] ") for title in hook.titles]
    assert turns == [f"{turn}: dead_mans_switch" for turn in ("FAILING", "STILL FAILING", "RESOLVED")]
    assert "Last success: none yet.\nhttps://dagster.example.com/runs" in hook.received[0]["message"]


def test_no_alert_is_lost_or_sent_twice_when_detection_or_delivery_breaks_off(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    report_failed_run(dagster_instance)
    watched.query("alter table recon.alert_delivery rename to elsewhere")
    assert "No change was detected: " in evaluate(dagster_instance)
    watched.query("alter table recon.elsewhere rename to alert_delivery")
    assert watched.query("select * from recon.alert_outbox") == []

    # As if the process had died between the claim and the end of the attempt.
    hook.answers_with = 503
    evaluate(dagster_instance)
    hook.answers_with = 200
    watched.query("update recon.alert_delivery set claimed_until = now() + interval '2 min', error = null")
    make_due(watched)
    evaluate(dagster_instance)
    assert hook.received == []
    watched.query("update recon.alert_delivery set claimed_until = now()")
    for _ in range(2):
        evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs"]


def test_after_a_long_time_without_a_look_it_catches_up_a_part_at_a_time(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_runs, "RUNS_AT_ONCE", 3)
    monkeypatch.setattr(ended_runs, "OVERLAP_MINUTES", 0)
    watched.query("update recon.alert_watch set runs_noticed_until = now() - interval '1 hour'")
    runs = [report_failed_run(dagster_instance) for _ in range(7)]
    for _ in range(4):
        evaluate(dagster_instance)
    assert {row.run_id for row in watched.query("select run_id from recon.alert_run")} == set(runs)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs"]


def test_two_daemons_tell_each_change_once(watched: Billing, dagster_instance: DagsterInstance, hook: Webhook) -> None:
    report_failed_run(dagster_instance)
    barrier = threading.Barrier(2)

    def at_once() -> None:
        barrier.wait(10)
        evaluate(dagster_instance)

    threads = [threading.Thread(target=at_once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs"]


def test_a_corrected_address_gets_what_the_wrong_one_did_not(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_ALERT_URLS", f"slack://{SECRET} warn=json://127.0.0.1:1")
    report_failed_run(dagster_instance)
    evaluate(dagster_instance)
    assert watched.value("select error from recon.alert_delivery") == (
        "Apprise has no service slack://, or a part of the address is missing"
    )
    monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
    evaluate(dagster_instance)
    assert hook.titles == ["[recon error] FAILING: reconcile_runs"]
    assert watched.value("select count(*) from recon.alert_delivery") == 1


def test_when_the_billing_database_is_gone_all_targets_are_notified_without_an_outbox(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    cursor = result_of(dagster_instance).cursor
    cursor = result_of(dagster_instance, cursor).cursor
    assert hook.received == [], "a restart of the server wakes nobody"

    since = datetime.now(UTC) - timedelta(minutes=DEAD_MANS_SWITCH_MINUTES + 1)
    cursor = cursor.replace(cursor.split('"')[3], since.isoformat())
    hook.answers_with = 503
    cursor = result_of(dagster_instance, cursor).cursor
    hook.answers_with = 200
    for _ in range(2):
        cursor = result_of(dagster_instance, cursor).cursor
    monkeypatch.setenv("DATABASE_URL", watched.url)
    for _ in range(2):
        cursor = result_of(dagster_instance, cursor).cursor
    assert hook.titles == [
        "[recon error] FAILING: billing database cannot be used",
        "[recon error] RESOLVED: billing database cannot be used",
    ]
    assert "Connection refused" in hook.received[0]["message"]
    assert SECRET not in str(hook.received)


def outage(instance: DagsterInstance) -> str:
    """The cursor of the sensor when the database has been gone for as long as it takes to be told."""
    cursor = json.loads(result_of(instance).cursor)
    since = datetime.now(UTC) - timedelta(minutes=DEAD_MANS_SWITCH_MINUTES + 1)
    return json.dumps(cursor | {"since": since.isoformat()})


def test_a_target_that_answers_a_byte_a_second_keeps_no_other_from_an_outage_or_a_test(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets were asked one after the other, and Dagster cancelled the evaluation each time."""
    monkeypatch.setattr(alert_delivery, "DELIVERY_SECONDS", 3.0)
    monkeypatch.setenv("RECON_ALERT_URLS", f"{hook.url} {box.url}")
    hook.drips = True
    tested = recon("alerts", "test")
    assert tested.exit_code == 1
    assert "Target 1 (json) did not take it: no answer within 3 s" in tested.said
    assert "Target 2 (mailto) took the message" in tested.said

    monkeypatch.setenv("DATABASE_URL", NOBODY)
    assert json.loads(result_of(dagster_instance, outage(dagster_instance)).cursor)["told_at"]
    assert [mail["subject"] for mail in box.mails] == [
        "[recon] Test",
        "[recon error] FAILING: billing database cannot be used",
    ]
    assert not hook.has_dripped_out


def test_a_target_that_fails_at_the_wrong_moment_learns_of_an_outage_and_of_its_end(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 503 was four hours of silence there if another target took the message, and an incident that stayed open."""
    monkeypatch.setenv("RECON_ALERT_URLS", f"{hook.url} {box.url}")
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    failing, over = (f"[recon error] {turn}: billing database cannot be used" for turn in ("FAILING", "RESOLVED"))
    hook.answers_with = 503
    cursor = result_of(dagster_instance, outage(dagster_instance)).cursor
    cursor = result_of(dagster_instance, cursor).cursor
    hook.answers_with = 200
    told_at = json.loads(cursor)["told_at"]
    cursor = json.dumps(json.loads(cursor) | {"tried_at": told_at})  # its wait is over
    for _ in range(2):
        cursor = result_of(dagster_instance, cursor).cursor
    assert hook.titles == [failing]
    assert [mail["subject"] for mail in box.mails] == [failing]

    monkeypatch.setenv("DATABASE_URL", watched.url)
    hook.answers_with = 503
    cursor = result_of(dagster_instance, cursor).cursor
    hook.answers_with = 200
    make_due(watched)
    for _ in range(2):
        cursor = result_of(dagster_instance, cursor).cursor
    assert hook.titles == [failing, over]
    assert [mail["subject"] for mail in box.mails] == [failing, over]


@pytest.mark.parametrize("has_another", [False, True])
def test_a_target_that_seems_to_fail_gets_the_message_about_an_outage_ever_more_seldom(
    watched: Billing,
    dagster_instance: DagsterInstance,
    hook: Webhook,
    box: Mailbox,
    has_another: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy before it ran into its time limit, and a channel had the same message every 45 seconds all night."""
    monkeypatch.setenv("RECON_ALERT_URLS", f"{hook.url} {box.url}" if has_another else hook.url)
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    hook.answers_with = 504
    began = datetime.now(UTC)
    cursor = json.dumps({"since": began.isoformat()})
    tried = []
    for seconds in range(0, 3_600 + 900, alert_sensor.EVERY_SECONDS):
        now = began + timedelta(seconds=seconds)
        monkeypatch.setattr(alert_sensor, "_now", lambda now=now: now)
        before = hook.refused
        cursor = result_of(dagster_instance, cursor).cursor
        if hook.refused > before:
            tried.append(seconds - DEAD_MANS_SWITCH_MINUTES * 60)
    assert tried == [0, 45, 90, 180, 360, 720, 1_440, 2_880]
    assert len(box.mails) == int(has_another)


def test_a_failure_of_another_job_is_a_warning_of_its_own_and_leaves_reconciliation_as_it_is(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    for status in (DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS):
        run_in_location(dagster_instance, "housekeeping", status=status)
        evaluate(dagster_instance)
    assert hook.titles == ["[recon warn] FAILING: housekeeping", "[recon warn] RESOLVED: housekeeping"]


def test_without_targets_every_change_is_detected_and_none_is_notified_later(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECON_ALERT_URLS")
    report_failed_run(dagster_instance)
    assert "RECON_ALERT_URLS is not set, so no alert is sent." in evaluate(dagster_instance)
    (failing,) = recon("status", "--json").json["alerts"]["failing"]
    assert failing["subject"] == "reconcile_runs"
    monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
    evaluate(dagster_instance)
    assert hook.received == []


def test_runs_that_ended_before_the_first_evaluation_send_no_alert(
    billing: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
    run = run_in_location(dagster_instance, "reconcile", status=DagsterRunStatus.FAILURE)
    evaluate(dagster_instance)
    later = report_failed_run(dagster_instance)
    evaluate(dagster_instance)
    assert later in str(hook.received)
    assert run.run_id not in str(hook.received)


def test_housekeeping_keeps_undelivered_messages(
    watched: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    report_failed_run(dagster_instance)
    evaluate(dagster_instance)
    hook.answers_with = 503
    assert recon(*A_RUN).exit_code == 0
    evaluate(dagster_instance)
    age = "update recon.alert_outbox set noticed_at = noticed_at - make_interval(days => %s)"
    for days, left in ((KEEP_ALERTS_DAYS - 1, 2), (1, 1)):
        watched.query(age, days)
        assert defs.resolve_job_def("housekeeping").execute_in_process(instance=dagster_instance).success
        assert watched.value("select count(*) from recon.alert_outbox") == left
    assert watched.value("select title from recon.alert_outbox") == "[recon error] RESOLVED: reconcile_runs"


def test_doctor_shows_whether_alerts_have_a_target(watched: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("alerts")["verdict"] == "pass"
    monkeypatch.setenv("RECON_ALERT_URLS", SECRET)
    assert finding("alerts")["verdict"] == "fail"
    monkeypatch.delenv("RECON_ALERT_URLS")
    output = finding("alerts")
    assert (output["verdict"], output["mend"].split("=")[0]) == ("note", "Set it like RECON_ALERT_URLS")


def test_alerts_test_shows_which_targets_accept_a_message(hook: Webhook, box: Mailbox) -> None:
    well = recon("alerts", "test", "--json", RECON_ALERT_URLS=f"error={hook.url} warn={box.url}")
    assert (well.exit_code, well.json["success"]) == (0, True)
    assert well.json["targets"] == [
        {"target": name, "delivered": True, "error": None} for name in ("1 (json)", "2 (mailto)")
    ]
    assert hook.titles == ["[recon] Test"]
    assert [mail["subject"] for mail in box.mails] == ["[recon] Test"]

    hook.answers_with = 401
    badly = recon("alerts", "test", RECON_ALERT_URLS=f"{hook.url} {box.url} slack://{SECRET}/x")
    assert badly.exit_code == 1
    assert "Target 1 (json) did not take it: " in badly.said
    assert "401" in badly.said
    assert "Target 2 (mailto) took the message" in badly.said
    assert "Target 3 (slack) did not take it: Apprise has no service slack://" in badly.said
    assert SECRET not in badly.said


@pytest.mark.parametrize("urls", [None, "", "hunter2secret"])
def test_alerts_test_without_a_usable_target_exits_2(urls: str | None) -> None:
    output = recon("alerts", "test", "--json", RECON_ALERT_URLS=urls)
    assert output.exit_code == 2
    assert "RECON_ALERT_URLS" in output.json["error"]
    assert SECRET not in output.said
