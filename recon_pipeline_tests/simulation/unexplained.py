"""Why a run beside a saboteur is not clean: counters made wrong after its comparison, and counters that were locked.

Invariant: what the saboteur does is noted in the transaction that does it, with its id; so what a comparison can have
seen of it is known.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import text

from recon_pipeline.store.counters import verify
from recon_pipeline.store.counters.verify import Verification
from recon_pipeline.store.postgres.database import BillingDatabase

CREATE_SABOTAGE = "create table sabotage (gateway_customer_id text, xid xid8 default pg_current_xact_id())"
SABOTAGE = """
    with wrong as (
        update billing_usage_counters set usage_count = usage_count + 3
        where gateway_customer_id = %s
        returning gateway_customer_id
    )
    insert into sabotage select gateway_customer_id from wrong
"""
_SABOTAGED_SINCE = text("select distinct gateway_customer_id from sabotage where xid >= cast(:below as xid8)")


@contextmanager
def noting_verifications() -> Iterator[list[Verification]]:
    """What the last check of each run in this process has found."""
    noted: list[Verification] = []
    original = verify.verify

    def noting(*arguments: Any, **named: Any) -> Verification:
        noted.append(original(*arguments, **named))
        return noted[-1]

    with patch.object(verify, "verify", noting):
        yield noted


def unexplained(database: BillingDatabase, answer: Verification) -> list[tuple[str, str]]:
    """Customers whose counters differ although nobody made them wrong after the comparison and none was locked.

    Returns:
        Each with what the run did with its key.
    """
    with database.transaction() as connection:
        return [
            (key.gateway_customer_id, key.outcome)
            for verified in answer.verified
            for since in [{*connection.execute(_SABOTAGED_SINCE, {"below": str(verified.counters_below)}).scalars()}]
            for key in verified.mismatches
            if key.outcome != "deferred" and key.gateway_customer_id not in since
        ]
