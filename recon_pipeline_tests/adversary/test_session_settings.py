"""A tick costs what changed: its statements run without JIT, whose compilation costs more than all they do."""

from typing import Any

from sqlalchemy import Connection, event

from recon_pipeline.store.database import BillingDatabase
from recon_pipeline_tests.adversary.world import World
from recon_pipeline_tests.reconciliation.billing import customers


def test_every_statement_that_reads_a_table_runs_without_jit_whatever_the_server_says(world: World) -> None:
    name = world.billing.value("select current_database()")
    world.billing.query(f'alter database "{name}" set jit = on')
    world.fill(customers(5))
    world.billing.set_counter("customer_0000", 5)
    database = BillingDatabase(world.billing.url, keeps_connection=True)
    compiled: list[str] = []

    def look(connection: Connection, cursor: Any, text: str, *_: object) -> None:
        asking = connection.connection.cursor()
        asking.execute("show jit")
        is_on = asking.fetchone() == ("on",)
        if is_on and any(part in text for part in ("billing_", "recon.", "pg_class", "pg_attribute", "from ")):
            compiled.append(text[:80])

    event.listen(database.engine, "before_cursor_execute", look)
    try:
        world.run(database=database)
    finally:
        database.close()

    assert compiled == []
