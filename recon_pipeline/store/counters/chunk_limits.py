"""How long a chunk may wait and take, so that no increment ever waits more than 5 s for us."""

CHUNK_LOCK_TIMEOUT_MS = 100
"""Far below Postgres's deadlock_timeout of a second, so that the application is never the one that is cancelled."""

CHUNK_STATEMENT_TIMEOUT_MS = 1_250
CHUNK_IDLE_TIMEOUT_MS = 1_750
"""A chunk has counters locked for two pauses of ours and one long statement: 5 s at most, whatever happens to us. A
customer with so many events that a sum takes longer is a heavy key, and repaired by itself."""

COUNTER_LOCK_TIMEOUT_MS = 1_000
"""For the counter of one key that another session has locked. Below the limit on a statement, which would otherwise end
the wait, as if the sum had taken too long."""

HEAVY_KEY_TIMEOUT_MS = 10 * 60_000
"""What is summed before a counter is locked may take so long."""

WAITS_SECONDS = 6.0
"""The longest that a run waits in all for keys that another session has locked; the rest is deferred."""

NEW_SESSIONS = 3
"""So often a run goes on in a new session after this process stood still inside a chunk, as a throttled one does."""
