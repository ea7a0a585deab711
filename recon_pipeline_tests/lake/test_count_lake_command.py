"""`recon count-lake`: what it prints, and how its errors say what to do."""

import sys
from pathlib import Path

import pytest

from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.reconciliation.billing import Billing

MAY = ("--period", "2025-05")
NOTHING = "Nothing was counted. No counter was changed.\n"


@pytest.fixture
def filled(lake: Path) -> Path:
    """In May `a` used 10 and `b` used 3; one event is there twice, one has no quantity."""
    events = [Event("req-1", 4, "a"), Event("req-2", 6, "a"), Event("req-3", 3, "b"), Event("req-4", None, "b")]
    return write(lake / "month=2025-05", [*events, events[0]])


def test_it_says_what_was_counted_and_what_follows_from_it(job_billing: Billing, filled: Path) -> None:
    job_billing.add_counter("a", 3)
    done = recon("count-lake", *MAY)
    assert (done.exit_code, done.err) == (0, "")
    counted, next_step = done.out.splitlines()
    assert counted.startswith(
        "Counted 2025-05 of stripe:remote_commands: 2 keys, 3 events, 13 units; 1 duplicates and 1 invalid events are "
        "not in it (1 files, DuckDB 1.5."
    )
    assert next_step == "No counter was changed: the next run compares with it, or recon reconcile --period."
    (again,) = recon("count-lake", *MAY).out.splitlines()
    assert again.startswith("Not changed since it was counted: 2025-05 of stripe:remote_commands: 2 keys")
    (one,) = recon("count-lake", *MAY, "--json").json["months"]
    assert (one["partition"], one["is_new"], one["count"]["usage_count"]) == ("2025-05", False, "13")
    assert len(one["count"]["source"]["files"]) == 1

    explained = recon("explain", "--customer", "a", *MAY).out
    assert "3: 7 below the sum in the lake" in explained
    assert "counted in the lake" in explained

    taken = recon("count-lake", *MAY, "--withdraw", "--reason", "TICKET-10: the log is back")
    assert taken.out == (
        "Withdrawn: the count of 2025-05 of stripe:remote_commands.\n"
        "Its counters follow the log from the next run on.\n"
    )


def test_without_its_variables_it_names_the_one_that_is_missing_or_wrong(
    job_billing: Billing, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, str] = {}
    for name, value in (
        ("RECON_LAKE_MEMORY_MB", "lots"),
        ("RECON_LAKE_MAPPING", str(tmp_path / "none.yaml")),
        ("RECON_LAKE_COMPLETE_UNTIL", "2999-01"),
        ("RECON_LAKE_COMPLETE_UNTIL", "May"),
        ("RECON_LAKE_COMPLETE_UNTIL", ""),
        ("RECON_LAKE", str(tmp_path / "nowhere")),
        ("RECON_LAKE", "nothing://bucket/usage"),
        ("RECON_LAKE", ""),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            done = recon("count-lake", *MAY)
        assert done.exit_code == 2
        assert "What to do: " in done.err
        said[f"{name}={value.rpartition('/')[2]}"] = done.err.partition("\n")[0]
    assert said["RECON_LAKE_MEMORY_MB=lots"] == (
        "RECON_LAKE_MEMORY_MB is 'lots', which is not a whole number from 256 to 1,048,576."
    )
    assert said["RECON_LAKE_COMPLETE_UNTIL=2999-01"].startswith("RECON_LAKE_COMPLETE_UNTIL is 2999-01, but ")
    assert said["RECON_LAKE_COMPLETE_UNTIL="] == (
        "RECON_LAKE_COMPLETE_UNTIL is not set: nobody has said which months the lake has as a whole."
    )
    assert said["RECON_LAKE="] == "RECON_LAKE is not set."
    assert "none.yaml, which cannot be read" in said["RECON_LAKE_MAPPING=none.yaml"]
    assert said["RECON_LAKE=nowhere"].endswith("nowhere does not exist.")
    assert "cannot be opened" in said["RECON_LAKE=usage"]


def test_wrong_usage_is_refused_before_anything_is_read(job_billing: Billing) -> None:
    for wrong in (("--withdraw",), (*MAY, "--reason", "why"), ("--withdraw", "--reason", "why"), ("--period", "may")):
        assert recon("count-lake", *wrong).exit_code == 2


def test_an_extra_that_is_not_installed_is_named(
    job_billing: Billing, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ibis", "duckdb")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ibis", None)
    done = recon("count-lake", *MAY)
    assert done.exit_code == 2
    assert done.err == (
        "DuckDB is not installed: import of ibis halted; None in sys.modules.\n"
        f"{NOTHING}What to do: Install it where this runs: uv pip install 'recon-pipeline[lake]'.\n"
    )
