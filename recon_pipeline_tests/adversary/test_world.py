"""What tests begin with: a world that is copied is no other than one that was made by runs."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.adversary.world import MODES, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.pipeline import name_of

CUSTOMERS = customers(3)
ONCE_FOR_A_CATALOG = {"missing_for_increments", "note_prepared_catalog"}
"""The preparation of the log is looked at again in another database."""


def statements_of_a_run(world: World) -> list[str]:
    names: list[str] = []

    def note(connection: Any, cursor: Any, sent: str, *_: object) -> None:
        names.append(name_of(sent))

    database = BillingDatabase(world.billing.url, keeps_connection=True)
    event.listen(database.engine, "before_cursor_execute", note)
    assert world.run(database=database).outcome == "clean"
    database.close()
    return names


def besides_preparation(names: list[str]) -> list[str]:
    return [name for name in names if name not in ONCE_FOR_A_CATALOG]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_does_the_same_in_a_world_that_began_settled_as_in_one_that_settled_in(
    worlds: Callable[[str], World], mode: str
) -> None:
    made, copied = worlds(mode), worlds(mode)
    made.fill(CUSTOMERS)
    made.settle_in()
    copied.begin_settled(CUSTOMERS)
    for world in (made, copied):
        world.billing.record(CUSTOMERS[0], 3)

    first, second = statements_of_a_run(made), statements_of_a_run(copied)

    assert besides_preparation(second) == besides_preparation(first)
    assert statements_of_a_run(copied) == statements_of_a_run(made)
    assert copied.wrong() == made.wrong() == []
