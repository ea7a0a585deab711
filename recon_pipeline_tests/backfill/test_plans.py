"""Looking a chunk's events up in the log stays by request id, whatever Postgres believes of the log."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from recon_pipeline.store.backfill.dry_run import INDEX_STAGED_EVENTS
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.planning import look_up_each_by_index
from recon_pipeline.store.postgres.statements import statement

EVENTS = 20_000
FILL = f"""
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end, created_at
    )
    select 'stripe', 'c' || n % 100, 'remote_commands', 'r' || n, '2025-05-01', '2025-06-01', now() - n * interval '1 s'
    from generate_series(1, {EVENTS}) as n
"""
STAGE = """
    insert into pg_temp.staged_event
    select
        n, gen_random_uuid(), 'stripe', 'c', 'remote_commands', 'r' || n, 1, '2025-05-01', '2025-06-01', now(), '{}',
        true
    from generate_series(1, 10000) as n
"""
IDENTITIES = (
    "gateway_name,request_id",
    "gateway_name,request_id,period_start",
    "gateway_name,request_id,event_timestamp",
)
BELIEFS = {
    "never analyzed": FILL,
    "analyzed while it was empty": f"analyze billing_usage_events; {FILL}",
    "request ids not analyzed": f"alter table billing_usage_events alter request_id set statistics 0; {FILL}; "
    "analyze billing_usage_events",
    "request ids all alike": f"{FILL}; alter table billing_usage_events alter request_id set (n_distinct = 1); "
    "analyze billing_usage_events",
}


@pytest.fixture(params=list(BELIEFS))
def connection(request: pytest.FixtureRequest, prepared_url: str) -> Iterator[Connection]:
    """A log with an index on created_at, as applications have it; settings as where chunks are inserted."""
    with BillingDatabase(prepared_url).connection() as connection:
        with begin(connection):
            connection.execute(text("alter table billing_usage_events set (autovacuum_enabled = false)"))
            connection.execute(text("create index on billing_usage_events (created_at)"))
            for command in BELIEFS[request.param].split(";"):
                connection.execute(text(command))
        with begin(connection):
            connection.execute(statement("create_staged_events"))
            connection.execute(text(STAGE.replace(":", r"\:")))
            look_up_each_by_index(connection)
            yield connection


def test_every_event_of_a_chunk_is_looked_up_by_its_request_id(connection: Connection) -> None:
    assert by_request_id(connection, statement("insert_staged_events").text)
    assert by_request_id(connection, statement("classify_staged_events").text)


def test_so_is_every_event_of_a_source_that_is_only_looked_at(connection: Connection) -> None:
    connection.execute(INDEX_STAGED_EVENTS)
    assert by_request_id(connection, statement("preview_staged_events").text)


def test_so_is_every_event_whose_period_is_asked_for(connection: Connection) -> None:
    texts = "array(select '{}' || n from generate_series(1, 10000) as n)".format
    asked = statement("logged_periods").text
    for bind, values in (("gateway_names", "stripe"), ("customers", "c"), ("usage_types", "u"), ("request_ids", "r")):
        asked = asked.replace(f":{bind}", texts(values))
    asked = asked.replace(":timestamps", "array(select now() from generate_series(1, 10000))")
    assert by_request_id(connection, asked)


def by_request_id(connection: Connection, sql: str) -> bool:
    """Whether each look at the log has gateway and request id as the condition of an index, whatever names an event."""
    return all(is_looked_up(connection, sql, identity) for identity in IDENTITIES)


def is_looked_up(connection: Connection, sql: str, identity: str) -> bool:
    connection.execute(text("select set_config('recon.event_identity', :identity, true)"), {"identity": identity})
    sql = sql.replace(":event_identity", f"cast('{{{identity}}}' as text[])")
    (plan,) = connection.execute(text(f"explain (format json) {sql}")).scalar_one()
    looks = list(looks_at_log(plan["Plan"]))
    assert looks, json.dumps(plan)
    return all("gateway_name" in one and "request_id" in one for one in looks)


def looks_at_log(node: dict[str, Any]) -> Iterator[str]:
    if node.get("Relation Name") == "billing_usage_events" and node["Node Type"] != "ModifyTable":
        yield node.get("Index Cond", node.get("Recheck Cond", ""))
    for inner in node.get("Plans", ()):
        yield from looks_at_log(inner)
