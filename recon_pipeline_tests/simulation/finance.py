"""Finance seals months and reopens them, while all other actors go on.

A month that cannot be sealed yet is refused, which is right; what is sealed is what the log added up to at the
snapshot of the sealing, and from its commit on that is what the counters of the month should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.counters import reopening, sealing, verify_seals
from recon_pipeline.store.counters.sealing import NotSealedError
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.sums.run import Reconciliation
from recon_pipeline_tests.reconciliation.product import PAID_STATUSES, QUOTAS, SCOPE
from recon_pipeline_tests.simulation import pipeline
from recon_pipeline_tests.simulation.model import Key, Reopened, Sealed, ViolationError, month_of
from recon_pipeline_tests.simulation.pipeline import RunOptions, Statement
from recon_pipeline_tests.simulation.plan import Op
from recon_pipeline_tests.simulation.runs import Run, Surroundings
from recon_pipeline_tests.simulation.scheduler import Actor

_SEALED_SUMS = """
    select gateway_customer_id, period_start, period_end, usage_count from recon.sealed_counter
    where seal_id = %s and usage_count <> 0
"""


@dataclass
class _Closing(Run):
    """One sealing or reopening; `sums` is what the log added up to at its last snapshot."""

    sums: dict[Key, int] = field(default_factory=dict)

    def _look(self, is_repeatable: bool, statement: Statement, is_compared_now: bool) -> None:
        if statement.takes_snapshot and not (is_repeatable and self.has_snapshot):
            model = self.around.model
            self.sums = {key: model.total_of(key) for key in model.keys_of(self.extent.first)}
        self.has_snapshot |= statement.takes_snapshot


@dataclass
class Finance:
    """Seals and reopens, one month after the other."""

    ops: Sequence[Op]
    url: str
    around: Surroundings

    def act(self, actor: Actor) -> None:
        """Month after month."""
        for op in self.ops:
            actor.stop("begin to close a month")
            month = month_of(op.keys[0])
            closing = _Closing(op, actor, self.around, RunOptions(first=month, last=month))
            closing.begins(f"{op.kind} {month}")
            database = BillingDatabase(self.url, keeps_connection=True)
            pipeline.steer(database, closing)
            try:
                with database.connection() as connection:
                    self._close(connection, closing, BillingMonth.parse(month))
            except (ReconError, DBAPIError) as error:
                if not (isinstance(error, NotSealedError) or self._may_fail(closing)):
                    raise ViolationError(f"{closing.run_id} failed of itself: {error}") from error
            finally:
                database.close()

    def _close(self, connection: Connection, closing: _Closing, month: BillingMonth) -> None:
        model = self.around.model
        run = Reconciliation(closing.run_id, Extent(SCOPE, month, month), 0, QUOTAS, PAID_STATUSES)
        if closing.op.kind == "reopen":
            with decision(connection) as tables:
                reopening.reopen(connection, run, tables, reason="the simulation", reopened_by="finance")
            model.commit([Reopened(month.key)])
            return
        with decision(connection, "REPEATABLE READ") as tables:
            (sealed,) = sealing.seal(connection, run, tables, sealed_by="finance", reason=None, dagster_run_id=None)
        sums = {key: total for key, total in closing.sums.items() if total and key not in model.poisoned}
        found = {row[:3]: row.usage_count for row in self.around.monitor.query(_SEALED_SUMS, sealed.record.id)}
        if {key: total for key, total in found.items() if key not in model.poisoned} != sums:
            raise ViolationError(f"{closing.run_id} has sealed {found}, the log added up to {sums}")
        model.commit([Sealed(month.key, sums)])

    def _may_fail(self, closing: _Closing) -> bool:
        return closing.was_disturbed or closing.met_migration or closing.saw_rows_hidden


def require_seals(connection: Connection) -> None:
    """Hold seals to their chain and their sums; in a transaction.

    Raises:
        ViolationError: One is not what was written.
    """
    seals = verify_seals.read_seals(connection)
    if misfit := verify_seals.misfit_of_records(connection, seals, summed={one.id for one in seals}):
        raise ViolationError(misfit)
