"""The pipeline in Dagster's terms: one file for each asset in flow order, each with its checks.

The work itself is done in `store`, and in modules here that know no Dagster: this package loads none for them.
"""

import warnings

# One run over a range of months is what a tick and a replay need; that this option may still change is Dagster's to say
# in its release notes, not at every start of every process.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy` of ")
# Likewise of the check that is evaluated for each month.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec ")
