"""Who did something, and the trace that it leaves in Dagster."""

import getpass
import os

from recon_pipeline.core.errors import ReconError
from recon_pipeline.faces.console import err


def user_name() -> str:
    """Who runs this; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def leave_trace(description: str, **metadata: str) -> None:
    """Show on the asset `repaired_counters` what a person did; it is in force already, with or without a trace."""
    # Only now: what was asked for took effect before Dagster, which takes seconds to load.
    from recon_pipeline.faces.orchestrator import report_observation

    try:
        report_observation(description, metadata)
    except ReconError as error:
        err.print(f"Done, but not shown in Dagster: {error.what}", style="yellow", markup=False, soft_wrap=True)
