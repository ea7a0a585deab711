"""What the demo shows of the comparison with Stripe: each class once, on any day, with and without Stripe's SDK."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recon_pipeline.core.parity.classes import DifferenceClass
from recon_pipeline.faces import parity
from recon_pipeline.faces.demo_parity import as_json, compare_with_fake_stripe, show
from recon_pipeline.providers import stripe as provider
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing

PAGE = Path(__file__).parents[2] / "docs" / "stripe.md"


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 3, 1, 0, 0, 30, tzinfo=UTC),
        datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 12, 31, 12, 5, tzinfo=UTC),
    ],
)
def test_each_class_happens_to_one_customer_and_is_found_whatever_day_it_is(
    billing: Billing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_live_51hunter2of_somebody")
    monkeypatch.setenv("COLUMNS", "80")
    compared = compare_with_fake_stripe(BillingDatabase(billing.url), billing.url, now=now)
    assert compared is not None
    assert compared.is_complete
    assert compared.calls < 100
    kinds = [(one.kind, one.customers) for one in compared.found.classes]
    assert kinds == sorted((str(kind), 1) for kind in DifferenceClass)
    show(compared)
    said = capsys.readouterr().out
    for one in compared.found.differences:
        assert one.gateway_customer_id == f"cus_{one.kind}"
        assert one.gateway_customer_id in said
    assert "9 of 9 keys were compared with Stripe" in said
    assert "+9,007,199,254,740,992" in said
    money = {one["kind"]: one["amount"] for one in (as_json(compared) or {})["classes"]}
    assert (money["missing"], money["not_comparable"]) == ("-0.600", None), "no price for a number that is not exact"
    assert "hunter2" not in said


def test_the_page_shows_what_the_demo_prints(
    billing: Billing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With RECON_TEST_WRITE_RUNBOOK=1 it writes that."""
    monkeypatch.setenv("COLUMNS", "80")
    at = datetime(2025, 6, 1, 0, 30, tzinfo=UTC)
    compared = compare_with_fake_stripe(BillingDatabase(billing.url), billing.url, now=at)
    assert compared is not None
    parity.show(compared.found, None)
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    page = PAGE.read_text()
    begin = page.index("```text\n9 of 9 keys") + len("```text\n")
    end = page.index("\n```", begin)
    if os.environ.get("RECON_TEST_WRITE_RUNBOOK"):
        PAGE.write_text(page[:begin] + printed + page[end:])
    assert page[begin:end] == printed


def test_without_the_sdk_the_demo_says_how_to_get_it_and_leaves_the_database_alone(
    billing: Billing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "find_spec", lambda name: None)
    assert compare_with_fake_stripe(BillingDatabase(billing.url), billing.url, now=datetime.now(UTC)) is None
    show(None)
    assert "that needs uv pip install 'recon-pipeline[stripe]'." in capsys.readouterr().out
    assert as_json(None) is None
    assert billing.value("select count(*) from billing_usage_events") == 0


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_what_is_on_this_machine_is_asked_by_no_proxy(
    billing: Billing, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Companies set it for every process; their proxy reaches no loopback of ours, and would see the key."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    compared = compare_with_fake_stripe(BillingDatabase(billing.url), billing.url, now=datetime.now(UTC))
    assert compared is not None
    assert compared.is_complete
