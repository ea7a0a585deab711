"""What README and docs say is so: commands run as they stand there, and nothing that exists is left out."""

import inspect
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import psycopg
import pytest
from dagster import RepositoryDefinition

from recon_pipeline import parity_settings, settings
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.backfill.mapping import parse_mapping, parse_mapping_text
from recon_pipeline.definitions import build_definitions
from recon_pipeline.faces.cli import main
from recon_pipeline.faces.serve import access
from recon_pipeline.lake import engine_settings
from recon_pipeline.lake import settings as lake_settings
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import source
from recon_pipeline.store.records import migrate

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "docs").glob("*.md")}
PAGES = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")]


def shell_blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_the_readme_starts_with_two_commands() -> None:
    assert shell_blocks(README)[0].splitlines() == ["pip install uv && uv run recon demo", "uv run pytest"]


@pytest.mark.skipif(shutil.which("uv") is None, reason="the README's commands are uv's")
def test_the_commands_for_a_database_of_ones_own_run_as_they_stand_in_the_readme(
    billing_database_url: str, dagster_database_url: str
) -> None:
    lines = shell_blocks(README)[1].splitlines()
    exports = [line for line in lines if line.startswith("export ")]
    commands = [line.partition("#")[0].strip() for line in lines if line.startswith("uv run")]
    assert commands[-1] == "uv run recon dev"  # test_dev.py runs that one
    assert [line.split("=")[0] for line in exports] == ["export DATABASE_URL", "export DAGSTER_PG_URL"]

    environment = {
        **os.environ,
        "DATABASE_URL": billing_database_url,
        "DAGSTER_PG_URL": dagster_database_url,
        "UV_NO_SYNC": "1",
    }
    said = {
        command: subprocess.run(
            command.split(), cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )
        for command in commands[:-1]
    }

    assert [result.returncode for result in said.values()] == [0, 0, 0], said
    doctor = " ".join(said["uv run recon doctor"].stdout.split())
    assert "Everything a run relies on is there." in doctor
    # Nothing runs the schedule yet: that is what `recon dev`, the last line, is for.
    assert "no Dagster daemon was started here yet, so nothing runs it → recon dev starts one" in doctor


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"| `recon {name}` |" in README


def test_every_variable_that_is_read_is_in_the_readme_with_its_default() -> None:
    read = set(
        re.findall(
            r'"(RECON_[A-Z_]+|CRON_SECRET[A-Z_]*|DATABASE_URL|STRIPE_API_KEY|SPARK_REMOTE)"',
            "".join(map(inspect.getsource, (settings, parity_settings, lake_settings, engine_settings, access))),
        )
    )
    assert read == {name for name in re.findall(r"^\| `([A-Z_]+)` \|", README, flags=re.MULTILINE)} - {"DAGSTER_PG_URL"}
    for default in (settings.DEFAULT_SCOPE, settings.DEFAULT_START_PERIOD, settings.DEFAULT_QUOTAS):
        assert f"`{default}`" in README


def all_definitions() -> RepositoryDefinition:
    """Also what is only there where somebody asks for it."""
    return build_definitions(database=ReconciledDatabase(stripe_parity="observe")).get_repository_def()


def test_every_asset_check_and_schedule_is_in_the_readme() -> None:
    repository = all_definitions()
    names = [key.name for key in repository.asset_graph.asset_check_keys]
    names += [schedule.name for schedule in repository.schedule_defs]
    assert [name for name in names if f"`{name}`" not in README and name != "housekeeping_every_night"] == []


def test_the_runbook_says_what_to_do_about_every_check() -> None:
    names = {key.name for key in all_definitions().asset_graph.asset_check_keys}
    assert {name for name in names if f"`{name}`" not in DOCS["runbook.md"]} == set()


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    targets = [link.partition("#")[0] for link in links if not link.startswith("http")]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_links_to_headings_of_pages_name_headings_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]*\.md|)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [(name, heading) for name, heading in links if heading not in headings(page.parent / name, page)] == []


def headings(target: Path, page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = (page if target.is_dir() else target).read_text(encoding="utf-8")
    found = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:recon_pipeline|recon_pipeline_tests|docs|\.ci)/[\w./]*)`", text)
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_the_page_on_architecture_names_every_table_of_schema_recon(billing_database_url: str) -> None:
    with BillingDatabase(billing_database_url).connection(any_schema_version=True) as connection:
        migrate.upgrade(connection)
    with psycopg.connect(billing_database_url) as session:
        rows = session.execute("select tablename from pg_tables where schemaname = 'recon'").fetchall()
    named = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", DOCS["architecture.md"], flags=re.MULTILINE)
    assert {name for (name,) in rows} == set(re.findall(r"\w+", " ".join(named)))


def test_the_words_of_the_glossary_are_in_the_order_of_the_alphabet() -> None:
    words = [word.lower() for word in re.findall(r"^\*\*(.+?)\*\*", DOCS["glossary.md"], flags=re.MULTILINE)]
    assert words
    assert words == sorted(words)


def test_the_page_on_an_existing_dagster_shows_what_the_wheel_asks_of_its_neighbours() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = DOCS["existing-dagster.md"].partition("```text\n")[2].partition("```")[0]
    assert shown.split() == project["dependencies"]


def test_the_page_on_privileges_grants_what_init_prints() -> None:
    grants = re.findall(r"^ *((?:create|grant) .*;)$", source("grants") + source("policies"), flags=re.MULTILINE)
    assert grants
    assert [grant for grant in grants if grant not in DOCS["privileges.md"]] == []


def test_the_page_on_privileges_shows_what_init_changes_in_the_log() -> None:
    shown = " ".join(DOCS["privileges.md"].split())
    statements = [" ".join(one.split()) for one in source("ingest_xid").split(";")]
    assert [one for one in statements if one and "lock_timeout" not in one and f"{one};" not in shown] == []


def test_every_test_file_that_the_argument_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", DOCS["correctness.md"]))
    there = {path.name for path in (PROJECT / "recon_pipeline_tests").rglob("test_*.py")}
    assert named
    assert named <= there


def test_the_mappings_of_the_page_on_replay_are_valid() -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", DOCS["replay.md"], flags=re.DOTALL | re.MULTILINE)
    assert len(shown) == 3
    for text in shown:
        assert parse_mapping(parse_mapping_text(text, name="replay.md"))
