"""A difference from Stripe reaches people by the channels of every other check, with what they need to act on it."""

from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance

from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.definitions import build_definitions
from recon_pipeline.faces.demo.fake_stripe import KEY, METER, FakeStripe, fake_stripe
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.parity.comparing import Application
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.dagster import sensor_context
from recon_pipeline_tests.support.defined import alerts
from recon_pipeline_tests.support.receivers import Webhook

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
LONG = "cus_" + "x" * 60


def compare(billing: Billing, stripe: FakeStripe, instance: DagsterInstance) -> None:
    """One run of the job over May, and one evaluation of the sensor."""
    stripe.now = datetime.now(UTC)
    with BillingDatabase(billing.url).transaction() as connection:
        tags = own_tag(connection)
    job = build_definitions().resolve_job_def("compare_with_stripe")
    assert job.execute_in_process(instance=instance, partition_key="2025-05", tags=tags).success
    alerts(sensor_context(instance, ""))


def test_an_alert_names_customer_units_class_and_what_to_do_and_is_resolved_when_stripe_has_it(
    billing: Billing, dagster_instance: DagsterInstance, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_stripe(NOON) as stripe:
        for name, value in {
            "RECON_ALERT_URLS": hook.url,
            "RECON_STRIPE_PARITY": "observe",
            "RECON_STRIPE_METERS": f'{{"remote_commands": {{"meter": "{METER}"}}}}',
            "RECON_STRIPE_URL": stripe.url,
            "STRIPE_API_KEY": KEY,
        }.items():
            monkeypatch.setenv(name, value)
        alerts(sensor_context(dagster_instance, ""))
        app = Application(billing, stripe)
        app.use("counted", 5, NOON)
        request_id = app.use(LONG, 7, NOON, sends=0)
        compare(billing, stripe, dagster_instance)

        (failing,) = hook.received
        assert failing["title"] == "[recon error] FAILING: stripe_bills_what_was_used"
        said = failing["message"]
        assert "1 expired (-7 units of 1 customer): too old for Stripe to accept; add an invoice item." in said
        assert "recon parity lists all differences; docs/stripe.md says what to do about each class." in said
        assert f"gateway_customer_id {LONG}, usage_type remote_commands, kind expired, units -7, log_units 7" in said
        assert "evidence older than 35 days" in said
        assert "docs/runbook.md, stripe_bills_what_was_used" in said
        assert KEY not in str(failing)

        stripe.now = NOON + timedelta(days=1)
        stripe.send(LONG, 7, NOON, request_id)
        # What no sending changes is asked about once a day.
        billing.query("update recon.parity_key set compared_at = compared_at - interval '1 day'")
        compare(billing, stripe, dagster_instance)
        assert hook.received[-1]["title"] == "[recon error] RESOLVED: stripe_bills_what_was_used"
