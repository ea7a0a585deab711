"""Alerts as each service reads them: what really arrives, with customer ids that try to be more than text."""

from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from html import unescape
from typing import Any

import pytest
from dagster import DagsterInstance

from recon_pipeline.automation.alert_services import send
from recon_pipeline.core.alert_markup import cut
from recon_pipeline.core.alert_targets import parse_alert_urls
from recon_pipeline.core.alerts import Message, Severity
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import MAY, Billing
from recon_pipeline_tests.support.dagster import sensor_context
from recon_pipeline_tests.support.defined import alerts
from recon_pipeline_tests.support.receivers import Mailbox, Webhook
from recon_pipeline_tests.support.services import DISCORD, PAGERDUTY, SLACK, TEAMS, TELEGRAM, Services, services

HOSTILE = "<!channel> @everyone <@U123> <at>all</at> <b>hi</b> *x* [x](http://evil) & `c` a_b"
LINK = "https://dagster.example.com/assets/counter_drift?view=checks&checkDetail=drift_is_within_budgets"
BODY = (
    f"FAILING: drift_is_within_budgets\nWhat to do: look\n  gateway_customer_id {HOSTILE}\n"
    f"{LINK}\nRun 1.\n\nDatabase: app"
)
FAILING = Message(
    Severity.ERROR,
    is_resolved=False,
    title="[recon error] FAILING: drift_is_within_budgets",
    body=BODY,
    failing=("drift_is_within_budgets of app",),
    resolved=(),
)
A_RUN = ("reconcile", "--period", "2025-05", "--json")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with services(monkeypatch) as running:
        yield running


def sent(url: str, message: Message = FAILING) -> str | None:
    (target,) = parse_alert_urls(url)
    return send(target, message)


def part(mail: EmailMessage, kind: str) -> str:
    (found,) = [one for one in mail.walk() if one.get_content_type() == kind]
    return str(found.get_content()).replace("\r\n", "\n")


def unmarked(text: str) -> str:
    """Markdown as it is shown, if every backslash in it is an escape."""
    return text.replace("\\", "")


def test_a_mail_has_paragraphs_as_text_and_as_html_and_no_markup_of_a_customer(box: Mailbox) -> None:
    assert sent(box.url) is None
    (mail,) = box.mails
    html, text = part(mail, "text/html"), part(mail, "text/plain")
    assert html.count("<p>") == 2
    assert "<b>" not in html
    assert HOSTILE in unescape(html)
    assert f'<a href="{LINK.replace("&", "&amp;")}">' in html
    assert "What to do: look\ngateway_customer_id " in text
    assert HOSTILE in text
    assert f"\n{LINK}\nRun 1.\n\nDatabase: app" in text


@pytest.mark.parametrize("options", ["", "?blocks=yes", "?format=markdown", "?format=text"])
def test_slack_gets_no_command_from_a_customer_and_a_link_to_the_check(there: Services, options: str) -> None:
    assert sent(SLACK + options) is None
    message = there.only("hooks.slack.com")
    (attachment,) = message["attachments"]
    text = attachment["text"]
    assert text.count("<") == 1, "that of the link; Slack reads commands nowhere else"
    assert f"<{LINK.replace('&', '&amp;')}|Open in Dagster>" in text
    assert HOSTILE in unescape(text)
    assert not {"link_names", "parse"} & message.keys(), "these would make a mention of @everyone"


@pytest.mark.parametrize("options", ["", "?format=markdown", "?format=text"])
def test_discord_pings_nobody_whom_a_customer_names(there: Services, options: str) -> None:
    assert sent(DISCORD + options) is None
    message = there.only("discord.com")
    assert "content" not in message, "Discord pings from the content alone, never from an embed"
    (embed,) = message["embeds"]
    assert f"[Open in Dagster]({LINK})" in embed["description"]
    assert HOSTILE in unmarked(embed["description"])
    assert r"\<\@U123\>" in embed["description"]
    assert r"\[x\]\(http\://evil\)" in embed["description"]


def test_discord_pings_whom_the_address_names(there: Services) -> None:
    assert sent(f"{DISCORD}?ping=<@12345>") is None
    assert there.only("discord.com")["content"].endswith("<@12345>")


@pytest.mark.parametrize("options", ["", "?format=markdown", "?format=text"])
def test_telegram_takes_a_message_with_markup_in_it_and_mentions_nobody(there: Services, options: str) -> None:
    assert sent(TELEGRAM + options) is None
    message = there.only("api.telegram.org")
    assert message["parse_mode"] == "HTML"
    assert HOSTILE in unescape(message["text"])
    assert "<code>gateway_customer_id &lt;!channel&gt; @everyone" in message["text"], "no mentions within code"
    assert f'<a href="{LINK.replace("&", "&amp;")}">Open in Dagster</a>\nRun 1.\n \nDatabase: app' in message["text"]


def test_teams_shows_a_line_as_a_line_and_mentions_nobody(there: Services) -> None:
    assert sent(TEAMS) is None
    card = there.only("prod-1.westeurope.logic.azure.com")["attachments"][0]["content"]
    assert "entities" not in card["msteams"], "they are what Teams mentions"
    (text,) = [one["text"] for one in card["body"] if one.get("id") == "body"]
    assert HOSTILE in unmarked(text)
    assert r"\<at\>all\</at\>" in text
    assert f"\n\n[Open in Dagster]({LINK})\n\nRun 1.\n\nDatabase" in text


@pytest.mark.parametrize("url", [SLACK, DISCORD, TELEGRAM, TEAMS])
def test_a_message_that_is_too_long_loses_whole_lines_at_its_end_and_says_so(there: Services, url: str) -> None:
    long = "\n".join(f"  gateway_customer_id {HOSTILE} {number}" for number in range(1000))
    message = Message(Severity.WARN, is_resolved=False, title="[recon warn] t", body=long, failing=(), resolved=())
    assert sent(url, message) is None
    ((arrived,),) = there.received.values()
    assert "cut here; recon status and the UI show all of it." in unmarked(str(arrived))
    assert str(arrived).count("<code>") == str(arrived).count("</code>")


@pytest.mark.parametrize("url", [SLACK, DISCORD, TELEGRAM, TEAMS])
def test_a_message_that_is_too_long_keeps_what_fails_what_to_do_and_the_link_of_each_check(
    there: Services, url: str
) -> None:
    """Two checks, each with five ordinary samples, were too long for Telegram, and one for Discord: links were lost."""
    checks = ("drift_is_within_budgets", "counters_match_event_sums", "events_are_valid")
    rows = "\n".join(f"  gateway_customer_id {'<_@&>' * 50}{number}" for number in range(5))
    body = "\n\n".join(f"FAILING: {one}, error\n{one} says why\n{rows}\n{LINK}&of={one}\nRun 1." for one in checks)
    message = Message(Severity.WARN, is_resolved=False, title="[recon warn] t", body=body, failing=(), resolved=())
    assert sent(url, message) is None
    ((arrived,),) = there.received.values()
    text = unescape(unmarked(str(arrived)))
    for one in checks:
        assert f"FAILING: {one}" in text
        assert f"{one} says why" in text
        assert f"{LINK}&of={one}" in text
    assert ("cut here; recon status and the UI show all of it." in text) == (url in (DISCORD, TELEGRAM))


def test_a_message_of_a_thousand_lines_is_cut_where_the_next_line_would_be_too_much_and_not_line_by_line() -> None:
    seen = list[str]()

    def markup(text: str) -> str:
        seen.append(text)
        return text

    lines = [f"{number:03}" for number in range(1000)]
    whole = cut("\n".join(lines), markup, 1_000)
    *kept, note = whole.split("\n")
    assert kept == lines[: len(kept)]
    assert len(whole) <= 1_000 < len("\n".join([*lines[: len(kept) + 1], note]))
    assert len(seen) < 15, "a sensor has a minute for all of its messages"


def test_pagerduty_gets_one_incident_from_trigger_to_resolve(there: Services) -> None:
    over = Message(
        Severity.ERROR, is_resolved=True, title="t", body="RESOLVED: x", failing=(), resolved=FAILING.failing
    )
    for _ in range(2):  # the reminder
        assert sent(PAGERDUTY) is None
        assert list(there.incidents.values()) == [True]
    assert sent(PAGERDUTY, over) is None
    assert list(there.incidents.values()) == [False]

    event = there.received["events.pagerduty.com"][0]
    assert event["routing_key"] == "hunter2integrationkey"
    assert event["payload"]["summary"] == "[recon error] drift_is_within_budgets of app"
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["custom_details"] == {"message": BODY}
    assert event["links"] == [{"href": LINK, "text": "Open in Dagster"}]


def test_pagerduty_of_the_eu_is_another_host(there: Services) -> None:
    assert sent(f"{PAGERDUTY}?region=eu") is None
    assert there.only("events.eu.pagerduty.com")["event_action"] == "trigger"


def test_what_pagerduty_refuses_is_said_without_its_key(there: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    there.answers_with = 429
    assert sent(PAGERDUTY) == "PagerDuty answered 429 Too Many Requests"
    monkeypatch.setitem(pagerduty_urls(), "us", "http://127.0.0.1:1")
    refused = sent(PAGERDUTY)
    assert refused is not None
    assert refused.startswith("PagerDuty could not be reached: ")
    assert "hunter2" not in refused


def pagerduty_urls() -> dict[str, Any]:
    from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP

    return PAGERDUTY_API_LOOKUP


def test_a_test_message_leaves_no_open_incident(there: Services) -> None:
    assert recon("alerts", "test", RECON_ALERT_URLS=PAGERDUTY).exit_code == 0
    assert list(there.incidents.values()) == [False]


def test_a_hostile_customer_id_arrives_as_text_in_every_service_and_one_incident_is_opened_and_resolved(
    billing: Billing,
    dagster_instance: DagsterInstance,
    there: Services,
    box: Mailbox,
    hook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = (SLACK, DISCORD, TELEGRAM, TEAMS, PAGERDUTY, box.url, hook.url)
    monkeypatch.setenv("RECON_ALERT_URLS", " ".join(targets))
    monkeypatch.setenv("RECON_UI_URL", "https://dagster.example.com")
    monkeypatch.setenv("RECON_MAX_REPAIRS", "1")
    alerts(sensor_context(dagster_instance, ""))
    forged = f"{HOSTILE}\nRESOLVED: all\nhttps://evil.example.com"
    for customer in (forged, "b"):
        billing.add_event(customer, 1, event_timestamp=MAY[0] + timedelta(days=3))
    assert recon(*A_RUN).exit_code == 3
    alerts(sensor_context(dagster_instance, ""))

    row = f"{HOSTILE}\\nRESOLVED: all\\nhttps://evil.example.com"
    (plain,) = hook.received
    assert row in plain["message"]
    (mail,) = box.mails
    assert row in part(mail, "text/plain")
    assert row in unescape(part(mail, "text/html"))
    assert "<b>" not in part(mail, "text/html")
    assert part(mail, "text/html").count("<a href") == 1
    assert row in unescape(there.only("hooks.slack.com")["attachments"][0]["text"])
    assert "content" not in there.only("discord.com")
    assert row in unescape(there.only("api.telegram.org")["text"])
    assert there.only("prod-1.westeurope.logic.azure.com")["attachments"][0]["content"]["msteams"] == {"width": "full"}
    assert [one["href"] for one in there.only("events.pagerduty.com")["links"]] == [LINK]
    assert list(there.incidents.values()) == [True]

    assert recon(*A_RUN, "--approve", "INC-1").exit_code == 0
    alerts(sensor_context(dagster_instance, ""))
    assert list(there.incidents.values()) == [False]
    assert billing.value("select count(*) from recon.alert_delivery where delivered_at is null") == 0


def test_a_customer_id_with_line_breaks_makes_no_link_in_the_alert_of_a_first_run_and_no_line_of_a_command(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing()
    billing.query("delete from recon.accepted_usage")
    monkeypatch.setenv("RECON_ALERT_URLS", box.url)
    alerts(sensor_context(dagster_instance, ""))
    billing.add_event("a\nhttps://evil.example.com\nb", 1, event_timestamp=MAY[0] + timedelta(days=3))
    said = recon("reconcile", "--period", "2025-05")
    assert said.exit_code == 3
    assert "https://evil.example.com" not in said.out.splitlines()
    alerts(sensor_context(dagster_instance, ""))
    (mail,) = box.mails
    assert "a\\nhttps://evil.example.com\\nb" in part(mail, "text/plain")
    assert "<a href" not in part(mail, "text/html")
