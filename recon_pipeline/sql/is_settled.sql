-- Part of other statements: whether the transaction that wrote an event had ended long enough ago, by the newest horizon that a run took so long ago.
-- Invariant: decided by the row's own transaction, never by a column that the application fills. Without such a horizon nothing is settled.
-- The age of a row that was frozen long ago may be negative: it is old.
(age(countable.event_xid) < 0 or age(countable.event_xid) > age(cast(cast(:settled_below as xid8) as xid)))
