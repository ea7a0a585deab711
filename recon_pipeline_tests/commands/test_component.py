"""The component, by the tool that Dagster's users have, in a project that has another team's assets and job already."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster.components.testing.utils import create_defs_folder_sandbox
from dagster_dg_cli.cli import create_dg_cli

import recon_pipeline
from recon_pipeline import ReconciledUsage
from recon_pipeline.assets.months import range_tags
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.commands.conftest import MakeBilling

MAY = BillingMonth(2025, 5)
NO_CONTEXT: Any = None
PYPROJECT = """
[project]
name = "acme"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "acme"
code_location_name = "acme"
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
OF_ANOTHER_TEAM = """
import dagster as dg


@dg.asset
def orders() -> None: ...


@dg.job
def reconcile() -> None: ...


others = dg.Definitions(assets=[orders], jobs=[reconcile], executor=dg.multiprocess_executor)
"""
PAGE = (Path(__file__).parents[2] / "docs" / "existing-dagster.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project as `create-dagster project` makes it, with another team's definitions."""
    files = {
        "pyproject.toml": PYPROJECT,
        "acme/__init__.py": "",
        "acme/definitions.py": DEFINITIONS,
        "acme/defs/__init__.py": "",
        "acme/defs/orders.py": OF_ANOTHER_TEAM,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[module]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def dg_says(*arguments: str) -> str:
    result = CliRunner().invoke(create_dg_cli(), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_dg_lists_the_component_scaffolds_it_checks_it_and_shows_its_definitions_beside_those_of_another_team(
    project: Path, make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, dagster_instance: dg.DagsterInstance
) -> None:
    commands = [line.split() for line in blocks("sh")[0].splitlines()]
    assert commands[0] == ["dg", "list", "components"]
    assert '"recon_pipeline.ReconciledUsage"' in dg_says("list", "components", "--json")
    dg_says(*commands[1][1:])
    written = project / "acme/defs/billing/defs.yaml"
    assert "type: recon_pipeline.ReconciledUsage" in written.read_text()
    (of_the_page,) = (block for block in blocks("yaml") if block.startswith("type: "))
    written.write_text(of_the_page)
    dg_says(*commands[2][1:])

    shown = dg_says(*commands[3][1:], "--json")
    theirs, ours = ("orders", "reconcile"), ("eu/repaired_counters", "eu_reconcile", "eu_reconcile_every_5_minutes")
    assert [name for name in (*theirs, *ours) if f'"{name}"' not in shown] == []

    billing = make_billing()
    monkeypatch.setenv("EU_DATABASE_URL", billing.url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    billing.add_event("a", 7)
    from acme.definitions import defs  # pyright: ignore[reportMissingImports] - it was made just now

    job = defs().resolve_job_def("eu_reconcile")
    assert job.execute_in_process(instance=dagster_instance, tags=range_tags(MAY, MAY)).success
    assert billing.counter("a") == 7


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_page_gives_definitions(code: str) -> None:
    made: dict[str, Any] = {}
    exec(code, made)  # noqa: S102 - of our own page
    job = made["defs"].resolve_job_def("eu_reconcile")
    assert ("dagster-k8s/config" in job.tags) == ("run_tags" in code)


def test_the_workspace_of_the_page_is_one_that_dagster_reads(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("load_from"))
    (tmp_path / "workspace.yaml").write_text(text)
    origins = WorkspaceFileTarget([str(tmp_path / "workspace.yaml")]).create_origins()
    assert [origin.location_name for origin in origins] == ["billing_eu", "billing_us"]


def loaded(attributes: Mapping[str, Any]) -> dg.Definitions:
    body = {"type": "recon_pipeline.ReconciledUsage", "attributes": attributes}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=ReconciledUsage, defs_yaml_contents=body)
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, definitions):
            return definitions


def test_without_attributes_all_is_as_the_environment_says() -> None:
    assert loaded({}).resolve_job_def("reconcile")


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"identity": ["request"]}, "RECON_EVENT_IDENTITY"),
        ({"budgets": {"max_repairs": -1}}, "RECON_MAX_REPAIRS is '-1'"),
        ({"usages": [{"usage_type": "a", "limits": {"free": -1, "paid": 1}}]}, "RECON_QUOTAS gives 'a' the free limit"),
        (
            {
                "usages": [
                    {"gateway": gateway, "usage_type": "sms", "limits": {"free": free, "paid": 9}}
                    for gateway, free in (("stripe", 1), ("paddle", 2))
                ]
            },
            "usages has two limits for the usage type sms.",
        ),
    ],
)
def test_an_attribute_that_cannot_be_used_is_refused_when_definitions_load(
    attributes: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        ReconciledUsage.resolve_from_dict(attributes).build_defs(NO_CONTEXT)


def test_what_the_package_offers_to_others_is_there_and_nothing_else() -> None:
    for name in recon_pipeline.__all__:
        assert name in dir(recon_pipeline)
        assert getattr(recon_pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'defs'"):
        _ = recon_pipeline.defs  # pyright: ignore[reportAttributeAccessIssue]
