"""The guard rails, each with a small patch that takes it away: a suite that a broken product passes is worth nothing.

A patch replaces a fragment of a statement or of a function, in this process and for a while; it fails loudly if the
fragment is gone, so that no mutation survives only because it changes nothing any more.
"""

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from types import CodeType, FunctionType
from unittest.mock import patch

from recon_pipeline.store.postgres import statements
from recon_pipeline_tests.simulation.scenes import Scene


class FragmentGoneError(AssertionError):
    """A patch does not fit the product any more: it is to be written anew."""


@dataclass(frozen=True)
class Patch:
    """A replacement in one place.

    Attributes:
        where: The name of a statement, or `module:qualified.name` of a function.
        old: What is there, once or more.
        new: What takes its place.
    """

    where: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """The text with its replacement.

        Raises:
            FragmentGoneError: There is nothing to replace.
        """
        if self.old not in text:
            raise FragmentGoneError(f"{self.where} has no {self.old!r}: write this mutation anew")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Mutation:
    """A guard rail that is taken away.

    Attributes:
        name: What the broken product does.
        patches: What makes it so.
        caught_by: A scene of the simulation, or a test as pytest names it.
    """

    name: str
    patches: tuple[Patch, ...]
    caught_by: Scene | str


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The product without this guard rail.

    Raises:
        FragmentGoneError: A patch does not fit.
    """
    in_sql = [one for one in mutation.patches if ":" not in one.where]
    in_code = [one for one in mutation.patches if ":" in one.where]
    original = statements.source

    def source(name: str, package: str = statements.STORE) -> str:
        fitting = [one for one in in_sql if one.where == name]
        return reduce(lambda text, one: one.applied_to(text), fitting, original(name, package))

    for one in in_sql:
        source(one.where)
    with patch.object(statements, "source", source):
        undo = [_replace_function(one) for one in in_code]
        statements.composed.cache_clear()
        try:
            yield
        finally:
            for function, code in reversed(undo):
                function.__code__ = code
            statements.composed.cache_clear()


def _replace_function(one: Patch) -> tuple[FunctionType, CodeType]:
    """Give the function other code, so that modules which have imported it get the mutant."""
    module_name, _, qualified = one.where.partition(":")
    module = importlib.import_module(module_name)
    *holders, name = qualified.split(".")
    found = inspect.getattr_static(reduce(getattr, holders, module), name)
    function = found.fget if isinstance(found, property) else found
    assert isinstance(function, FunctionType)
    text = one.applied_to(textwrap.dedent(inspect.getsource(function))).removeprefix("@property\n")
    made: dict[str, FunctionType] = {}
    exec(compile(text, f"<{one.where}, mutated>", "exec"), vars(module), made)  # noqa: S102 - text of this repository
    original, function.__code__ = function.__code__, made[name].__code__
    return function, original


_ADVANCING = "recon_pipeline.store.sums.increments:_Advancing"
_REBUILD = "recon_pipeline.store.sums.increments:_reason_to_rebuild"
_REPAIRER = "recon_pipeline.store.counters.chunks:Repairer"
_TABLES = "recon_pipeline.store.log.billing_tables"
_BREACHES = "recon_pipeline.core.guards:breaches"
_COMMIT = "self.connection.connection.dbapi_connection.commit()"
_TESTS = "recon_pipeline_tests/reconciliation"
_LOST = f"{_TESTS}/test_no_lost_update.py::test"
_CHANGED = f"{_TESTS}/test_changed_events.py::test"
_HORIZON = f"{_TESTS}/test_horizon.py::test"
_COMPARES = f"{_TESTS}/test_what_a_tick_compares.py::test"
_TRUST = f"{_TESTS}/test_untrustworthy_log.py::test"
_CUSTOMERS = "recon_pipeline_tests/adversary/test_usage_under_two_customers.py::test"
_DELETED_TESTS = "recon_pipeline_tests/commands/test_deleted_events.py::test"
_KNOWN_LIMITS = "recon_pipeline_tests/commands/test_known_limits.py::test"
_LEFT = f"{_TESTS}/test_events_left_the_log.py::test"
_LEFT_MEANWHILE = f"{_TESTS}/test_events_left_meanwhile.py::test"
_HEAVY = f"{_TESTS}/test_heavy_keys.py::test"
_IN_FLIGHT = "recon_pipeline_tests/adversary/test_backfilled_in_flight.py::test"
_DOUBT = f"{_TESTS}/test_doubt_under_lock.py::test"
_CREDITS = "recon_pipeline_tests/adversary/test_negative_quantities.py::test"
_CREDITS_LEFT = "recon_pipeline_tests/adversary/test_credits_and_what_left.py::test"
_TWICE = "recon_pipeline_tests/adversary/test_period_written_twice.py::test"
_PERIODS = "recon_pipeline.core.backfill.periods"
_PERIODS_TESTS = "recon_pipeline_tests/backfill/test_periods.py::test"
_CUT_TIMES_TESTS = "recon_pipeline_tests/backfill/test_cut_times.py::test"
_READING = "recon_pipeline.core.backfill"
_EXACT_TESTS = "recon_pipeline_tests/backfill/test_exact_values.py::test"
_MEANING_TESTS = "recon_pipeline_tests/backfill/test_meaning.py::test"
_SOURCES = "recon_pipeline.sources"
_SEALED_TESTS = "recon_pipeline_tests/reconciliation/test_sealed_months.py::test"
_IDLE_TESTS = "recon_pipeline_tests/reconciliation/test_idle_sealed_months.py::test"
_SEALING_TESTS = "recon_pipeline_tests/reconciliation/test_sealing.py::test"
_FILES_TESTS = "recon_pipeline_tests/backfill/test_files.py::test"
_ENDS_TESTS = "recon_pipeline_tests/backfill/test_how_a_batch_ends.py::test"
_ROUND_TRIP_TESTS = "recon_pipeline_tests/backfill/test_round_trip.py::test"

MUTATIONS = (
    Mutation(
        "sum and write are one statement, with no lock before it",
        (Patch("lock_free_counters", "for no key update of counter skip locked", ""),),
        f"{_LOST}_an_increment_that_starts_once_the_counter_is_locked_waits_and_is_kept[before]",
    ),
    Mutation(
        "the lock is let go before the write",
        (Patch(f"{_REPAIRER}._lock_and_repair", "    if locked:", f"    {_COMMIT}\n    if locked:"),),
        f"{_LOST}_an_increment_that_starts_once_the_counter_is_locked_waits_and_is_kept[before]",
    ),
    Mutation(
        "the sum of the comparison is written",
        (
            Patch(
                "repair_locked_counters",
                "else event_sum.settled\n        end as right_count",
                "else locked.settled_sum\n        end as right_count",
            ),
            Patch(
                "repair_locked_counters",
                "then event_sum.visible\n",
                "then locked.settled_sum\n",
            ),
            Patch(
                "repair_locked_counters",
                "drift.usage_limit, drift.outcome,",
                "drift.usage_limit, drift.outcome, drift.settled_sum,",
            ),
        ),
        f"{_LOST}_an_increment_that_commits_between_comparison_and_repair_is_kept",
    ),
    Mutation(
        "a repair leaves no row in the ledger",
        (
            Patch(
                "repair_locked_counters", "where updated.ordinal is not null or target.created", "where target.created"
            ),
        ),
        f"{_LOST}_a_key_that_came_right_by_itself_gets_no_ledger_row",
    ),
    Mutation(
        "a created counter leaves no row in the ledger",
        (
            Patch(
                "repair_locked_counters",
                "where updated.ordinal is not null or target.created",
                "where updated.ordinal is not null and not target.created",
            ),
        ),
        f"{_LOST}_the_application_that_inserts_a_counter_just_after_the_repair_did_adds_to_it",
    ),
    Mutation(
        "counters are made in any order",
        (Patch("create_missing_counters", "order by ordinal", "order by md5(run_id || ordinal)"),),
        f"{_TESTS}/test_overlap.py::test_missing_counters_are_made_in_the_one_order_in_which_every_run_locks",
    ),
    Mutation(
        "a heavy key is repaired although its events changed between the two sums",
        (
            Patch(
                f"{_REPAIRER}.heavy_key",
                'statement("is_drifted_key_noted"), noted).scalar_one()',
                'statement("is_drifted_key_noted"), noted).scalar_one() is None',
            ),
        ),
        f"{_HEAVY}_events_that_change_between_the_two_sums_of_a_heavy_key_defer_it",
    ),
    Mutation(
        "the event at the last horizon is not added",
        (Patch("since_horizon", "ingest_xid >= cast(:since", "ingest_xid > cast(:since"),),
        f"{_HORIZON}_a_transaction_that_commits_before_any_statement_of_a_run_is_added_once",
    ),
    Mutation(
        "the horizon moves and nothing is added",
        (Patch(f"{_ADVANCING}.advance", "if self.horizon > self.since:", "if False:"),),
        f"{_HORIZON}_transactions_that_end_in_another_order_than_they_began_are_each_added_once",
    ),
    Mutation(
        "two runs add to the aggregates at once",
        (Patch("lock_event_log", "for update skip locked", ""),),
        f"{_HORIZON}_a_run_that_meets_another_does_not_wait_says_so_and_compares_exactly",
    ),
    Mutation(
        "keys whose events were deleted are not summed anew",
        (Patch("take_notes", "where recon.fits_index(gateway_customer_id)", "where false"),),
        f"{_CHANGED}_changed_events_are_noted_counted_at_once_and_summed_anew",
    ),
    Mutation(
        "another log is taken for the one that was added up",
        (Patch(_REBUILD, "if position.log_identity != position.known_log_identity:", "if False:"),),
        f"{_CHANGED}_a_log_that_is_not_the_one_of_the_aggregates_has_everything_built_anew",
    ),
    Mutation(
        "a truncated log is taken for the one that was added up",
        (Patch(_REBUILD, "if position.was_truncated:", "if False:"),),
        f"{_CHANGED}_a_truncated_log_has_everything_built_anew",
    ),
    Mutation(
        "a deleted counter leaves no trace",
        (
            Patch(
                "recon_pipeline.store.counters.usage_snapshot:UsageSnapshot.changed_since_verified",
                "if unchanged_counters == unchanged_sums else None",
                "",
            ),
        ),
        f"{_COMPARES}_a_deletion_by_a_transaction_that_was_open_when_it_was_verified_is_found",
    ),
    Mutation(
        "the last check believes the comparison",
        (
            Patch(
                "recon_pipeline.store.counters.usage_snapshot:UsageSnapshot.find_mismatches",
                "if suspects is not None and not len(suspects):",
                "if True:",
            ),
        ),
        f"{_COMPARES}_a_key_that_the_comparison_missed_is_found_by_the_final_check",
    ),
    Mutation(
        "the transaction at the mark is not looked at again",
        (Patch("scan_counters", "(where age(xmin) <= ", "(where age(xmin) < "),),
        f"{_COMPARES}_a_counter_changed_by_a_transaction_that_was_open_when_it_was_verified_is_found",
    ),
    Mutation(
        "a month that has news is marked as verified",
        (
            Patch(
                "move_horizon",
                "and (gateway_name, usage_type, partition) not in (",
                "or (gateway_name, usage_type, partition) in (",
            ),
        ),
        f"{_COMPARES}_a_late_event_is_found_whichever_tick_it_is_absorbed_in",
    ),
    Mutation(
        "invalid events are summed",
        (Patch("classified_events", "event.quantity > -1e1000 and event.quantity < 1e1000", "true"),),
        f"{_TESTS}/test_invalid_events.py::test_an_invalid_quantity_is_counted_and_sampled_but_never_summed",
    ),
    Mutation(
        "credits that nobody has declared are summed",
        (Patch("compare_counters", "case when :refuses_negative and drifted", "case when false and drifted"),),
        f"{_DOUBT}_a_comparison_counts_a_doubtful_key_as_no_repair",
    ),
    Mutation(
        "a credit that nobody has declared is summed if it comes after the comparison",
        (Patch("repair_locked_counters", "when :refuses_negative and event_sum", "when false and event_sum"),),
        f"{_DOUBT}_what_arrives_between_comparison_and_lock_changes_nothing_of_its_key_and_others_are_repaired",
    ),
    Mutation(
        "a credit in flight is taken for one that the counter has",
        (Patch("bounded_events", "or countable.quantity < 0 ", ""),),
        f"{_CREDITS}_while_usage_and_credits_are_in_flight_a_counter_may_have_any_of_their_increments",
    ),
    Mutation(
        "a period that is written in two ways is taken for two",
        (Patch("recon_pipeline.store.counters.compare:compare", "if drifted:", "if False:"),),
        f"{_TWICE}_a_counter_whose_events_carry_its_period_cut_otherwise_is_not_emptied_and_no_other_is_made",
    ),
    Mutation(
        "a counter that was moved to another period without its events is emptied",
        (Patch("mark_periods_written_twice", "and other_start is not null", "and false"),),
        f"{_TWICE}_a_counter_that_moved_to_another_period_without_its_events_is_not_emptied_and_no_other_is_made",
    ),
    Mutation(
        "a counter that was moved to another customer without its events is emptied",
        (Patch("recon_pipeline.store.counters.compare:compare", "doubt_of_customers.mark(", "(lambda *_: None)("),),
        f"{_CUSTOMERS}_a_counter_that_moved_to_another_customer_without_its_events_is_not_emptied_and_no_other_is_made",
    ),
    Mutation(
        "a counter that was moved to another customer is emptied once both are counted on",
        (Patch("mark_usage_under_two_customers", "coalesce(cast(:doubt as text) = any(open.doubts), false)", "false"),),
        f"{_CUSTOMERS}_it_stays_so_while_both_names_are_counted_on",
    ),
    Mutation(
        "a counter that never was is taken for one that was moved",
        (Patch("mark_usage_under_two_customers", "event.created_at < (", "now() >= ("),),
        f"{_CUSTOMERS}_lost_increments_and_a_replay_of_the_same_size_are_repaired",
    ),
    Mutation(
        "events that moved to another customer are taken for a counter that was moved",
        (
            Patch(
                "mark_usage_under_two_customers",
                "drift.kind in ('under', 'missing')",
                "drift.kind in ('under', 'missing', 'over', 'orphan')",
            ),
        ),
        f"{_CUSTOMERS}_events_that_moved_without_their_counter_are_asked_about_as_events_that_left",
    ),
    Mutation(
        "an event that is marked as deleted raises a counter that does not have it",
        (Patch("recon_pipeline.store.counters.compare:compare", "if run.refuses_deleted:", "if False:"),),
        f"{_DELETED_TESTS}_a_counter_without_a_marked_event_is_not_raised_and_doctor_says_how_to_decide",
    ),
    Mutation(
        "a counter that was moved is emptied once it counts again",
        (Patch("mark_periods_written_twice", "period_end from moved)", "period_end from moved where false)"),),
        f"{_TWICE}_it_stays_so_while_the_application_counts_on",
    ),
    Mutation(
        "a run of one month empties a counter that a run of more months left alone",
        (Patch("mark_periods_written_twice", "where period_start < :start or period_start >= :end", "where false"),),
        f"{_TWICE}_a_run_of_one_of_the_two_months_leaves_alone_what_a_run_of_both_has_found",
    ),
    Mutation(
        "a period that begins as another ends is taken for the same",
        (Patch("mark_periods_written_twice", "after[1] < period_end", "after[1] <= period_end"),),
        f"{_TWICE}_periods_that_only_touch_or_belong_to_others_are_repaired",
    ),
    Mutation(
        "a period that turns out to be written in two ways is repaired",
        (Patch("repair_locked_counters", "else written_twice.doubt", "else null"),),
        f"{_DOUBT}_what_arrives_between_comparison_and_lock_changes_nothing_of_its_key_and_others_are_repaired",
    ),
    Mutation(
        "a counter that was made for a doubtful key stays",
        (Patch(f"{_REPAIRER}._lock_and_repair", "if created:", "if False:"),),
        f"{_DOUBT}_what_arrives_between_comparison_and_lock_changes_nothing_of_its_key_and_others_are_repaired",
    ),
    Mutation(
        "a repeated request id is counted again",
        (Patch(f"{_TABLES}:BillingTables.parts", "_deduplicated", ""),),
        f"{_TESTS}/test_table_shapes.py::test_a_repeated_request_id_counts_once_within_a_key",
    ),
    Mutation(
        "a wider key of the log declares nothing",
        (Patch("recon_pipeline.store.log.declared_key:wider_key", "if not keys:", "if True:"),),
        f"{_TESTS}/test_event_identity.py::test_right_counters_stay_where_the_log_declares_a_wider_key_and_the_two_ways_to_declare_are_named",
    ),
    Mutation(
        "an event that two keys share is counted for the first",
        (Patch("keys_sharing_events", "is distinct from", "is not distinct from"),),
        f"{_TESTS}/test_event_identity.py::test_nothing_is_decided_where_two_keys_share_an_event_and_no_key_declares_what_it_is",
    ),
    Mutation(
        "a twin that came after the comparison is overlooked",
        (Patch("recon_pipeline.store.counters.doubt_of_identity:require_none", "if found:", "if False:"),),
        f"{_TESTS}/test_event_identity.py::test_a_twin_that_comes_after_the_comparison_leaves_the_counter_as_it_is",
    ),
    Mutation(
        "a standby is believed",
        (Patch("recon_pipeline.store.postgres.schema_version:require_primary", "if is_standby:", "if False:"),),
        f"{_TRUST}_a_standby_is_refused",
    ),
    Mutation(
        "row level security hides events",
        (Patch("recon_pipeline.store.log.row_security:hidden_rows", "if not table.hides_rows:", "if True:"),),
        f"{_TRUST}_row_level_security_that_is_active_for_our_role_is_refused",
    ),
    Mutation(
        "a restrictive policy beside one that lets us see all is overlooked",
        (Patch("describe_tables", "where policy.polrelid = relation.oid and not policy.polpermissive", "where false"),),
        f"{_TRUST}_a_policy_that_could_hide_a_row_is_refused",
    ),
    Mutation(
        "policies can change while they are relied on",
        (
            Patch(
                "recon_pipeline.store.log.row_security:see_every_row",
                "lock table {', '.join(found)} in access share mode",
                "select",
            ),
        ),
        f"{_TRUST}_no_policy_changes_while_it_is_relied_on",
    ),
    Mutation(
        "an empty log beside counters is believed",
        (Patch("recon_pipeline.assets.approval:_lost_log", "if not invisible:", "if True:"),),
        f"{_TRUST}_an_empty_log_beside_counters_blocks_the_job_until_a_person_approves",
    ),
    Mutation(
        "a budget allows one less",
        (Patch(_BREACHES, "> allowed", ">= allowed"),),
        f"{_TESTS}/test_blast_radius.py::test_the_number_of_repairs_is_blocked_above_its_budget",
    ),
    Mutation(
        "a budget allows one more",
        (Patch(_BREACHES, "> allowed", "> allowed + 1"),),
        f"{_TESTS}/test_blast_radius.py::test_the_number_of_repairs_is_blocked_above_its_budget",
    ),
    Mutation(
        "who has renewed since is taken for a customer without a subscription",
        (
            Patch(
                "compare_counters", "when subscribed.is_paid is null then", "when subscribed.is_paid is not true then"
            ),
        ),
        f"{_KNOWN_LIMITS}_replaying_a_month_before_renewals_claims_no_transition_and_is_not_blocked",
    ),
    Mutation(
        "who canceled is taken for a customer who never paid",
        (Patch("subscribed_keys", "and limited.period_end <= now()", "and false"),),
        f"{_KNOWN_LIMITS}_replaying_the_last_period_of_canceled_subscriptions_claims_no_transition_and_is_not_blocked",
    ),
    Mutation(
        "a subscription of a status that is not paid gives the paid limit",
        (
            Patch(
                "subscribed_keys",
                "subscription.status::text = any(:paid_statuses)",
                "cardinality(cast(:paid_statuses as text[])) > 0",
            ),
        ),
        f"{_KNOWN_LIMITS}_which_statuses_are_paid_is_a_setting",
    ),
    Mutation(
        "a first run repairs what nobody has seen",
        (Patch("recon_pipeline.assets.first_run:breaches", "_found(step, step.run.run_id)", "()"),),
        f"{_TESTS}/test_first_run.py::test_a_first_run_changes_nothing_and_shows_what_it_would_change",
    ),
    Mutation(
        "a doubt ends when the events that made it have left",
        (Patch("doubt_events_left", "open.doubts && ", "false and open.doubts && "),),
        f"{_TESTS}/test_doubt_that_left.py::"
        "test_no_counter_follows_because_what_made_it_doubtful_left_the_log[a twin-incremental]",
    ),
    Mutation(
        "what a run that repairs nothing has doubted is forgotten",
        (
            Patch(
                "recon_pipeline.assets.reconciler:Step.compare",
                "remembered_doubt.note(connection, self.run.run_id)",
                "pass",
            ),
        ),
        f"{_TESTS}/test_doubt_that_left.py::"
        "test_a_doubt_is_remembered_whichever_run_has_seen_it[a blocked run-incremental]",
    ),
    Mutation(
        "a key that is left alone for another reason is not looked at for twins",
        (Patch("keys_sharing_events", "in ('deferred', 'doubtful', 'held')", "= 'deferred'"),),
        f"{_TESTS}/test_doubt_that_left.py::"
        "test_a_doubt_is_remembered_whichever_run_has_seen_it[under a hold-incremental]",
    ),
    Mutation(
        "a doubt about what names an event ends when that is declared",
        (
            Patch(
                "recon_pipeline.store.counters.remembered_doubt:standing", "SHARED_IDENTITY, SHARED_WITH_CREDIT]", "]"
            ),
        ),
        f"{_TESTS}/test_doubt_that_left.py::"
        "test_declaring_what_names_an_event_hides_no_event_that_left[seen by no run-incremental]",
    ),
    Mutation(
        "a key has one doubt at most",
        (
            Patch(
                "mark_periods_written_twice",
                "doubts = drift.doubts || doubtful.doubts",
                "doubts = case when drift.doubts = '{}' then doubtful.doubts else drift.doubts end",
            ),
        ),
        f"{_TESTS}/test_doubt_that_left.py::test_of_two_doubts_of_a_counter_both_are_remembered[incremental]",
    ),
    Mutation(
        "months before those that were accepted are repaired unasked",
        (
            Patch(
                "recon_pipeline.assets.first_run:_found",
                "return accepted_usages.repairs_to_accept(connection, run_id)",
                "found = accepted_usages.repairs_to_accept(connection, run_id)\n"
                "        return tuple(one for one in found if one.waiting.before is None)",
            ),
        ),
        f"{_TESTS}/test_first_run.py::"
        "test_months_that_enter_the_comparison_later_are_asked_about_like_a_first_run[incremental]",
    ),
    Mutation(
        "months that were declared to be gone stay accepted",
        (Patch("recon_pipeline.store.records.retention:declare", "connection.execute(_ACCEPT_FROM, ", "dict("),),
        "recon_pipeline_tests/commands/test_retention_command.py::"
        "test_months_that_are_declared_complete_again_are_asked_about_before_they_are_repaired[incremental]",
    ),
    Mutation(
        "a month that matches accepts all that was not looked at",
        (
            Patch(
                "recon_pipeline.store.records.accepted_usages:covers_all",
                "return all(extent.first <= month <= extent.last for month in months)",
                "return True",
            ),
        ),
        f"{_TESTS}/test_first_run.py::test_matching_counters_of_one_month_or_of_one_customer_accept_nothing[full]",
    ),
    Mutation(
        "a poison key stops its chunk",
        (Patch(f"{_REPAIRER}.free_keys", "if len(ordinals) > 1:", "if False:"),),
        f"{_TESTS}/test_poison_keys.py::test_a_value_that_a_check_on_counters_refuses_fails_its_key_alone",
    ),
    Mutation(
        "a late event gets no period that is only known",
        (Patch(f"{_PERIODS}:period_of", "if known:", "if False:"),),
        f"{_PERIODS_TESTS}_an_event_of_the_period_before_the_last_renewal_gets_that_period",
    ),
    Mutation(
        "a late event gets the year of its subscription beside counters of months",
        (Patch(f"{_PERIODS}:period_of", "_contradiction(period, history)", "None"),),
        f"{_PERIODS_TESTS}_a_subscription_decides_where_nothing_contradicts_it",
    ),
    Mutation(
        "a subscriber's late event gets a calendar month",
        (Patch(f"{_PERIODS}:period_of", "if not history.subscribed:", "if True:"),),
        f"{_PERIODS_TESTS}_a_calendar_month_is_for_customers_of_whom_nothing_else_is_known",
    ),
    Mutation(
        "a late event that is in the log gets its period anew",
        (Patch("logged_periods", "where event.gateway_customer_id =", "where false and event.gateway_customer_id ="),),
        f"{_PERIODS_TESTS}_the_same_file_again_after_a_renewal_is_all_duplicates",
    ),
    Mutation(
        "a late event gets the period of another event where the period tells the two apart",
        (
            Patch(
                "logged_periods",
                "can_be.holds_it or can_be.its_time, can_be.holds_it or can_be.its_time",
                "true, true",
            ),
        ),
        f"{_PERIODS_TESTS}_a_request_id_of_each_period_is_an_event_of_each_where_the_period_names_it[period_start-False]",
    ),
    Mutation(
        "a late event gets the period of a counter beside another that only the log knows",
        (
            Patch(
                f"{_PERIODS}:period_of",
                "covering([*counted, *history.own], timestamp)",
                "covering(counted, timestamp) or covering(history.own, timestamp)",
            ),
        ),
        f"{_PERIODS_TESTS}_of_a_period_with_a_counter_and_another_that_only_the_log_knows_none_is_taken",
    ),
    Mutation(
        "periods of events that came after the sums are not known",
        (Patch("uncounted_periods", "where :with_newer", "where false and :with_newer"),),
        f"{_PERIODS_TESTS}_the_sums_of_the_log_tell_its_periods_and_no_customer_is_read[after the sums]",
    ),
    Mutation(
        "sums that a month lacks tell of its periods",
        (
            Patch(
                "recon_pipeline.store.backfill.uncounted:UncountedPeriods.not_in_aggregates",
                "max(some) >= lacking.start",
                "False",
            ),
        ),
        f"{_PERIODS_TESTS}_what_the_sums_do_not_tell_is_looked_up_in_the_log[a month]",
    ),
    Mutation(
        "a time that is days outside its mapped period is taken",
        (
            Patch(
                f"{_READING}.placement:_refuse_outside_period",
                "if period[0] - timestamp > _LONGEST_OUTSIDE or",
                "if False and",
            ),
        ),
        f"{_PERIODS_TESTS}_a_time_more_than_a_day_outside_its_mapped_period_is_rejected_unless_the_mapping_allows_it",
    ),
    Mutation(
        "a time in the future is taken",
        (Patch(f"{_READING}.placement:_refuse_future", "reading.event_timestamp > latest", "False"),),
        f"{_PERIODS_TESTS}_a_time_in_the_future_is_rejected_unless_the_mapping_allows_it",
    ),
    Mutation(
        "a late event whose time is cut is another event",
        (
            Patch(
                "insert_staged_events",
                "recon.are_one_instant(event.event_timestamp, staged.event_timestamp)",
                "event.event_timestamp = staged.event_timestamp",
            ),
        ),
        f"{_CUT_TIMES_TESTS}_an_event_whose_time_is_cut_or_rounded_is_a_conflict_and_not_counted_again[unique]",
    ),
    Mutation(
        "an event that a file writes with two times is inserted twice",
        (
            Patch(
                "recon_pipeline.store.backfill.staging:_Timed._is_first",
                "exact in self._written or not written.isdisjoint(self._exact)",
                "exact in self._exact",
            ),
        ),
        f"{_CUT_TIMES_TESTS}_of_one_event_written_with_two_times_in_a_file_the_first_is_inserted[unique-100]",
    ),
    Mutation(
        "backfilled events wait for an increment that never comes",
        (Patch("recon_pipeline.store.backfill.insertion:_insert_once", "if settle_seconds > 0:", "if False:"),),
        f"{_IN_FLIGHT}_backfilled_events_are_counted_at_once[tick]",
    ),
    Mutation(
        "increments in flight are taken for what was backfilled",
        (Patch("repair_locked_counters", "uncounted.units, uncounted.usage", "0 * uncounted.units, uncounted.usage"),),
        f"{_IN_FLIGHT}_backfilled_events_are_counted_at_once_however_much_the_application_has_counted_lately[tick]",
    ),
    Mutation(
        "a backfilled credit waits until it has settled",
        (
            Patch("compare_counters", "uncounted.units, uncounted.u", "greatest(uncounted.units, 0), uncounted.u"),
            Patch(
                "repair_locked_counters", "uncounted.units, uncounted.u", "greatest(uncounted.units, 0), uncounted.u"
            ),
        ),
        f"{_IN_FLIGHT}_a_backfilled_credit_is_counted_at_once_however_much_is_in_flight",
    ),
    Mutation(
        "what a backfill inserted is counted by every run",
        (
            Patch(
                "repair_locked_counters",
                "and locked.ordinal not in (select ordinal from verdict where outcome in ('failed', 'doubtful'))",
                "and false",
            ),
        ),
        f"{_IN_FLIGHT}_an_increment_that_is_still_to_come_is_added_to_what_was_backfilled[tick]",
    ),
    Mutation(
        "a counter is lowered for events that left the log",
        (Patch("doubt_events_left", "or known.units_left > 0", ""),),
        f"{_LEFT}_a_dry_run_shows_what_left_and_can_be_approved",
    ),
    Mutation(
        "what had been counted is forgotten with a log that is another one now",
        (
            Patch(
                "forget_aggregates",
                "with forgotten_month as",
                "with forgotten_aggregate as (delete from recon.usage_aggregate), forgotten_month as",
            ),
        ),
        f"{_LEFT}_a_truncated_log_with_a_single_new_event_lowers_nothing",
    ),
    Mutation(
        "events that change before the comparison lower a counter",
        (
            Patch("doubt_events_left", "and note.is_noted, false)", "and false, false)"),
            Patch("doubt_events_left", "then found.visible_sum < stored.usage_count", "then false"),
        ),
        f"{_LEFT_MEANWHILE}_between_the_sums_and_the_comparison",
    ),
    Mutation(
        "events that left after the comparison lower a counter under its lock",
        (Patch("repair_locked_counters", "event_sum.visible < locked.compared_sum or", "false or"),),
        f"{_LEFT_MEANWHILE}_between_the_comparison_and_the_sum_under_the_lock",
    ),
    Mutation(
        "usage that became a credit is taken for a credit that came",
        (Patch("put_sums", "greatest(stored.usage_count - stored.credit_units - coalesce(", "least(0 * coalesce("),),
        f"{_CREDITS_LEFT}_a_credit_hides_no_usage_that_left_the_log_beside_it",
    ),
    Mutation(
        "a credit that became larger is taken for a credit that came",
        (Patch("put_sums", "else greatest(stored.credit_units - coalesce(key_sum.credit_units, 0), 0)", "else 0"),),
        f"{_CREDITS_LEFT}_an_update_that_makes_a_credit_larger_lowers_no_counter",
    ),
    Mutation(
        "a counter is raised for credits that left the log",
        (Patch("doubt_events_left", "else open.credits_left end", "end"),),
        f"{_CREDITS_LEFT}_credits_that_left_the_log_raise_no_counter_until_a_person_approves_it",
    ),
    Mutation(
        "credits that leave before the comparison raise a counter",
        (Patch("doubt_events_left", "else found.credit_units > stored.credit_units", "else false"),),
        f"{_LEFT_MEANWHILE}_a_credit_that_leaves_before_the_comparison_raises_no_counter",
    ),
    Mutation(
        "credits that leave after the comparison raise a counter under its lock",
        (Patch("repair_locked_counters", "and credit_units < 0", "and false"),),
        f"{_LEFT_MEANWHILE}_a_credit_that_leaves_after_the_comparison_raises_no_counter",
    ),
    Mutation(
        "what leaves before it was summed is not missed",
        (
            Patch(
                "take_notes", "sum(events_left), sum(units_left), coalesce(sum(credits_left)", "0, 0, coalesce(sum(0)"
            ),
        ),
        "recon_pipeline_tests/adversary/test_left_before_it_was_summed.py::"
        "test_an_event_that_leaves_within_the_settle_seconds_lowers_no_counter",
    ),
    Mutation(
        "what left is forgotten while events in flight let the counter look right",
        (Patch("note_open_keys", "where :settle_seconds > 0", "where false"),),
        "recon_pipeline_tests/adversary/test_left_before_it_was_summed.py::"
        "test_what_left_is_remembered_while_an_increment_in_flight_lets_the_counter_look_right[tick]",
    ),
    Mutation(
        "a run that comes late lowers a counter of which another has found that events left",
        (Patch("repair_locked_counters", "or has_left.units_left > locked.usage_let_through", "or false"),),
        f"{_LEFT_MEANWHILE}_what_another_run_has_found_to_have_left_is_not_lowered_by_one_that_comes_late[full]",
    ),
    Mutation(
        "new usage hides what left after the comparison",
        (Patch("repair_locked_counters", "where is_of_events", "where false"),),
        f"{_LEFT_MEANWHILE}_new_usage_hides_nothing_that_left_after_the_comparison",
    ),
    Mutation(
        "a credit that no sum has counted raises a counter when it leaves before the comparison",
        (
            Patch("doubt_events_left", "(found.is_lowered or credits_left > 0)", "found.is_lowered"),
            Patch("repair_locked_counters", "where is_of_credits", "where false"),
        ),
        f"{_LEFT_MEANWHILE}_a_credit_that_no_sum_has_counted_raises_no_counter_when_it_leaves_before_the_comparison",
    ),
    Mutation(
        "a credit that no sum has counted raises a counter when it leaves after the comparison",
        (Patch("repair_locked_counters", "where is_of_credits", "where false"),),
        f"{_LEFT_MEANWHILE}_a_credit_that_no_sum_has_counted_raises_no_counter_when_it_leaves_after_the_comparison",
    ),
    Mutation(
        "a credit above the horizon blocks its key",
        (
            Patch(
                "doubt_events_left",
                "found.used_units < stored.usage_count - stored.credit_units",
                "found.used_units + found.credit_units < stored.usage_count - stored.credit_units",
            ),
        ),
        f"{_CREDITS_LEFT}_a_credit_whose_decrement_was_lost_lowers_its_counter_while_a_transaction_is_open",
    ),
    Mutation(
        "an update that raises a sum waits for an approval",
        (Patch("put_sums", "when not :every_key and key_sum.event_count = stored.event_count", "when false"),),
        f"{_CREDITS_LEFT}_an_update_that_makes_a_credit_smaller_or_usage_is_followed_at_once",
    ),
    Mutation(
        "an update of an event that no sum has counted waits for an approval",
        (Patch("take_notes", "filter (where events_left > 0)", ""),),
        f"{_CREDITS_LEFT}_so_is_one_of_a_credit_that_no_sum_has_counted_yet",
    ),
    Mutation(
        "an update hides a credit that left the log",
        (Patch("put_sums", "key_sum.event_count = stored.event_count", "key_sum.event_count > 0"),),
        f"{_CREDITS_LEFT}_an_update_hides_no_credit_that_was_deleted_beside_it",
    ),
    Mutation(
        "new usage hides a credit that left the log",
        (Patch("put_sums", "when not :every_key and key_sum", "when key_sum"),),
        f"{_CREDITS_LEFT}_in_full_mode_new_usage_hides_no_credit_that_was_deleted",
    ),
    Mutation(
        "events that left without units keep a counter from being repaired",
        (
            Patch("put_sums", "(units_left > 0 or credits_left > 0)", "(events_left > 0 or units_left > 0)"),
            Patch("doubt_events_left", "or known.units_left > 0", "or known.events_left > 0"),
        ),
        f"{_CREDITS_LEFT}_deleted_events_of_no_units_are_no_reason_to_leave_a_counter_alone",
    ),
    Mutation(
        "an approval lowers counters that nobody was shown",
        (
            Patch(
                "recon_pipeline.assets.events_left:let_through",
                "let_shown_through(connection, run, named=by.approve_run)",
                "let_all_through(connection, run)",
            ),
        ),
        f"{_LEFT}_an_approval_lowers_no_key_of_which_more_has_left_than_was_shown",
    ),
    Mutation(
        "the approval of a blocked run takes back what left the log",
        (
            Patch(
                "shown_run",
                "shown.drift_count is not null and shown.outcome <> 'blocked'",
                "shown.drift_count is not null",
            ),
        ),
        f"{_LEFT}_the_approval_of_a_blocked_run_takes_nothing_back_that_left_the_log",
    ),
    Mutation(
        "the approval of a lost log lowers counters that nobody was shown",
        (Patch("recon_pipeline.assets.events_left:let_through", "if invisible:", "if False:"),),
        f"{_LEFT}_a_usage_that_is_truly_gone_lowers_no_counter_before_each_was_shown",
    ),
    Mutation(
        "keys that left the log make room for drift that nobody was shown",
        (Patch("recon_pipeline.assets.approval:_figures", "- let_through", ""),),
        f"{_LEFT}_the_approval_of_a_budget_repairs_no_key_that_drifted_since_in_place_of_one_that_left",
    ),
    Mutation(
        "of a doubt that left only the known events count",
        (
            Patch(
                "doubt_events_left",
                "case when units.of_doubt > units.stored then 0 else coalesce(open.events_left, 0) end",
                "open.events_left",
            ),
        ),
        "recon_pipeline_tests/reconciliation/test_doubt_that_left.py::"
        "test_of_a_doubt_that_left_each_unit_counts_as_an_event_of_the_day",
    ),
    Mutation(
        "an approval from before the log was lost is one for its loss",
        (
            Patch(
                "recon_pipeline.assets.approval:_answered_before",
                "return asked",
                "return asked or shown",
            ),
        ),
        f"{_LEFT}_an_older_approval_says_nothing_of_a_log_that_is_lost_later",
    ),
    Mutation(
        "events that left are let through beyond the budget of a day",
        (
            Patch(
                "recon_pipeline.store.counters.doubt_of_events_left:mark",
                "if today <= run.max_events_left:",
                "if True:",
            ),
        ),
        f"{_LEFT}_as_many_events_a_day_as_are_allowed_are_followed_at_once_and_not_one_more",
    ),
    Mutation(
        "counters outside the known months are passed over in silence",
        (
            Patch(
                "recon_pipeline.assets.counters_in_known_months:counters_are_in_known_months",
                "beyond.later_count == 0 and",
                "True or",
            ),
        ),
        "recon_pipeline_tests/reconciliation/test_counters_beyond_known_months.py::"
        "test_a_counter_outside_of_the_known_months_is_counted_shown_and_left_as_it_is",
    ),
    Mutation(
        "a month that is declared to be no longer in the log is compared",
        (
            Patch(
                "recon_pipeline.store.records.retention:months_in_the_log", "first_compared(retention, first)", "first"
            ),
        ),
        "recon_pipeline_tests/commands/test_retention_command.py::"
        "test_declared_months_are_never_compared_again_and_their_counters_are_kept",
    ),
    Mutation(
        "a number of JSON is read as a floating point number",
        (Patch(f"{_READING}.exact_json:decode", "_DECODER.decode(text)", "json.loads(text)"),),
        f"{_EXACT_TESTS}_a_number_of_json_is_read_to_its_last_digit",
    ),
    Mutation(
        "a word for null is an identifier",
        (Patch(f"{_READING}.cells:Cells._without_nulls", "type(value) is str and value in nulls", "False"),),
        f"{_EXACT_TESTS}_a_word_for_null_is_null_in_every_column_of_the_mapping[NULL]",
    ),
    Mutation(
        "a point before three digits is a decimal point",
        (Patch(f"{_READING}.number_texts:TextNumber.read", "if self._refuses_ambiguous and", "if False and"),),
        f"{_EXACT_TESTS}_a_quantity_with_separators_is_what_the_mapping_says_or_refused",
    ),
    Mutation(
        "a column that looks like one of ours is ignored",
        (Patch(f"{_READING}.default_mapping:looks_like", "if bare == _bare(ours):", "if False:"),),
        f"{_MEANING_TESTS}_a_column_that_looks_like_ours_in_a_later_row_rejects_that_row",
    ),
    Mutation(
        "a request id that was used again weeks later is a duplicate",
        (Patch("insert_staged_events", "or coalesce(", "or false and coalesce("),),
        f"{_MEANING_TESTS}_a_request_id_that_was_used_again_at_another_time_is_a_conflict_and_no_duplicate",
    ),
    Mutation(
        "the first bytes of a file do not decide what it is",
        (Patch(f"{_SOURCES}.kinds:kind_of", "if head.startswith(magic) and", "if False and"),),
        f"{_FILES_TESTS}_what_a_file_is_its_first_bytes_decide_and_never_its_name",
    ),
    Mutation(
        "a source that changes while it is read ends in success",
        (Patch(f"{_SOURCES}.files:_require_whole", "if before != file.version():", "if False:"),),
        f"{_FILES_TESTS}_a_file_that_changes_while_it_is_read_is_an_error[longer]",
    ),
    Mutation(
        "a file of a folder is passed over in silence",
        (Patch(f"{_SOURCES}.finding:_left_out", "on_unread(Unread(shown_source(path), reason))", "pass"),),
        f"{_FILES_TESTS}_hidden_files_are_named_and_every_other_file_of_a_folder_is_read",
    ),
    Mutation(
        "a file of a kind that cannot be read is not refused by name",
        (Patch(f"{_SOURCES}.files:_require_readable", "if kind.fix:", "if False:"),),
        f"{_FILES_TESTS}_a_file_of_another_kind_in_a_folder_fails_unless_the_mapping_skips_it",
    ),
    Mutation(
        "rejected rows come back in the encoding of their source",
        (Patch(f"{_SOURCES}.returned:is_returned", "return KIND in", "return KIND.upper() in"),),
        f"{_ROUND_TRIP_TESTS}_a_file_that_a_spreadsheet_saved_in_its_own_way_is_read",
    ),
    Mutation(
        "a spreadsheet runs the cells of rejected rows",
        (Patch(f"{_READING}.round_trip:guarded", "if _RUNS.match(text) and", "if False and"),),
        f"{_ROUND_TRIP_TESTS}_a_cell_that_a_spreadsheet_would_run_is_marked_and_comes_back",
    ),
    Mutation(
        "a batch that fails stays running",
        (
            Patch(
                "recon_pipeline.store.backfill.closing:_failed",
                "batches.finish(connection, batch_id, error=storable(what))",
                "pass",
            ),
        ),
        f"{_ENDS_TESTS}_an_error_that_nobody_expected_closes_the_record_with_its_cause_and_its_rows_and_is_raised",
    ),
    Mutation(
        "a time that Python has no value for ends the batch",
        (Patch("recon_pipeline.store.backfill.exports:_keep_values_as_written", "in _TIMES", "in ()"),),
        f"{_ENDS_TESTS}_a_time_of_a_table_that_is_no_instant_rejects_its_row_and_no_other",
    ),
    Mutation(
        "a sealed month is compared with the log",
        (
            Patch(
                "recon_pipeline.store.counters.usage_snapshot:UsageSnapshot._exactly",
                "if any_stand_in else",
                "if not any_stand_in and any_stand_in else",
            ),
        ),
        f"{_SEALED_TESTS}_what_happens_to_the_log_of_a_sealed_month_changes_no_counter_and_opens_no_key",
    ),
    Mutation(
        "a seal covers periods that had not ended",
        (
            Patch(
                "recon_pipeline.store.sums.run:Reconciliation.parameters",
                "[one.covers_until for one in stand_ins]",
                '["infinity" for one in stand_ins]',
            ),
        ),
        "recon_pipeline_tests/reconciliation/test_periods_beyond_a_seal.py"
        "::test_what_is_used_in_a_period_that_goes_on_keeps_its_counter_and_is_no_correction",
    ),
    Mutation(
        "a counter that counts two periods is repaired to the seal of one of them",
        (Patch("periods_written_twice", "and not (one.is_sealed and other.is_sealed)", "and not one.is_sealed"),),
        "recon_pipeline_tests/reconciliation/test_periods_beyond_a_seal.py"
        "::test_one_counter_for_two_periods_is_left_alone_as_in_an_open_month",
    ),
    Mutation(
        "events of the other period are not looked for under the lock of a sealed counter",
        (Patch("locked_sums", "where seal_id is null or not :end_is_in_key", "where seal_id is null or false"),),
        "recon_pipeline_tests/reconciliation/test_periods_beyond_a_seal.py"
        "::test_a_usage_of_the_other_period_that_comes_under_the_repair_is_not_taken_from_the_one_counter",
    ),
    Mutation(
        "a sealed month is repaired to the log",
        (Patch("repair_locked_counters", "else coalesce(sealed.usage_count, 0) end", "else bound.most_sum end"),),
        f"{_SEALED_TESTS}_a_counter_of_a_sealed_month_that_somebody_edits_is_repaired_to_its_sealed_sum",
    ),
    Mutation(
        "a repair goes on where a month was sealed or reopened under it",
        (Patch("repair_locked_counters", "when locked.is_seal_changed then true", "when false then true"),),
        f"{_SEALED_TESTS}_a_month_that_is_sealed_or_reopened_under_a_repair_leaves_its_keys_to_the_next_run",
    ),
    Mutation(
        "what was verified against the log counts as verified against a seal",
        (
            Patch(
                "recon_pipeline.store.counters.usage_snapshot:UsageSnapshot._is_verified",
                "and month.verified_seal_id == month.seal_id",
                "",
            ),
            Patch("months_with_news", "or month.verified_seal_id is distinct from stand_in.seal_id", ""),
        ),
        f"{_SEALED_TESTS}_a_run_that_verified_the_log_while_the_month_was_sealed_does_not_hide_a_counter",
    ),
    Mutation(
        "twins make a key of a sealed month doubtful",
        (Patch("keys_sharing_events", "and seal_id is null", ""),),
        f"{_SEALED_TESTS}_credits_and_twins_that_come_late_make_no_key_of_a_sealed_month_doubtful",
    ),
    Mutation(
        "counters of sealed months make an empty log a lost one",
        (Patch("log_visibility", "covers_until >= counter.period_end", "covers_until is null"),),
        f"{_SEALED_TESTS}_a_log_that_is_empty_but_for_sealed_months_blocks_no_run",
    ),
    Mutation(
        "a month is sealed although a counter differs",
        (Patch("recon_pipeline.store.counters.sealing:_require_closed", "if differing:", "if False:"),),
        f"{_SEALING_TESTS}_a_month_that_is_not_over_or_not_right_is_not_sealed_and_the_refusal_says_why",
    ),
    Mutation(
        "a row of the seals is taken out unnoticed",
        (
            Patch(
                "recon_pipeline.store.counters.verify_seals:_changed",
                "if recorded.previous_chain != previous:",
                "if False:",
            ),
        ),
        f"{_SEALING_TESTS}_whatever_is_changed_of_a_seal_is_found_and_the_first_is_named",
    ),
    Mutation(
        "what was remembered of a sealed month outlives events that are added to its sums",
        (Patch("add_to_aggregates", "since_seal = null", "since_seal = month.since_seal"),),
        f"{_IDLE_TESTS}_a_tick_says_of_sealed_months_what_it_would_say_if_it_remembered_nothing",
    ),
    Mutation(
        "what was remembered of a sealed month outlives events that left it",
        (Patch("total_months", "since_seal = null", "since_seal = month.since_seal"),),
        f"{_IDLE_TESTS}_a_tick_says_of_sealed_months_what_it_would_say_if_it_remembered_nothing",
    ),
    Mutation(
        "what was found of a sealed month is kept although another run wrote its sums meanwhile",
        (
            Patch("add_to_aggregates", "summed_xid = pg_current_xact_id()", "summed_xid = month.summed_xid"),
            Patch("total_months", "summed_xid = pg_current_xact_id()", "summed_xid = month.summed_xid"),
        ),
        f"{_IDLE_TESTS}_what_a_tick_found_is_not_kept_if_the_sums_were_written_meanwhile",
    ),
    Mutation(
        "what was remembered of a seal is said of the next one",
        (
            Patch(
                "recon_pipeline.store.counters.remembered_since_seals:_remembered",
                'kept["of"] != of',
                "False",
            ),
        ),
        f"{_IDLE_TESTS}_what_was_remembered_of_a_seal_says_nothing_of_the_next_one",
    ),
)
