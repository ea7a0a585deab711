"""Keeps usage-billing counters equal to the event log they summarise.

The data flow, which is also the order of the files in `assets/`:

    usage_events ─▶ usage_aggregates ─▶ counter_drift ─▶ repaired_counters
       │ checks        │ checks            │ blocking guards   │ counters match event sums

Import rule, one way only: `core` (pure) ◀ `settings` ◀ `store` (all SQL) ◀ `assets` ◀ `automation` ◀ `definitions`
◀ `component`, `faces`. Statements lie beside the modules that send them. `definitions.py` is the table of contents.

For a Dagster that exists already: `build_definitions`, `ReconciledDatabase`, `LakeEngine` and the component
`ReconciledUsage`. They are loaded on first use, because Dagster takes seconds to load and most commands do not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recon_pipeline.assets.lake_engine import LakeEngine
    from recon_pipeline.assets.reconciled_database import ReconciledDatabase
    from recon_pipeline.component import ReconciledUsage
    from recon_pipeline.definitions import build_definitions

__all__ = ["LakeEngine", "ReconciledDatabase", "ReconciledUsage", "build_definitions"]

_MODULES = {
    "LakeEngine": "recon_pipeline.assets.lake_engine",
    "ReconciledDatabase": "recon_pipeline.assets.reconciled_database",
    "ReconciledUsage": "recon_pipeline.component",
    "build_definitions": "recon_pipeline.definitions",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
