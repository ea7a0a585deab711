-- Part of other statements: whether the transaction that wrote an event had ended by the newest horizon that a run took long enough ago.
-- Invariant: decided by the row's own transaction, never by a column that the application fills; without such a horizon nothing is settled.
-- The age of a row that was frozen long ago may be negative: it is old.
-- Binds: settled_below xid8
(age(countable.event_xid) < 0 or age(countable.event_xid) > age(cast(cast(:settled_below as xid8) as xid)))
