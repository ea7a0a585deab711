"""Keeps usage-billing counters equal to the event log they summarise.

The data flow, which is also the order of the files in `assets/`:

    usage_events ─▶ usage_aggregates ─▶ counter_drift ─▶ repaired_counters
       │ checks        │ checks            │ blocking guards   │ counters match event sums

Import rule, one way only: `core` (pure) ◀ `settings` ◀ `store` (all SQL) ◀ `assets` ◀ `automation` ◀ `definitions`
◀ `faces`. Statements lie beside the modules that send them. `definitions.py` is the table of contents.
"""
