"""`recon pause` and `recon resume`: stop and continue repairs, while comparisons and checks go on."""

from dataclasses import asdict, dataclass
from typing import Any

from recon_pipeline.core.instants import parse_until
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import out
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings
from recon_pipeline.store.counters.pause import Pause, pause_repairs, read_pause, resume_repairs
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import begin


@dataclass(frozen=True)
class Paused:
    """The result of `recon pause`.

    Attributes:
        pause: The one in force.
        replaced: The one before it, if repairs were paused already.
    """

    pause: Pause | None
    replaced: Pause | None


def pause(settings: Settings, *, reason: str, until: str | None) -> Paused:
    """Pause repairs; returns when none is in progress any more.

    Args:
        settings: Name the database.
        reason: Why.
        until: When it ends by itself, as `parse_until` reads it, or None.

    Raises:
        ReconError: The end cannot be read, or the database cannot be used.
    """
    with billing_database(settings).connection() as connection:
        with begin(connection):
            moment = now(connection)
        ends = parse_until(until, now=moment) if until is not None else None
        before = pause_repairs(connection, reason=reason, paused_by=user_name(), until=ends)
        with begin(connection):
            paused = read_pause(connection)
    return Paused(paused, before)


def resume(settings: Settings, *, reason: str | None) -> Pause | None:
    """Let repairs go on; returns the pause that this ended, or None if there was none."""
    with billing_database(settings).connection() as connection:
        return resume_repairs(connection, reason=reason, resumed_by=user_name())


def paused_as_json(paused: Paused) -> dict[str, Any]:
    """The one object of `recon pause --json`."""
    return {"success": True, "paused": _fields(paused.pause), "replaced": _fields(paused.replaced)}


def show_paused(paused: Paused) -> None:
    """The same for a person."""
    out.print(f"Repairs are paused {paused.pause}", markup=False, soft_wrap=True)
    out.print("No repair is in progress. Runs still compare and check. To end the pause: recon resume")


def resumed_as_json(ended: Pause | None) -> dict[str, Any]:
    """The one object of `recon resume --json`."""
    return {"success": True, "paused": None, "ended": _fields(ended)}


def show_resumed(ended: Pause | None) -> None:
    """The same for a person."""
    if ended is None:
        out.print("Repairs were not paused.")
        return
    out.print(f"Repairs continue. They were paused {ended}", markup=False, soft_wrap=True)
    out.print("The next tick of the schedule repairs what it finds; to do so now: recon reconcile")


def _fields(pause: Pause | None) -> dict[str, Any] | None:
    return asdict(pause) if pause else None
