"""What a person asks to undo, what there is to undo, and the refusal of an undo that the next run would reverse."""

import shlex
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_CHANGED, ConfigurationError, ReconError
from recon_pipeline.store.counters.pause import Pause, read_pause
from recon_pipeline.store.postgres.statements import labelled, statement

# The runs whose id begins with what a person typed; runs that repaired and runs that undid repairs.
# Invariant: at most a few rows, to distinguish one run from several.
# Binds: prefix text
_FIND_RUNS = labelled(
    "find_runs",
    """
    select run_id
    from (select run_id from recon.reconciliation_run union select run_id from recon.undo) as run
    where starts_with(run_id, :prefix)
    order by run_id
    limit 5
    """,
)


@dataclass(frozen=True)
class UndoRequest:
    """What a person asks to undo.

    Attributes:
        run_id: Of the run that undoes.
        undone_run_id: Whose repairs.
        customers: Only these, or all if empty.
        reason: Why.
        requested_by: Who.
    """

    run_id: str
    undone_run_id: str
    customers: tuple[str, ...]
    reason: str
    requested_by: str

    @property
    def parameters(self) -> dict[str, Any]:
        """What every statement binds."""
        return {
            "run_id": self.run_id,
            "undone_run_id": self.undone_run_id,
            "every_customer": not self.customers,
            "customers": list(self.customers),
        }


@dataclass(frozen=True)
class Undoable:
    """What there is to undo.

    Attributes:
        undoable: Repairs.
        already_undone: Repairs that were undone before.
        sealed: Repairs in sealed months, which stay.
        usage_delta: Units that they added to counters, in all.
        not_held: Those among the first whose key is not held.
        not_held_customers: A few of their customers.
        pause: Of repairs, if they are paused.
    """

    undoable: int
    already_undone: int
    sealed: int
    usage_delta: int
    not_held: int
    not_held_customers: tuple[str, ...]
    pause: Pause | None


def find_run(connection: Connection, prefix: str) -> str:
    """The run whose id begins with this text.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
    found = list(connection.execute(_FIND_RUNS, {"prefix": prefix}).scalars()) if prefix else []
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(
        f"{prefix!r} is the beginning of several runs: {', '.join(found)}."
        if found
        else f"There is no run whose id begins with {prefix!r}.",
        fix="Take the id from recon status --json, or from the run's page in the UI.",
    )


def find_undoable(connection: Connection, undo: UndoRequest) -> Undoable:
    """What there is to undo, and whether the next run would make it again."""
    row = connection.execute(statement("count_undoable"), undo.parameters).one()
    return Undoable(
        row.undoable,
        row.already_undone,
        row.sealed,
        int(row.usage_delta),
        row.not_held,
        tuple(row.not_held_customers),
        read_pause(connection),
    )


def require_lasting(found: Undoable) -> None:
    """Refuse to undo what the next run would make again.

    Raises:
        ReconError: Repairs are not paused, and not every customer is held.
    """
    if found.pause is not None or not found.not_held:
        return
    others = " and others" if found.not_held > len(found.not_held_customers) else ""
    some = ", ".join(found.not_held_customers) + others
    holds = " ".join(f"--customer {shlex.quote(customer)}" for customer in found.not_held_customers)
    raise ReconError(
        f"The next run would make {found.not_held:,} of these {found.undoable:,} repairs again: "
        f"repairs are not paused, and not held are {some}.",
        changed=NOTHING_CHANGED,
        fix=f'recon pause --reason "...", or recon hold {holds} --reason "..." --until 3d; then this again.',
    )
