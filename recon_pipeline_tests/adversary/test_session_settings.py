"""What a database or a role sets for its sessions changes neither what a run does nor what it costs."""

from typing import Any

import pytest
from sqlalchemy import Connection, event

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.adversary.world import World
from recon_pipeline_tests.reconciliation.billing import customers


@pytest.mark.parametrize(
    ("setting", "of_the_server", "ours"), [("jit", "on", "off"), ("transaction_timeout", "10min", "0")]
)
def test_every_statement_that_reads_a_table_runs_without_jit_and_without_a_limit_for_its_transaction(
    world: World, setting: str, of_the_server: str, ours: str
) -> None:
    """A role's `transaction_timeout` would end a long comparison, again at every tick."""
    if not world.billing.value("select count(*) from pg_settings where name = %s", setting):
        pytest.skip("this server has no such setting")
    name = world.billing.value("select current_database()")
    world.billing.query(f'alter database "{name}" set {setting} = "{of_the_server}"')
    world.fill(customers(5))
    world.billing.set_counter("customer_0000", 5)
    database = BillingDatabase(world.billing.url, keeps_connection=True)
    misled: list[str] = []

    def look(connection: Connection, cursor: Any, text: str, *_: object) -> None:
        asking = connection.connection.cursor()
        asking.execute(f"show {setting}")
        is_not_ours = asking.fetchone() != (ours,)
        if is_not_ours and any(part in text for part in ("billing_", "recon.", "pg_class", "pg_attribute", "from ")):
            misled.append(text[:80])

    event.listen(database.engine, "before_cursor_execute", look)
    try:
        world.run(database=database)
    finally:
        database.close()

    assert misled == []


@pytest.mark.parametrize(
    "setting",
    [
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "extra_float_digits = -15",
        "bytea_output = escape",
        "intervalstyle = sql_standard",
        "datestyle = 'German, DMY'",
        "timezone = 'Pacific/Chatham'",
        "default_transaction_isolation = serializable",
        "xmloption = document",
    ],
)
def test_a_run_does_the_same_whatever_a_role_sets_for_its_sessions(incremental: World, setting: str) -> None:
    world = incremental
    name = world.billing.value("select current_database()")
    world.fill(customers(5))
    world.settle_in()
    world.billing.query(f'alter database "{name}" set {setting}')
    world.billing.set_counter("customer_0000", 5)

    assert (world.run().outcome, world.repaired()) == ("clean", [("customer_0000", 5, 12)])
    assert world.run().outcome == "clean"
