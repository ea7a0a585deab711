"""When an alert is sent, and about what: pure decisions, each boundary from both sides."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.core.alert_targets import parse_alert_urls
from recon_pipeline.core.alerts import (
    DEAD_MANS_SWITCH_MINUTES,
    MOST_CHANGES_IN_MESSAGE,
    RECONCILE_RUNS,
    Alarm,
    Observation,
    Severity,
    Turn,
    messages,
    observe,
    remind,
)
from recon_pipeline.core.ended_runs import CheckOutcome, EndedRun, Ending, OwnRecord, observations, silence
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth

NOW = datetime(2025, 5, 3, 2, 10, tzinfo=UTC)
APRIL, MAY, JUNE = (BillingMonth(2025, month) for month in (4, 5, 6))
ERROR, WARN = Severity.ERROR, Severity.WARN


def seen(severity: Severity | None, *months: BillingMonth, is_partial: bool = False) -> Observation:
    return Observation("check", severity, frozenset(months), is_partial, "details")


def after(*observed: Observation) -> tuple[Alarm | None, list[Turn]]:
    """The alarm at the end, and its changes on the way."""
    alarm, turns = None, []
    for one in observed:
        alarm, change = observe(alarm, one, at=NOW)
        turns += [change.turn] if change else []
    return alarm, turns


@pytest.mark.parametrize(
    ("observed", "turns"),
    [
        ([seen(None, MAY)], []),
        ([seen(ERROR, MAY), seen(ERROR, MAY)], [Turn.FAILING]),
        ([seen(ERROR, MAY), seen(None, MAY)], [Turn.FAILING, Turn.RESOLVED]),
        ([seen(WARN, MAY), seen(ERROR, MAY), seen(ERROR, MAY)], [Turn.FAILING, Turn.WORSE]),
        ([seen(ERROR, MAY), seen(WARN, MAY)], [Turn.FAILING]),
        # Another month passes: the one that failed has not.
        ([seen(ERROR, MAY), seen(None, JUNE)], [Turn.FAILING]),
        ([seen(ERROR, APRIL, MAY), seen(None, MAY)], [Turn.FAILING]),
        ([seen(ERROR, APRIL, MAY), seen(None, MAY), seen(None, APRIL)], [Turn.FAILING, Turn.RESOLVED]),
        ([seen(ERROR, MAY), seen(ERROR, JUNE), seen(None, MAY)], [Turn.FAILING]),
        ([seen(ERROR, MAY), seen(ERROR, JUNE), seen(None, MAY, JUNE)], [Turn.FAILING, Turn.RESOLVED]),
        # Some customers are enough to fail and not to pass.
        ([seen(ERROR, MAY, is_partial=True), seen(None, MAY, is_partial=True)], [Turn.FAILING]),
        ([seen(ERROR), seen(None)], [Turn.FAILING, Turn.RESOLVED]),
        ([seen(ERROR), seen(None), seen(ERROR)], [Turn.FAILING, Turn.RESOLVED, Turn.FAILING]),
    ],
)
def test_each_change_of_state_is_notified_once(observed: list[Observation], turns: list[Turn]) -> None:
    assert after(*observed)[1] == turns


@given(
    st.lists(
        st.builds(
            seen,
            st.sampled_from([None, WARN, ERROR]),
            st.sampled_from([APRIL, MAY, JUNE]),
            is_partial=st.booleans(),
        )
    )
)
def test_notifications_always_alternate_and_end_as_things_are(observed: list[Observation]) -> None:
    alarm, turns = after(*observed)
    reported = [turn for turn in turns if turn is not Turn.WORSE]
    assert reported == [Turn.FAILING, Turn.RESOLVED] * (len(reported) // 2) + [Turn.FAILING] * (len(reported) % 2)
    assert (alarm is not None) == bool(reported and reported[-1] is Turn.FAILING)
    failing = set()
    for one in observed:
        if one.severity is not None:
            failing |= one.months
        elif not one.is_partial:
            failing -= one.months
    assert (alarm.months if alarm else set()) == failing


@pytest.mark.parametrize(("severity", "hours"), [(ERROR, 4), (WARN, 24)])
def test_a_reminder_comes_after_hours_and_then_after_hours_again(severity: Severity, hours: int) -> None:
    alarm, _ = after(seen(severity, MAY))
    assert alarm is not None
    almost = timedelta(hours=hours, seconds=-1)
    assert remind(alarm, at=NOW + almost) == (alarm, None)
    reminded, change = remind(alarm, at=NOW + timedelta(hours=hours))
    assert change is not None
    assert change.turn is Turn.STILL_FAILING
    assert remind(reminded, at=NOW + timedelta(hours=hours) + almost) == (reminded, None)


def test_everything_that_changed_at_once_is_one_message_for_each_severity() -> None:
    changes = []
    for subject, severity in (("a", ERROR), ("b", WARN), ("c", ERROR)):
        _, change = observe(None, replace(seen(severity, APRIL, MAY), subject=subject), at=NOW)
        changes.append(change)
    error, warning = messages(changes, database="app")
    assert (error.severity, error.title) == (ERROR, "[recon error] FAILING: a, c")
    assert (warning.severity, warning.title) == (WARN, "[recon warn] FAILING: b")
    assert "FAILING: a (2025-04 to 2025-05), error, failing since 2025-05-03 02:10 UTC\ndetails" in error.body
    assert error.body.endswith("Database: app")


def test_a_message_stays_short_whatever_happened_since_the_last_look() -> None:
    changes = []
    alarm = None
    for number in range(2 * MOST_CHANGES_IN_MESSAGE):
        alarm, change = observe(alarm, seen(None if number % 2 else ERROR, MAY), at=NOW)
        assert change is not None
        changes.append(change)
    (message,) = messages(changes, database="app")
    assert message.title == "[recon error] FAILING: check; RESOLVED: check"
    assert message.body.count("check") == MOST_CHANGES_IN_MESSAGE
    assert f"Before that, {MOST_CHANGES_IN_MESSAGE} other changes" in message.body


def test_a_message_is_good_news_only_if_nothing_in_it_is_bad() -> None:
    alarm, _ = after(seen(ERROR, MAY))
    _, resolved = observe(alarm, seen(None, MAY), at=NOW)
    _, failing = observe(None, replace(seen(ERROR), subject="other"), at=NOW)
    assert resolved is not None
    assert failing is not None
    assert [message.is_resolved for message in messages([resolved], database="")] == [True]
    assert [message.is_resolved for message in messages([resolved, failing], database="")] == [False]


@pytest.mark.parametrize(
    ("last_success", "paused", "watching", "is_silent"),
    [
        (None, None, 15, False),
        (None, None, 16, True),
        (15, None, 60, False),
        (16, None, 60, True),
        (60, 15, 60, False),
        (60, 16, 60, True),
        (60, None, 15, False),
    ],
)
def test_the_dead_mans_switch_counts_from_the_last_success_pause_or_beginning(
    last_success: int | None, paused: int | None, watching: int, is_silent: bool
) -> None:
    assert DEAD_MANS_SWITCH_MINUTES == 15
    ago = {minutes: NOW - timedelta(minutes=minutes) for minutes in (15, 16, 60)}
    answer = silence(
        last_success=ago[last_success] if last_success else None,
        paused_at=ago[paused] if paused else None,
        watching_since=ago[watching],
        now=NOW,
        link="",
    )
    assert (answer.severity is ERROR) == is_silent


@pytest.mark.parametrize(
    ("ending", "outcome", "blocked", "months", "reported"),
    [
        (Ending.FAILED, "failed", False, (MAY,), ERROR),
        (Ending.FAILED, None, False, (MAY,), ERROR),
        (Ending.FAILED, "blocked", True, (MAY,), "nothing"),  # the check reports it
        (Ending.FAILED, "blocked", False, (MAY,), ERROR),  # refused outside of a check
        (Ending.FAILED, "failed", True, (MAY,), ERROR),
        (
            Ending.FAILED,
            "put_off",
            False,
            (MAY,),
            "nothing",
        ),  # the next run tries again; silence is notified if it lasts
        (Ending.FAILED, "put_off", False, None, "nothing"),
        (Ending.FAILED, None, False, None, WARN),
        (Ending.CANCELED, "failed", False, (MAY,), "nothing"),
        (Ending.SUCCEEDED, "clean", False, (MAY,), None),
        (Ending.SUCCEEDED, "not_clean", False, (MAY,), None),
        (Ending.SUCCEEDED, "paused", False, (MAY,), None),
        (Ending.SUCCEEDED, "compared", False, (MAY,), "nothing"),  # it has repaired nothing
        (Ending.SUCCEEDED, None, False, None, None),
    ],
)
def test_what_a_run_says_of_runs(
    ending: Ending, outcome: str | None, blocked: bool, months: tuple[BillingMonth, ...] | None, reported: object
) -> None:
    check = CheckOutcome(
        "drift_is_within_budgets",
        ERROR if blocked else None,
        frozenset(months or ()),
        frozenset(),
        is_blocking=True,
        details="",
    )
    run = EndedRun("id", NOW, "job", ending, months, "the reason", "", (check,))
    record = OwnRecord(outcome, is_partial=False, error=None) if outcome else None
    subject = "job" if months is None else RECONCILE_RUNS
    of_runs = [one for one in observations(run, record) if one.subject == subject]
    assert [one.severity for one in of_runs] == ([] if reported == "nothing" else [reported])
    assert all("the reason" in one.details for one in of_runs if one.severity)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("slack://a/b/c", [("1 (slack)", {ERROR, WARN})]),
        ("error=json://h?a=b,c warn=mailto://x", [("1 (json)", {ERROR}), ("2 (mailto)", {WARN})]),
        ("error=json://h\n warn=json://h", [("1 (json)", {ERROR, WARN})]),
    ],
)
def test_alert_urls_are_addresses_with_an_optional_severity(
    text: str, expected: list[tuple[str, set[Severity]]]
) -> None:
    assert [(target.name, set(target.severities)) for target in parse_alert_urls(text)] == expected


@pytest.mark.parametrize(
    "entry", ["hunter2secret", "fatal=slack://hunter2secret", "error=hunter2secret", "://hunter2secret"]
)
def test_a_wrong_alert_url_is_named_by_its_place_and_never_shown(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="entry 2") as refused:
        parse_alert_urls(f"json://host {entry}")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(parse_alert_urls("json://app:hunter2secret@host"))
