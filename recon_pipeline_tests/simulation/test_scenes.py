"""What any production database does on an ordinary day harms no counter and raises no alarm."""

import pytest

from recon_pipeline_tests.simulation.scenes import SCENES
from recon_pipeline_tests.simulation.simulation import Script, play
from recon_pipeline_tests.support.postgres import PostgresServer

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", SCENES)
def test_no_counter_is_harmed_and_no_alarm_raised_when(quiet_server: PostgresServer, name: str) -> None:
    script = Script(list(SCENES[name].script))

    assert play(SCENES[name].plan, script.choose, quiet_server, report=script.report).violation is None
