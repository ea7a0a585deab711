"""What a step hands over through Dagster's event log: its error, the preview of a dry run, and the files it left out.

Invariant: both sides have the same types, in whichever process the step ran. Dagster keeps JSON, which is written and
read here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources.finding import Unread
from recon_pipeline.store.backfill.dry_run import Preview

_ERROR, _PREVIEW, _UNREAD = "error", "plan", "files_not_read"
_previews = TypeAdapter(Preview)
_unread = TypeAdapter(tuple[Unread, ...])

Metadata = Mapping[str, dg.MetadataValue[Any]]


def failure(error: ReconError) -> dg.Failure:
    """The failure of a step, to be raised from the error; a retry would not help."""
    parts = {"what": error.what, "changed": error.changed, "fix": error.fix}
    return dg.Failure(str(error), metadata={_ERROR: dg.MetadataValue.json(parts)}, allow_retries=False)


def read_error(metadata: Metadata) -> ReconError | None:
    """The error in the metadata of a step's failure, or None if the step failed otherwise.

    A plain `ReconError`, whatever it was: for a command, all failed runs are alike.
    """
    kept = metadata.get(_ERROR)
    if not isinstance(kept, dg.JsonMetadataValue) or not isinstance(kept.value, dict):
        return None
    return ReconError(kept.value["what"], changed=kept.value["changed"], fix=kept.value["fix"])


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
