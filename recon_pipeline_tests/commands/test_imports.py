"""What a command loads: Dagster takes four seconds and SQLAlchemy one, which nobody waits for without need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import recon_pipeline.faces.cli
from recon_pipeline_tests.reconciliation.billing import Billing

SLOW = ("dagster", "sqlalchemy", "psycopg", "pandas", "pyarrow", "apprise", "fastapi")
WITHOUT_DAGSTER = (
    "alerts",
    "archives",
    "batches",
    "billing",
    "dagster_home",
    "dev",
    "explain",
    "explain_report",
    "explained",
    "holds",
    "init",
    "initialised",
    "parity",
    "parity_probe",
    "pause",
    "retention",
    "sql",
    "sql_printed",
    "status",
    # These load Dagster once what was asked for is known to be possible.
    "backfill",
    "backfilled",
    "reconcile",
    "reconciled",
)
SHOW = "; import sys; print(*sorted(sys.modules), file=sys.stderr)"
RUN = f"""
import sys
from recon_pipeline.faces.cli import main
try:
    main()
finally:
    {SHOW.removeprefix("; ")}
"""


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a process has loaded at its end."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
        timeout=120,
    )
    assert "sys" in ended.stderr.split(), ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return set(ended.stderr.split())


def test_help_and_wrong_usage_load_nothing_that_takes_long() -> None:
    modules = loaded(f"import recon_pipeline.faces.cli{SHOW}")
    assert modules.isdisjoint(SLOW), modules & set(SLOW)
    for command in Path(recon_pipeline.faces.cli.__file__).parent.glob("*.py"):
        assert command.stem == "__init__" or f"recon_pipeline.faces.cli.{command.stem}" in modules


def test_what_needs_no_dagster_loads_none() -> None:
    imports = "".join(
        f"import recon_pipeline.faces.{name}\nassert 'dagster' not in sys.modules, '{name}'\n"
        for name in WITHOUT_DAGSTER
    )
    assert "dagster" not in loaded(f"import sys\n{imports}{SHOW.removeprefix('; ')}")


def test_what_reads_archives_loads_no_dagster() -> None:
    imports = "import recon_pipeline.assets.archived_explanation, recon_pipeline.assets.archived_corrections"
    assert "dagster" not in loaded(imports + SHOW)


def test_the_definitions_load_nothing_that_few_runs_need() -> None:
    """Each of the 288 runs of a day is a process of its own, which loads them."""
    modules = loaded(f"import recon_pipeline.definitions{SHOW}")
    assert modules.isdisjoint(("pandas", "pyarrow", "fsspec", "apprise", "matplotlib"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--json"),
        ("explain", "--customer", "a"),
        ("sql", "compare_counters", "--explain"),
        ("backfills",),
        ("init",),
        ("pause", "--reason", "INC-1"),
        ("resume",),
        ("hold", "--customer", "a", "--reason", "INC-1", "--until", "1h"),
        ("release", "--customer", "a"),
        ("retention", "--before", "2025-02", "--reason", "INC-1"),
        ("reconcile", "--period", "2999-01"),
        ("backfill-events", "audit.csv", "--period", "2999-01"),
    ],
)
def test_a_command_that_needs_no_dagster_ends_without_it(billing: Billing, arguments: tuple[str, ...]) -> None:
    billing.add_counter("a", 1)
    assert "dagster" not in loaded(RUN, *arguments)
