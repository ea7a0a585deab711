"""A pass whose process is killed goes on where it was: no key is compared twice, and none is left out."""

import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from recon_pipeline.faces.demo.fake_stripe import fake_stripe
from recon_pipeline_tests.parity import killable_pass
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import MAY, Billing

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
CUSTOMERS = [f"c{number:02}" for number in range(30)]


def test_a_pass_that_is_killed_while_stripe_is_asked_is_gone_on_with_at_that_customer(billing: Billing) -> None:
    with fake_stripe(MAY[0]) as stripe:
        app = Application(billing, stripe)
        for customer in CUSTOMERS:
            app.use(customer, 5, NOON, sends=int(customer != "c05"))
        now = NOON + timedelta(days=1)
        stripe.now = now
        asked = Counter[str]()
        answer = stripe.answer
        victims = list[int]()

        def killing(path: str, given: dict[str, str]) -> dict[str, Any]:
            if "value_grouping_window" not in given and "customer" in given:
                asked[given["customer"]] += 1
            if given.get("customer") == "c25" and victims:
                os.kill(victims.pop(), signal.SIGKILL)
            return answer(path, given)

        stripe.answer = killing  # pyright: ignore[reportAttributeAccessIssue]
        process = subprocess.Popen(
            [sys.executable, "-m", killable_pass.__name__, billing.url, stripe.url, now.isoformat()]
        )
        victims.append(process.pid)
        assert process.wait(120) == -signal.SIGKILL
        assert app.coverage().compared == 25

        passed = app.compare(now + timedelta(hours=1))

        assert (passed.is_done, passed.compared) == (True, 5 + 1), "what differs is looked at in every pass"
        assert {customer: asked[customer] for customer in CUSTOMERS if customer != "c05"} == {
            customer: 2 if customer == "c25" else 1 for customer in CUSTOMERS if customer != "c05"
        }, "the one that was asked about when it was killed has not been compared"
        assert (app.coverage().compared, app.found()) == (30, [("c05", "missing", -5)])
