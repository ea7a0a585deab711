"""A person installs the product, opens the UI and works in it. The tests share one UI and run as one story."""

import re

import pytest
from playwright.sync_api import ViewportSize, expect

from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline_tests.browser.application import Application
from recon_pipeline_tests.browser.ui import Ui

pytestmark = [pytest.mark.browser, pytest.mark.long]

FLOW = ("backfilled_events", "usage_events", "usage_aggregates", "counter_drift", "repaired_counters")
TABLES = ("billing_subscriptions", "billing_usage_counters")
# Pages scroll inside themselves: what is to be seen in one look needs room, and nodes say less the smaller they are.
LARGE = ViewportSize(width=1900, height=900)
TALL = ViewportSize(width=1500, height=1500)
WIDE = ViewportSize(width=1900, height=1500)
BACKFILL = """\
ops:
  backfilled_events:
    config:
      source: ["table:audit.usage_log"]
      mapping:
        gateway_name: {value: stripe}
        usage_type: {value: remote_commands}
        gateway_customer_id: customer
        primary_key: id
        quantity: units
        event_timestamp: at
"""
APPROVAL = """\
resources:
  reconciler:
    config:
      approve_reason: INC-1234
"""
Months = tuple[BillingMonth, BillingMonth, BillingMonth]


def test_lineage_shows_the_assets_in_order_between_the_applications_tables(ui: Ui) -> None:
    # Zoomed out, the UI shortens names.
    ui.page.set_viewport_size({"width": 3000, "height": 1200})
    ui.open_lineage()
    flow = (*FLOW, "sealed_counters", "archived_events")
    # `lake_event_sums` stands beside them: most have no lake.
    expect(ui.nodes).to_have_count(len(flow) + len(TABLES) + 1)
    place = {name: ui.nodes.filter(has_text=name).bounding_box() for name in (*flow, *TABLES)}
    left = {name: box["x"] for name, box in place.items() if box is not None}
    assert [left[name] for name in flow] == sorted(left[name] for name in flow)
    assert len({left[name] for name in flow}) == len(flow)
    assert all(left[name] < left["counter_drift"] for name in TABLES)


def test_the_schedule_is_on_after_the_start_and_a_person_can_switch_it_off(quiet_ui: Ui) -> None:
    state, _ = quiet_ui.switch("reconcile_every_5_minutes")
    expect(state).not_to_be_checked()


def test_materializing_a_range_of_months_repairs_them_in_one_run_and_says_so(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (first, _, last) = quiet_ui, months
    story = application.play()
    drift_count, usage = application.drift_count(), application.usage()
    assert drift_count == story.drift_count > 0

    ui.open_lineage()
    dialog = ui.choose(f"[{first.key}...{last.key}]")
    expect(ui.text("7 partitions", exact=True)).to_be_visible()
    ui.picture("replay", dialog)
    assert ui.launch(dialog) == "Success"

    ui.page.set_viewport_size(TALL)
    ui.open_checks("repaired_counters", "counters_match_event_sums")
    expect(ui.text("Passed", exact=True)).to_be_visible()
    expect(ui.text(f"All counters of {last.key} equal their event sums.")).to_be_visible()
    for fact, value in (("mismatch_count", "0"), ("deferred_count", "0")):
        expect(ui.fact(fact)).to_have_text(f"{fact}{value}")
    for month in months_between(first, last):
        ui.open_month_of_check(month.key)
        expect(ui.text(f"All counters of {month.key} equal their event sums.")).to_be_visible()
    assert application.drift_count() == 0
    repairs, delta = application.ledger()
    assert repairs == drift_count
    assert application.usage() == usage + delta
    take_pictures_of_a_repair(ui)


def test_comparing_alone_repairs_nothing_and_repairing_alone_does(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (_, month, _) = quiet_ui, months
    drifted = application.inflate(month, at_most=3)
    before = application.ledger()

    ui.open("/assets/counter_drift")
    assert ui.materialize(month.key) == "Success"
    ui.open("/assets/counter_drift?view=events")
    expect(ui.fact("drift_count")).to_have_text(f"drift_count{drifted}")
    assert application.drift_count() == drifted
    assert application.ledger() == before

    ui.open("/assets/repaired_counters")
    assert ui.materialize(month.key) == "Success"
    assert application.drift_count() == 0
    assert application.ledger() == (before[0] + drifted, before[1] - drifted)
    ui.open_checks("repaired_counters", "counters_match_event_sums")
    expect(ui.text(f"All counters of {month.key} equal their event sums.")).to_be_visible()


def test_missing_events_of_a_source_named_in_the_config_are_inserted_and_counted_in_one_run(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (_, month, _) = quiet_ui, months
    units, usage = application.lose_events(month), application.usage()

    ui.page.set_viewport_size(LARGE)
    ui.open("/locations/recon_pipeline/jobs/backfill_usage_events")
    dialog = ui.choose(month.key)  # a run of one month starts at once, one of several when the daemon comes to it
    editor = ui.configure(dialog, BACKFILL)
    ui.picture("backfill-config", editor)
    ui.save_config(editor)
    assert ui.launch(dialog) == "Success"

    assert application.usage() == usage + units
    assert application.drift_count() == 0
    ui.page.set_viewport_size(TALL)
    ui.open("/assets/backfilled_events?view=events")
    for fact, value in (("rows_read", "4"), ("inserted", "4"), ("conflict", "0"), ("rejected", "0")):
        expect(ui.fact(fact)).to_have_text(f"{fact}{value}")
    expect(ui.fact("partitions")).to_have_text(f"partitions{month.key}")
    ui.picture("backfill", ui.text("Metadata", exact=True), ui.fact("partitions"), to_right_edge=True)


def test_a_repair_beyond_the_budgets_is_blocked_before_its_first_write_and_shows_why(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (_, month, _) = quiet_ui, months
    drifted = application.inflate(month)
    assert drifted > 50, "the share's budget has a floor of 50 keys"
    before = application.ledger()

    ui.open_lineage()
    assert ui.materialize(month.key) == "Failure"
    ui.filter_log("Execution of run")
    failed = ui.page.get_by_text(re.compile("^Execution of run for .* failed"))
    expect(failed.locator("..")).to_contain_text(re.compile(f"Failure: Blocked: {drifted} counters would be repaired"))

    ui.page.set_viewport_size(TALL)
    ui.open_checks("counter_drift", "drift_is_within_budgets")
    expect(ui.text("Failed", exact=True)).to_be_visible()
    blocked = ui.text(re.compile(rf"Blocked: {drifted} counters would be repaired .*RECON_MAX_REPAIR_SHARE allows 50"))
    expect(blocked).to_be_visible()
    expect(blocked).to_contain_text(f"recon reconcile --period {month.key} --approve-run ")
    expect(blocked).to_contain_text(f"Materialize all, partitions {month.key}, Config, Add config, with your reason:")
    assert application.drift_count() == drifted
    assert application.ledger() == before
    if ui.pictures is not None:
        sample = ui.fact("would_repair").get_by_role("row")
        ui.picture("blocked", ui.text("Checks (6)"), sample.nth(8), to_right_edge=True, margin_below=0)


def test_what_a_blocked_run_has_shown_is_approved_where_its_text_says_it_can_be(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (first, _, last) = quiet_ui, months
    drifted = application.drift_count()
    ui.open("/locations/recon_pipeline/jobs/reconcile")
    assert ui.materialize(f"[{first.key}...{last.key}]") == "Failure", "as a tick over several months"
    assert application.drift_count() == drifted > 50

    assert approve(ui, f"[{first.key}...{last.key}]", application.advised_config()) == "Success"

    assert application.drift_count() == 0


def test_usage_that_left_the_log_is_taken_back_once_that_is_approved(
    quiet_ui: Ui, application: Application, months: Months
) -> None:
    ui, (_, month, _) = quiet_ui, months
    ui.open("/locations/recon_pipeline/jobs/reconcile")
    assert ui.materialize(month.key) == "Success", "every counter matches, and the events were counted"
    usage, left = application.usage(), application.delete_events(month)
    ui.open("/locations/recon_pipeline/jobs/reconcile")
    assert ui.materialize(month.key) == "Success", "no counter is lowered"
    assert application.usage() == usage

    ui.page.set_viewport_size(TALL)
    ui.open_checks("counter_drift", "events_stay_in_the_log")
    expect(ui.text("Failed", exact=True)).to_be_visible()
    expect(ui.text(re.compile(rf"{month.key}: \d+ events of {left} units"))).to_be_visible()
    ui.picture("events-left", ui.text("Checks (6)"), ui.fact("sample"), to_right_edge=True)
    ui.page.set_viewport_size(LARGE)
    assert approve(ui, month.key) == "Success"

    assert application.usage() == usage - left
    assert application.drift_count() == 0


def approve(ui: Ui, months: str, config: str = APPROVAL) -> str:
    """Approve what the latest run over these months has shown, as its text says."""
    ui.open("/locations/recon_pipeline/jobs/reconcile")
    dialog = ui.choose(months)
    editor = ui.configure(dialog, config)
    ui.save_config(editor)
    return ui.launch(dialog)


def take_pictures_of_a_repair(ui: Ui) -> None:
    """Of the check's page, on which the browser is, of what had drifted and of the graph."""
    if ui.pictures is None:
        return
    ui.picture("check", ui.text("Checks (1)"), ui.fact("mismatch_count"), ui.fact("customers"), to_right_edge=True)
    ui.page.set_viewport_size(WIDE)
    ui.open("/assets/counter_drift?view=events")
    expect(ui.fact("drift_count")).to_be_visible()
    sample = ui.fact("sample").get_by_role("row")
    ui.picture("drift", ui.text("Metadata", exact=True), sample.nth(10), to_right_edge=True, margin_below=0)
    ui.page.set_viewport_size(LARGE)
    ui.open_lineage()
    for name in FLOW:
        expect(ui.nodes.filter(has_text=name)).to_contain_text("Passed")
        expect(ui.nodes.filter(has_text=name)).to_contain_text("100% filled")
    ui.picture("lineage", *ui.nodes.all())
