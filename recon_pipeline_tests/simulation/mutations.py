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
        caught_by: Seeds of the simulation that show it, a scene of it, or a test as pytest names it.
    """

    name: str
    patches: tuple[Patch, ...]
    caught_by: tuple[int, ...] | Scene | str


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
_REPAIRER = "recon_pipeline.store.counters.repairer:Repairer"
_TABLES = "recon_pipeline.store.log.billing_tables"
_BREACHES = "recon_pipeline.core.guards:breaches"
_COMMIT = "self.connection.connection.dbapi_connection.commit()"
_TESTS = "recon_pipeline_tests/reconciliation"
_LOST = f"{_TESTS}/test_no_lost_update.py::test"
_CHANGED = f"{_TESTS}/test_changed_events.py::test"
_HORIZON = f"{_TESTS}/test_horizon.py::test"
_COMPARES = f"{_TESTS}/test_what_a_tick_compares.py::test"
_TRUST = f"{_TESTS}/test_untrustworthy_log.py::test"
_KNOWN_LIMITS = "recon_pipeline_tests/commands/test_known_limits.py::test"
_HEAVY = f"{_TESTS}/test_heavy_keys.py::test"
_PERIODS = "recon_pipeline.core.backfill.periods"
_PERIODS_TESTS = "recon_pipeline_tests/backfill/test_periods.py::test"

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
                "else coalesce(event_sum.settled, 0)\n        end as right_count",
                "else locked.settled_sum\n        end as right_count",
            ),
            Patch(
                "repair_locked_counters",
                "then coalesce(event_sum.visible, 0)\n",
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
                'statement("is_drifted_key_noted"), key).scalar_one()',
                'statement("is_drifted_key_noted"), key).scalar_one() is None',
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
        (Patch("take_notes", "where octet_length(gateway_customer_id) <= 1000", "where false"),),
        f"{_CHANGED}_changed_events_are_noted_counted_at_once_and_summed_anew",
    ),
    Mutation(
        "another log is taken for the one that was added up",
        (Patch(_REBUILD, "if position.identity != position.known_identity:", "if False:"),),
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
                "recon_pipeline.store.counters.comparing:Comparing.changed_since_verified",
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
                "recon_pipeline.store.counters.comparing:Comparing.find_mismatches",
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
        (Patch("classified_events", "event.quantity > 0", "event.quantity is not null"),),
        f"{_TESTS}/test_invalid_events.py::test_an_invalid_quantity_is_counted_and_sampled_but_never_summed",
    ),
    Mutation(
        "a repeated request id is counted again",
        (Patch(f"{_TABLES}:BillingTables.parts", 'else "_deduplicated"', 'else ""'),),
        f"{_TESTS}/test_table_shapes.py::test_a_repeated_request_id_counts_once_within_a_key",
    ),
    Mutation(
        "a standby is believed",
        (Patch(f"{_TABLES}:_look_up", "if server.is_standby:", "if False:"),),
        f"{_TRUST}_a_standby_is_refused",
    ),
    Mutation(
        "row level security hides events",
        (Patch(f"{_TABLES}:_require_visible", "if table.row_security_active:", "if False:"),),
        f"{_TRUST}_row_level_security_that_is_active_for_our_role_is_refused",
    ),
    Mutation(
        "an empty log beside counters is believed",
        (Patch("recon_pipeline.assets.reconciler:Step.lost_log", "if not invisible:", "if True:"),),
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
)
