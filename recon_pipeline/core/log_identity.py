"""What differs between two identities of an event log, in words. Their text is that of `log_identity.sql`."""

import re

_DIFFERENCES = {
    "server": "the database is on another server than before (a restore, a move, or another DATABASE_URL)",
    "database": "it is another database of the server (a restore, or another DATABASE_URL)",
    "events": "billing_usage_events is another table (restored, created again, or found by another search_path)",
    "partitions": "a partition of billing_usage_events was attached, detached, created or dropped",
    "ingest_xid": "the column ingest_xid of billing_usage_events, or its default, was created again",
    "triggers": "a trigger of recon on billing_usage_events was created again or switched off for a while",
    "counters": "billing_usage_counters is another table (restored, created again, or found by another search_path)",
}
"""By the parts of an identity; the first that differs says why, as the later ones differ with it."""

_PARTS = re.compile(r" ?".join(rf"{part}(?: (?P<{part}>[^ ]+))?" for part in _DIFFERENCES))


def difference(known: str, found: str) -> str:
    """Why this log is not the one that was known, as a clause.

    Args:
        known: The identity of the log that the stored sums are of.
        found: The identity of the log as it is, another one.
    """
    before, now = (_PARTS.match(identity) for identity in (known, found))
    if before is not None and now is not None:
        for part, words in _DIFFERENCES.items():
            if before[part] != now[part]:
                return words
    return "billing_usage_events is another log than before"
