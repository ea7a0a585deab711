"""Whatever writers, saboteurs, overlapping runs and faults do, in whatever order: what must be true is true."""

import pytest

from recon_pipeline_tests.simulation.plan import as_words, draw, from_words
from recon_pipeline_tests.simulation.shrink import everything
from recon_pipeline_tests.simulation.simulation import from_schedule, from_seed, play
from recon_pipeline_tests.support.postgres import PostgresServer

pytestmark = pytest.mark.long

SEEDS = (*range(1_000, 1_009), *range(1_010, 1_014), 2_004, 2_042, 50_052)
"""A few that differ much; `python -m recon_pipeline_tests.simulation` plays others."""


@pytest.mark.parametrize("seed", SEEDS)
def test_no_increment_is_lost_and_nothing_else_goes_wrong(quiet_server: PostgresServer, seed: int) -> None:
    played = play(draw(seed), from_seed(seed), quiet_server)

    assert played.violation is None, f"python -m recon_pipeline_tests.simulation --replay {seed}"


def test_the_same_seed_does_the_same_again_and_so_does_its_schedule(quiet_server: PostgresServer) -> None:
    # Not where a migration lets several writers go at once: they race for the same rows.
    plan = next(plan for plan in map(draw, SEEDS) if not plan.ops.get("migrator"))
    first = play(plan, from_seed(plan.seed), quiet_server)
    words = as_words(everything(plan), first.decided)
    kept, decided = from_words(words, plan)

    again = play(plan, from_seed(plan.seed), quiet_server)
    replayed = play(plan.only(kept), from_schedule(decided), quiet_server)

    assert first == again == replayed
