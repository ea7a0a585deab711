"""The recorder at full speed with hot customers beside ticks and repairs of the whole database."""

import pytest

from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.simulation.load import DRIFTED, run_load

pytestmark = pytest.mark.long


def test_no_counter_is_wrong_after_full_speed_beside_ticks_and_repairs_of_everything(billing: Billing) -> None:
    done = run_load(
        billing, rounds=1, seconds=4, without_pause=True, compares=False, least_runs=5, least_repairs=DRIFTED
    )

    assert done.wrong == 0
    assert done.repairs >= DRIFTED, "nothing was repaired, so nothing was tried"
    assert set(done.runs) <= {"clean", "not_clean", "running"}
    assert sum(done.runs.values()) > 4
    assert done.beside[0].calls_per_second > 100


@pytest.mark.parametrize("full", [False, True], ids=["by increments", "from the log"])
def test_every_run_beside_full_speed_ends_clean_where_no_counter_is_wrong(billing: Billing, full: bool) -> None:
    done = run_load(
        billing, rounds=1, seconds=4, full=full, without_pause=True, compares=False, drifted=0, least_runs=5
    )

    assert set(done.runs) == {"clean"}
    assert sum(done.runs.values()) > 4
    assert (done.repairs, done.wrong) == (0, 0)
