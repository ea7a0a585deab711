"""Why the log is another one, said in words and without numbers of the catalog."""

import pytest

from recon_pipeline.core.log_identity import difference

KNOWN = "server 1 database 2 events 3 partitions 4,5 ingest_xid ab triggers cd counters 6"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (KNOWN.replace("server 1 database 2", "server 9 database 7"), "the database is on another server than before"),
        (KNOWN.replace("database 2", "database 9"), "it is another database of the server"),
        (KNOWN.replace("events 3", "events 9"), "billing_usage_events is another table"),
        (KNOWN.replace("4,5", "4"), "a partition of billing_usage_events was attached, detached, created or dropped"),
        (KNOWN.replace(" 4,5", ""), "a partition of billing_usage_events was attached, detached, created or dropped"),
        (KNOWN.replace("xid ab", "xid zz"), "the column ingest_xid of billing_usage_events, or its default,"),
        (KNOWN.replace(" ab", ""), "the column ingest_xid of billing_usage_events, or its default,"),
        (KNOWN.replace("cd", "zz"), "a trigger of recon on billing_usage_events"),
        (KNOWN.replace("counters 6", "counters 9"), "billing_usage_counters is another table"),
        ("of an older release", "billing_usage_events is another log than before"),
    ],
)
def test_what_differs_first_is_said(found: str, said: str) -> None:
    assert difference(KNOWN, found).startswith(said)
    assert difference(found, KNOWN).startswith(said)
