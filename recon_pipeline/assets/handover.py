"""Data that a step hands to a command through Dagster's event log: its error, a preview, files that were not read.

Invariant: both sides have the same types, in whichever process each of them runs. Dagster keeps JSON, which is written
and read here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources.names import Unread
from recon_pipeline.store.backfill.dry_run import Preview

_ERROR, _PREVIEW, _UNREAD, _ACTIONS = "error", "plan", "files_not_read", "actions"


@dataclass(frozen=True)
class _ErrorParts:
    """The three parts of a `ReconError`."""

    what: str
    changed: str
    fix: str


_errors = TypeAdapter(_ErrorParts)
_previews = TypeAdapter(Preview)
_unread = TypeAdapter(tuple[Unread, ...])
_action_names = TypeAdapter(tuple[str, ...])

Metadata = Mapping[str, dg.MetadataValue[Any]]


def failure(error: ReconError) -> dg.Failure:
    """The failure of a step, to be raised from the error; a retry would not help."""
    parts = _ErrorParts(error.what, error.changed, error.fix)
    kept = {_ERROR: dg.MetadataValue.json(_errors.dump_python(parts, mode="json"))}
    return dg.Failure(str(error), metadata=kept, allow_retries=False)


def read_error(metadata: Metadata) -> ReconError | None:
    """The error in the metadata of a step's failure, or None if the step failed otherwise.

    It is a plain `ReconError`, whatever its class was, because a command treats all failed runs alike.
    """
    kept = metadata.get(_ERROR)
    if not isinstance(kept, dg.JsonMetadataValue):
        return None
    parts = _errors.validate_python(kept.value)
    return ReconError(parts.what, changed=parts.changed, fix=parts.fix)


def preview_metadata(preview: Preview) -> dict[str, dg.JsonMetadataValue]:
    """The preview as metadata of an observation."""
    return {_PREVIEW: dg.MetadataValue.json(_previews.dump_python(preview, mode="json"))}


def read_preview(metadata: Metadata) -> Preview | None:
    """The preview in the metadata of an observation, or None if there is none."""
    kept = metadata.get(_PREVIEW)
    return _previews.validate_python(kept.value) if isinstance(kept, dg.JsonMetadataValue) else None


def unread_metadata(unread: Sequence[Unread]) -> dict[str, dg.JsonMetadataValue]:
    """The files that were found and not read, each with its reason, as metadata."""
    return {_UNREAD: dg.MetadataValue.json(_unread.dump_python(tuple(unread), mode="json"))}


def read_unread(metadata: Metadata) -> tuple[Unread, ...]:
    """The files that were found and not read, from metadata."""
    kept = metadata.get(_UNREAD)
    return _unread.validate_python(kept.value) if isinstance(kept, dg.JsonMetadataValue) else ()


def actions_metadata(names: Sequence[str]) -> dict[str, dg.JsonMetadataValue]:
    """The names of the actions that an observation shows, as metadata."""
    return {_ACTIONS: dg.MetadataValue.json(_action_names.dump_python(tuple(names), mode="json"))}


def read_actions_shown(metadata: Metadata) -> tuple[str, ...]:
    """The names of the actions that an observation shows, from its metadata."""
    kept = metadata.get(_ACTIONS)
    return _action_names.validate_python(kept.value) if isinstance(kept, dg.JsonMetadataValue) else ()
