"""A file read as a backfill reads it, without a database."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_pipeline.core.backfill.mapping import parse_mapping
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.reading import read_rows
from recon_pipeline.core.backfill.rows import Reading
from recon_pipeline.core.scope import parse_scope
from recon_pipeline.sources.rows import read_files
from recon_pipeline_tests.backfill.inserting import SPEC

SCOPE = parse_scope("stripe:remote_commands")


def readings(path: Path, mapping: Mapping[str, Any] | None = SPEC, *, quantity_type: str = "integer") -> list[Reading]:
    """What each row of a file says."""
    spec = None if mapping is None else parse_mapping(mapping)
    pieces = read_files([str(path)], encoding=spec.encoding if spec else "utf-8", delimiter=None)
    read = read_rows(pieces, spec, batch_id="b", quantity_range=QuantityRange.of(quantity_type), scope=SCOPE)
    return [reading for piece in read for reading in piece.readings]
