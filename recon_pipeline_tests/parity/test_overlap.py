"""Comparisons that overlap, as the hourly one and one that is started by hand: none hides what another one found."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Timer
from typing import Any

import pytest

from recon_pipeline.assets.parity_pass import Passed
from recon_pipeline.providers.protocol import NoAnswerError
from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.parity.test_news import app
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import new_run

__all__ = ["app"]

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass
class Slow:
    """A comparison during which something happens, while it waits for Stripe's answer to a first question."""

    app: Application
    now: datetime

    def run(self, question: str, happens: Callable[[], None], **metering: Any) -> Passed:
        comparison = self.app.comparison(self.now, **metering)
        answer = getattr(comparison.meters, question)
        left = [happens]

        def answered_late(*asked: Any) -> Any:
            if left:
                left.pop()()
            return answer(*asked)

        setattr(comparison.meters, question, answered_late)
        return replace(comparison, clock=lambda: self.now).run()

    def compare_another_time(self) -> None:
        """Another comparison begins and ends."""
        self.now += 5 * MINUTE
        self.app.compare(self.now)
        self.now += 5 * MINUTE


def lose_a_use(billing: Billing, app: Application, at: datetime) -> int:
    app.use("a", 3, at, sends=0, request_id="lost")
    return -3


def erase_a_use(billing: Billing, app: Application, at: datetime) -> int:
    """Runs take the note of it at once."""
    run = new_run(billing.url)
    run.aggregate()
    billing.query("delete from billing_usage_events where quantity = 4")
    run.aggregate()
    return 4


@pytest.mark.parametrize("changes", [lose_a_use, erase_a_use])
@pytest.mark.parametrize("began", [NOON + HOUR, AFTER_FINAL], ids=["open", "final"])
def test_what_changes_between_another_comparison_and_a_look_that_began_before_it_is_found_by_the_next_one(
    app: Application, began: datetime, changes: Callable[[Billing, Application, datetime], int]
) -> None:
    app.use("a", 5, NOON)
    app.use("a", 4, NOON + MINUTE)
    app.compare(began - DAY if began > NOON + DAY else NOON + 2 * MINUTE)
    app.use("a", 1, NOON + 2 * MINUTE, request_id="news", sends=0)
    app.stripe.now = NOON + 2 * MINUTE
    app.stripe.send("a", 1, NOON + 2 * MINUTE, "news")
    slow = Slow(app, began)
    units: list[int] = []

    def happens() -> None:
        slow.compare_another_time()
        units.append(changes(app.billing, app, NOON + 3 * MINUTE))

    slow.run("meter", happens)
    app.compare(began + HOUR)
    assert [found for _, _, found in app.found()] == units


def test_an_older_reading_of_the_log_does_not_hide_what_a_newer_one_found(app: Application) -> None:
    app.use("a", 5, NOON)
    slow = Slow(app, NOON + HOUR)

    def happens() -> None:
        app.use("a", 3, NOON + 20 * MINUTE, sends=0)
        slow.compare_another_time()

    slow.run("total", happens)
    assert app.found() == [("a", "missing", -3)]


def test_news_stay_that_another_comparison_has_marked_and_not_reached(app: Application) -> None:
    app.use("a", 5, NOON)

    def no_answer(*_: Any) -> Decimal:
        raise NoAnswerError("Stripe does not answer.", fix="Wait.")

    def happens() -> None:
        app.use("a", 3, NOON + 20 * MINUTE, sends=0)
        other = app.comparison(NOON + HOUR + 5 * MINUTE)
        other.meters.total = no_answer  # pyright: ignore[reportAttributeAccessIssue]
        assert other.run().ended_because

    Slow(app, NOON + HOUR).run("total", happens)
    app.compare(NOON + 2 * HOUR)
    assert app.found() == [("a", "missing", -3)]


def test_a_comparison_waits_while_another_one_that_looks_for_news_has_its_key_locked(app: Application) -> None:
    app.use("a", 5, NOON, sends=0)
    slow = Slow(app, NOON + HOUR)
    with app.billing.session() as other:

        def happens() -> None:
            other.value("select count(*) from (select from recon.parity_key for update) as marked")
            Timer(4, other.connection.rollback).start()

        assert slow.run("total", happens).is_done
    assert app.found() == [("a", "missing", -5)]


def test_it_waits_for_the_key_of_another_customer_too_with_which_a_difference_is_listed(app: Application) -> None:
    shared: dict[str, Any] = {"sends": 0, "metadata": '{"stripe": "cus_1"}'}
    named = {"customer": "metadata.stripe"}
    app.use("a", 5, NOON, **shared)
    app.use("b", 7, NOON, **shared)
    for hours in (1, 2):
        app.compare(NOON + hours * HOUR, **named)
    app.use("b", 1, NOON + MINUTE, **shared)
    with app.billing.session() as other:

        def happens() -> None:
            other.value("select 1 from recon.parity_key where gateway_customer_id = 'a' for update")
            Timer(4, other.connection.rollback).start()

        assert Slow(app, NOON + 3 * HOUR).run("total", happens, **named).is_done
