"""Which lake is counted, by which mapping: `RECON_LAKE` and the variables beside it, read when a lake is counted."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recon_pipeline.core.backfill.mapping import MappingSpec, parse_mapping, parse_mapping_text
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.lake.engine_settings import EngineSettings, read_engine_settings
from recon_pipeline.lake.files import uncountable


@dataclass(frozen=True)
class LakeSettings:
    """The settings of a lake.

    Attributes:
        url: A folder, or a URL that fsspec opens.
        complete_until: Of periods that end before this month begins, the lake has every event.
        mapping: Which column is which; None: columns are named as those of `billing_usage_events`.
        engine: What counts it.
    """

    url: str
    complete_until: BillingMonth
    mapping: MappingSpec | None
    engine: EngineSettings


def has_lake(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a lake is named."""
    return bool(environ.get("RECON_LAKE"))


def read_lake_settings(environ: Mapping[str, str] = os.environ) -> LakeSettings:
    """Read and check the variables of the lake.

    Raises:
        ConfigurationError: One is missing, or cannot be used.
    """
    url = environ.get("RECON_LAKE", "")
    if not url:
        raise uncountable(
            "RECON_LAKE is not set.", fix="Set it to the folder or URL of the lake, like RECON_LAKE=s3://bucket/usage."
        )
    return LakeSettings(url, _complete_until(environ), _mapping(environ), read_engine_settings(environ))


def _complete_until(environ: Mapping[str, str]) -> BillingMonth:
    text = environ.get("RECON_LAKE_COMPLETE_UNTIL", "")
    fix = (
        "Set it to the first month of which events may still come to the lake, like RECON_LAKE_COMPLETE_UNTIL=2026-05."
    )
    if not text:
        raise uncountable(
            "RECON_LAKE_COMPLETE_UNTIL is not set: nobody has said which months the lake has as a whole.", fix=fix
        )
    try:
        month = BillingMonth.parse(text)
    except ConfigurationError as error:
        raise uncountable(f"RECON_LAKE_COMPLETE_UNTIL: {error.what}", fix=fix) from error
    current = BillingMonth.containing(datetime.now(UTC))
    if month > current:
        raise uncountable(
            f"RECON_LAKE_COMPLETE_UNTIL is {month.key}, but {current.key} is not over.",
            fix=f"Set it to {current.key} or earlier.",
        )
    return month


def _mapping(environ: Mapping[str, str]) -> MappingSpec | None:
    path = environ.get("RECON_LAKE_MAPPING", "")
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise uncountable(
            f"RECON_LAKE_MAPPING names {path}, which cannot be read: {error}",
            fix="Correct the path, or unset it if the columns are named as those of billing_usage_events.",
        ) from error
    return parse_mapping(parse_mapping_text(text, name=path))
