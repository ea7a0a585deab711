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

from recon_pipeline.store import statements
from recon_pipeline_tests.reconciliation.billing import MAY
from recon_pipeline_tests.simulation.pipeline import COMMIT
from recon_pipeline_tests.simulation.plan import Op, Plan, World
from recon_pipeline_tests.simulation.scenes import Scene


class FragmentGoneError(AssertionError):
    """A patch does not fit the product any more: it is to be written anew."""


@dataclass(frozen=True)
class Patch:
    """A replacement in one place.

    Attributes:
        where: A file in `sql/`, or `module:qualified.name` of a function.
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

    def source(name: str) -> str:
        fitting = [one for one in in_sql if one.where == name]
        return reduce(lambda text, one: one.applied_to(text), fitting, original(name))

    for one in in_sql:
        source(one.where)
    with patch.object(statements, "source", source):
        undo = [_replace_function(one) for one in in_code]
        statements.statement.cache_clear()
        try:
            yield
        finally:
            for function, code in reversed(undo):
                function.__code__ = code
            statements.statement.cache_clear()


def _replace_function(one: Patch) -> tuple[FunctionType, CodeType]:
    """Give the function other code, so that whoever has imported it has the mutant."""
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


MISSING_COUNTERS = Plan(
    0,
    World(is_incremental=False),
    {
        "saboteur": tuple(Op("lost", ((name, *MAY),), 5, f"lost-{name}") for name in "ab"),
        "writer1": (Op("many", (("b", *MAY), ("a", *MAY)), 3, "many"),),
        "tick1": (Op("tick"),),
    },
)
"""Two counters are to be made, and the application makes them too, in the other order."""

_ADVANCE = "recon_pipeline.store.aggregates:_Advancing.advance"
_REBUILD = "recon_pipeline.store.aggregates:_reason_to_rebuild"
_REPAIRER = "recon_pipeline.store.repair:_Repairer"
_TABLES = "recon_pipeline.store.billing_tables"
_BREACHES = "recon_pipeline.core.guards:breaches"
_COMMIT = "self.connection.connection.dbapi_connection.commit()"
_TESTS = "recon_pipeline_tests/reconciliation"
_LOOKS = f"{_TESTS}/test_what_a_tick_looks_at.py::test"
_TRUST = f"{_TESTS}/test_untrustworthy_log.py::test"
_SUMMED_ONCE = (
    f"{_TESTS}/test_changed_events.py"
    "::test_a_repair_sums_a_key_changed_since_the_comparison_from_the_log_and_the_others_from_what_is_stored"
)

MUTATIONS = (
    Mutation(
        "a sum from before the lock is written, where the comparison has one",
        (Patch("repair_unchanged_counters", "and counter.xmin = drift.counter_xid", ""),),
        (0, 1, 13),
    ),
    Mutation(
        "a sum from before the lock is written, whatever has happened to the counter since",
        (
            Patch(
                "repair_locked_counters",
                "(counter.xmin = drift.counter_xid and counter.ctid = drift.counter_tid) is true",
                "true",
            ),
        ),
        (0, 1, 13),
    ),
    Mutation(
        "sum and write are one statement, with no lock before it",
        (Patch("lock_free_counters", "for no key update of counter skip locked", ""),),
        (17, 19, 37),
    ),
    Mutation(
        "the lock is let go before the write",
        (Patch(f"{_REPAIRER}._lock_and_repair", "    if had:", f"    {_COMMIT}\n    if had:"),),
        (3, 5, 7),
    ),
    Mutation(
        "a repair leaves no row in the ledger",
        (Patch("repair_unchanged_counters", "usage_limit\nfrom updated", "usage_limit\nfrom updated where false"),),
        (0, 1, 3),
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
        (3, 5, 7),
    ),
    Mutation(
        "counters are made in any order",
        (Patch("create_missing_counters", "order by ordinal", "order by md5(run_id || ordinal)"),),
        f"{_TESTS}/test_overlap.py::test_missing_counters_are_made_in_the_one_order_in_which_every_run_locks",
    ),
    Mutation(
        "a chunk waits for a lock for longer than Postgres waits before it cancels somebody",
        (Patch(f"{_REPAIRER}.free_keys", "lock_timeout_ms=CHUNK_LOCK_TIMEOUT_MS", "lock_timeout_ms=LOCK_TIMEOUT_MS"),),
        Scene(
            MISSING_COUNTERS,
            (
                ("saboteur", COMMIT),
                ("saboteur", COMMIT),
                ("writer1", "record_billing_usage_event"),
                ("tick1", "create_missing_counters"),
                ("writer1", "record_billing_usage_event"),
            ),
        ),
    ),
    Mutation(
        "the event at the horizon is not read",
        (Patch("usage_beside_aggregates", "ingest_xid >= cast(:horizon", "ingest_xid > cast(:horizon"),),
        (3, 4, 20),
    ),
    Mutation(
        "the event at the horizon is not read by the repair",
        (Patch("locked_sums_from_aggregates", "then countable.ingest_xid >= (", "then countable.ingest_xid > ("),),
        f"{_TESTS}/test_no_lost_update.py::test_an_event_of_the_very_transaction_at_the_horizon_is_summed",
    ),
    Mutation(
        "a key whose events changed is summed from the log, and its newest events once more",
        (
            Patch(
                "locked_sums_from_aggregates",
                "from asked\n                where horizon is not null\n            )",
                "from asked\n            )",
            ),
        ),
        _SUMMED_ONCE,
    ),
    Mutation(
        "every key of a customer with a changed one is summed from the log, and from what is stored",
        (
            Patch(
                "locked_sums_from_aggregates",
                "from asked\n                where horizon is null\n            )",
                "from asked\n            )",
            ),
        ),
        _SUMMED_ONCE,
    ),
    Mutation(
        "the event at the last horizon is not added",
        (Patch("since_horizon", "ingest_xid >= cast(:since", "ingest_xid > cast(:since"),),
        (4, 3, 20),
    ),
    Mutation(
        "the event at the new horizon is added too early",
        (Patch("since_horizon", "ingest_xid < cast(:horizon", "ingest_xid <= cast(:horizon"),),
        (4, 20),
    ),
    Mutation(
        "the horizon moves and nothing is added",
        (Patch(_ADVANCE, "if horizon > since and built else {}", "if False else {}"),),
        (10, 4, 3),
    ),
    Mutation(
        "the horizon moves in a transaction of its own",
        (Patch(_ADVANCE, '    self._execute("move_horizon"', f'    {_COMMIT}\n    self._execute("move_horizon"'),),
        f"{_TESTS}/test_horizon.py::test_a_run_that_is_killed_before_it_has_moved_the_horizon_adds_nothing",
    ),
    Mutation(
        "two runs add to the aggregates at once",
        (Patch("lock_event_log", "for update skip locked", ""), Patch("lock_horizon", "for update", "")),
        f"{_TESTS}/test_horizon.py::test_a_run_that_meets_another_does_not_wait_says_so_and_compares_exactly",
    ),
    Mutation(
        "keys whose events were deleted are not summed anew",
        (
            Patch(
                "recompute_noted_keys",
                "where to_char(period_start at time zone 'UTC', 'YYYY-MM') = any(:partitions)",
                "where false",
            ),
        ),
        (11, 7),
    ),
    Mutation(
        "another log is taken for the one that was added up",
        (Patch(_REBUILD, "if not position.is_known:", "if False:"),),
        f"{_TESTS}/test_changed_events.py::test_a_log_that_is_not_the_one_of_the_aggregates_has_everything_built_anew",
    ),
    Mutation(
        "a truncated log is taken for the one that was added up",
        (Patch(_REBUILD, "if position.was_truncated:", "if False:"),),
        f"{_TESTS}/test_changed_events.py::test_a_truncated_log_has_everything_built_anew",
    ),
    Mutation(
        "the comparison reads at several snapshots",
        (Patch("recon_pipeline.assets.reconciler:Step.compare", '"REPEATABLE READ"', '"READ COMMITTED"'),),
        (9, 24, 1),
    ),
    Mutation(
        "the last check believes the comparison",
        (Patch("recon_pipeline.store.drift:verify", "if chosen.look is Look.NOTHING:", "if compared is not None:"),),
        (3,),
    ),
    Mutation(
        "the transaction at the mark is not looked at again",
        (Patch("changed_keys", "when age(xmin) <= ", "when age(xmin) < "),),
        f"{_LOOKS}_a_counter_changed_by_a_transaction_that_was_open_when_it_was_verified_is_found",
    ),
    Mutation(
        "a month that has news is marked as verified",
        (Patch("move_horizon", "and partition <> all(:touched)", ""),),
        f"{_LOOKS}_what_was_changed_is_found_as_by_comparing_everything",
    ),
    Mutation(
        "a month that was summed anew meanwhile is marked as verified",
        (Patch("note_verified_below", "and month.recomputed_count = verified.recomputed_count", ""),),
        f"{_LOOKS}_what_another_run_changed_since_the_verifying_snapshot_is_not_marked_as_verified",
    ),
    Mutation(
        "a repeated request id is counted again",
        (Patch(f"{_TABLES}:BillingTables.parts", 'else "_deduplicated"', 'else ""'),),
        (0, 2, 6),
    ),
    Mutation(
        "invalid events are summed",
        (Patch("valid_event", "event.quantity > 0", "event.quantity is not null"),),
        (0, 2, 15),
    ),
    Mutation(
        "what is on its way to a counter is taken for lost",
        (Patch("compare_counters", "case when :settle_seconds > 0 then sum(unsettled) else 0 end", "0"),),
        (8, 9, 22),
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
        (Patch(_BREACHES, "if found > allowed", "if found >= allowed"),),
        f"{_TESTS}/test_blast_radius.py::test_the_number_of_repairs_is_blocked_above_its_budget",
    ),
    Mutation(
        "a budget allows one more",
        (Patch(_BREACHES, "if found > allowed", "if found > allowed + 1"),),
        f"{_TESTS}/test_blast_radius.py::test_the_number_of_repairs_is_blocked_above_its_budget",
    ),
    Mutation(
        "a poison key stops its chunk",
        (Patch(f"{_REPAIRER}.free_keys", "if len(chunk) > 1:", "if False:"),),
        f"{_TESTS}/test_poison_keys.py::test_a_sum_past_bigint_fails_its_key_alone",
    ),
)
