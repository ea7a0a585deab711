"""Shows in Dagster, on the asset `repaired_counters`, what people did by command: pauses, holds, declarations.

Invariant: each action is shown once in each Dagster whose sensor reads the database, also after a crash between the
observation and the cursor, or where the sensor was off or its cursor was reset: Dagster's history says what it shows.
"""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from recon_pipeline.assets.handover import actions_metadata, read_actions_shown
from recon_pipeline.assets.names import Names
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records.actions import Action, read_actions

SHOWN_AT_ONCE = 200
"""In one evaluation of the sensor, which Dagster cancels after 60 seconds; the next one continues from there."""

OBSERVATIONS_READ = 1_000
"""More than are shown in the time that is read again."""

SUBJECTS_NAMED = 20


def show_actions(
    instance: dg.DagsterInstance, names: Names, database: BillingDatabase, *, since: datetime | None
) -> tuple[datetime, int]:
    """Show what is not shown yet.

    Args:
        instance: That it is shown in.
        names: Of our assets.
        database: Where the actions are recorded.
        since: Up to where they were shown before, or None.

    Returns:
        Up to where they are shown now, by the database's clock, and how many observations were written.
    """
    counters = names.key("repaired_counters")
    with database.transaction() as connection:
        until = now(connection)
        actions = read_actions(connection, since=since)
    shown = _shown(instance, counters) if actions else set[str]()
    commands = _by_command([action for action in actions if action.name not in shown])
    for command in commands[:SHOWN_AT_ONCE]:
        instance.report_runless_asset_event(_observation(counters, command))
    if len(commands) > SHOWN_AT_ONCE:
        until = commands[SHOWN_AT_ONCE][0].acted_at
    return until, min(len(commands), SHOWN_AT_ONCE)


def _shown(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[str]:
    names: set[str] = set()
    for record in instance.fetch_observations(asset, limit=OBSERVATIONS_READ).records:
        observation = record.asset_observation
        names.update(read_actions_shown(observation.metadata) if observation else ())
    return names


def _by_command(actions: Sequence[Action]) -> list[list[Action]]:
    """The actions of one command together: a hold of many customers is one observation."""
    found: dict[tuple[object, ...], list[Action]] = {}
    for action in actions:
        # Only holds and releases are several records of one command.
        alone = None if action.action in ("hold", "release") else action.id
        found.setdefault((action.action, action.acted_by, action.reason, action.until, alone), []).append(action)
    return list(found.values())


def _observation(asset: dg.AssetKey, command: Sequence[Action]) -> dg.AssetObservation:
    first = command[0]
    return dg.AssetObservation(
        asset,
        description=_described(command),
        metadata={
            "reason": first.reason or "",
            "done_at": dg.MetadataValue.timestamp(first.acted_at),
            **actions_metadata([action.name for action in command]),
        },
    )


def _described(command: Sequence[Action]) -> str:
    first = command[0]
    until = f" until {first.until:%Y-%m-%d %H:%M} UTC" if first.until else ""
    subjects = ", ".join(action.subject or "" for action in command[:SUBJECTS_NAMED])
    more = f" and {len(command) - SUBJECTS_NAMED:,} more" if len(command) > SUBJECTS_NAMED else ""
    match first.action:
        case "pause":
            what = f"Repairs were paused by {first.acted_by}{until}"
        case "resume":
            what = f"Repairs were resumed by {first.acted_by}"
        case "hold":
            what = f"Held by {first.acted_by}{until}: {subjects}{more}"
        case "release":
            what = f"Released by {first.acted_by}: {subjects}{more}"
        case _:
            what = f"Declared by {first.acted_by}: the months before {subjects} are no longer in the log"
    return f"{what}. Reason: {first.reason}" if first.reason else what
