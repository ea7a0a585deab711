"""Sessions of tests keep some plans: those of statements that read neither events nor counters."""

import re

from sqlalchemy import text

from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import new_run
from recon_pipeline_tests.support.plans import ASKED_AGAIN

_READS_THE_APPLICATION = re.compile(r"(from|join|into|update|only|table)\s+billing_", re.IGNORECASE)


def test_a_session_keeps_plans_of_the_catalog_and_of_runs_and_none_of_events_or_counters(billing: Billing) -> None:
    billing.record("customer", 5)
    billing.set_counter("customer", 3)
    run = new_run(billing.url)
    run.compare()
    run.repair()
    run.verify()

    with run.database.transaction() as connection:
        kept = connection.execute(text("select statement from pg_prepared_statements")).scalars().all()
    names = {match[1] for statement in kept if (match := re.match(r"/\* recon:(\w+) \*/", statement))}
    assert {"catalog_version"} <= names <= set(ASKED_AGAIN)
    assert len(names) == len(kept)
    assert not [statement for statement in kept if _READS_THE_APPLICATION.search(statement)]
