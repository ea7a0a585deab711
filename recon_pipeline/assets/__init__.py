"""The pipeline in Dagster's terms: one file for each asset in flow order, each with its checks.

The work itself is done in `store`.
"""

import warnings

import dagster as dg

# One run over a range of months is what a tick and a replay need; that this option may still change is Dagster's to say
# in its release notes, not at every start of every process.
warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)
# Likewise of the check that is evaluated for each month.
warnings.filterwarnings("ignore", message=".*partitions_def on an AssetCheckSpec.*", category=dg.PreviewWarning)
