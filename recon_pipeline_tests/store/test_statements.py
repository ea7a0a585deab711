"""What the loader promises: a statement says what it needs, has its name on the server, and nothing is left over."""

import ast
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from recon_pipeline.core.errors import StatementFailedError
from recon_pipeline.store.postgres import registry
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.headers import StatementError, parse
from recon_pipeline.store.postgres.registry import inline_statements
from recon_pipeline.store.postgres.statements import (
    STORE,
    Composition,
    combinations,
    declared_binds,
    files,
    header,
    labelled,
    name_of,
    source,
    statement,
)
from recon_pipeline_tests.reconciliation.billing import connected

PACKAGES = (STORE, "recon_pipeline.faces.demo", "recon_pipeline.faces.benchmark")
BIND = re.compile(r"(?<![:\w]):(\w+)(?!:)")
SCRIPTS = {"billing_tables", "grants", "ingest_xid", "policies"}
"""Shown to a person or run as a whole: several statements each, without values."""
CONDITIONS = {"in_extent", "in_extent_following_log", "in_extent_of_scope", "in_months", "in_scope", "is_one_sum"}
"""What a run covers, in any table, and which sums it counts: the same wherever it stands, as a function of schema recon
is."""


def statements(package: str = STORE) -> list[str]:
    return sorted(name for name in files(package) if not header(name, package).is_part)


COMBINATIONS = [(name, choices) for name in statements() for choices in combinations(name)]
IDS = ["-".join((name, *choices.values())) for name, choices in COMBINATIONS]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_hole_has_declared_parts_and_every_declared_part_has_its_hole(package: str) -> None:
    used = {hole for name in inline_statements() for hole in registry.header(name).uses} if package == STORE else set()
    for name in statements(package):
        for choices in combinations(name, package=package):
            assert statement(name, choices, package=package).text.startswith(f"/* recon:{name} */ ")
            composition = Composition(package, choices)
            composition.body(name)
            used |= set(composition.used)
    assert used == set(files(package)), "parts that no statement is made of"


def test_few_statements_are_composed_and_of_few_parts() -> None:
    """Whoever reads a statement has most of it before him; what is said twice is a part.

    Rooms that read or compare with what is outside of the billing database have limits of their own.
    """
    uses = {name: header(name).uses for name in statements()}
    assert max(len(holes) for holes in uses.values()) <= 3
    composed = {name: holes for name, holes in uses.items() if holes.keys() - CONDITIONS}
    rooms = ("archive", "parity", "lake")
    archive, parity, lake = ({name for name in files() if registry.room(name) == room} for room in rooms)
    assert max(len(archive), len(parity), len(lake)) <= 8
    assert len(composed.keys() & parity) <= 2
    assert len(composed.keys() - archive - parity) <= 12
    assert len(files().keys() - archive - parity - lake) <= 120
    one_line = [name for name in statements() if len([line for line in source(name).splitlines() if line.strip()]) == 1]
    assert one_line == [], "stands in its module"


MakePackage = Callable[..., str]


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    """`make_package(name=text)` gives a package with these files, in rooms of their own."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**texts: str) -> str:
        package = f"statements_{uuid4().hex}"
        for name, text in texts.items():
            room = tmp_path / package / f"room_{name}"
            room.mkdir(parents=True)
            (room / f"{name.removeprefix('again_')}.sql").write_text(text)
        (tmp_path / package / "__init__.py").write_text("")
        return package

    return make


@pytest.mark.parametrize(
    ("texts", "given", "said"),
    [
        ({"asked": "select {what}"}, {}, "asked.sql has a hole what that its header does not declare"),
        (
            {"asked": "-- Uses: what = one | other\nselect {what}"},
            {},
            "nothing is given for what; it is one of one, other",
        ),
        ({"asked": "-- Uses: what = one | other\nselect {what}"}, {"what": "third"}, "third does not fill what"),
        ({"asked": "-- Uses: one\nselect {one}"}, {"one": "other"}, "other does not fill one"),
        ({"asked": "select 1"}, {"what": "one"}, "asked.sql is given what=one, and there is no such hole"),
        ({"asked": "-- Uses: one\nselect 1"}, {}, "asked.sql declares one, and there is no such hole"),
        ({"asked": "-- Uses: gone\nselect {gone}"}, {}, "there is no gone.sql"),
        ({"asked": "select {What}"}, {}, "asked.sql has a brace that is no hole: {What}"),
        ({"asked": "-- Uses: one\nselect {one}}"}, {}, "asked.sql has a brace that is no hole: 1}"),
        (
            {"asked": "-- Uses: inner\n{inner}", "inner": "-- Uses: what = *\n{what}"},
            {},
            "does not declare what may fill",
        ),
        (
            {"asked": "-- Uses: inner, what = other\n{inner}", "inner": "-- Uses: what = one\n{what}"},
            {},
            "what is one of one; a statement around it declares other",
        ),
        ({"asked": "-- Uses: one two\nselect {one}"}, {}, "which is not of the form"),
        ({"asked": "-- Uses: one, one\nselect {one}"}, {}, "asked.sql names something twice in Uses"),
        ({"asked": "select 1", "again_asked": "select 2"}, {}, "two statements are called asked"),
    ],
)
def test_a_hole_or_a_part_that_fits_nothing_is_an_error_that_names_it(
    make_package: MakePackage, texts: dict[str, str], given: dict[str, str], said: str
) -> None:
    package = make_package(**texts, **{name: "1" for name in ("one", "other") if name not in texts})
    with pytest.raises(StatementError, match=re.escape(said)):
        statement("asked", package=package, **given)  # pyright: ignore[reportArgumentType]


def test_a_condition_leaves_nothing_to_choose_and_is_the_only_part_of_a_text_in_a_module() -> None:
    for condition in CONDITIONS:
        assert header(condition).is_part
        assert combinations(condition) == ({},)
    used = {hole for name in inline_statements() for hole in registry.header(name).uses}
    assert used <= CONDITIONS


def test_what_a_run_covers_is_written_in_its_conditions_alone() -> None:
    """Where columns need no name of a table."""
    texts = {name: source(name) for name in files()} | {
        ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1])
        for path, call in calls("labelled")
        if path.parent.parent.name == "store" and path.name != "registry.py"
    }
    months, usage = r"period_start >= :start\s+and period_start < :end\b", r"usage_type = :usage_type"
    of_one_usage = re.compile(rf"{usage}\s+and {months}|{months}\s+and gateway_name =")
    of_all_usages = re.compile(r"\(gateway_name, usage_type\)\s+in \(select \* from unnest")
    assert [name for name, text in sorted(texts.items()) if of_one_usage.search(text)] == ["in_months"]
    assert [name for name, text in sorted(texts.items()) if of_all_usages.search(text)] == ["in_scope"]


def test_a_choice_of_the_tables_fills_the_holes_that_have_it_and_is_not_asked_of_others(
    make_package: MakePackage,
) -> None:
    package = make_package(asked="-- Uses: what = one | other\nselect {what}", one="1", other="2", plain="select 3")
    tables = {"what": "other"}
    assert statement("asked", tables, package=package).text == "/* recon:asked */ select 2"
    assert statement("asked", tables, package=package, what="one").text == "/* recon:asked */ select 1"
    assert statement("plain", tables, package=package).text == "/* recon:plain */ select 3"


def test_a_brace_in_a_literal_is_none_of_a_hole(make_package: MakePackage) -> None:
    package = make_package(asked="select '{}', 'it''s {A}' -- it's {B}\n")
    assert "'{}'" in statement("asked", package=package).text


def test_a_statement_is_composed_once() -> None:
    tables = {"countable_events": "countable_events"}
    assert statement("find_suspects", tables) is statement("find_suspects", dict(tables))


def test_the_first_sentence_of_a_header_is_its_summary() -> None:
    parsed = parse(
        "x", "-- Takes one, e.g. the\n-- first. And more.\n-- Index: none.\n-- Binds: a text, b text[]\nselect"
    )
    assert parsed.summary == "Takes one, e.g. the first."
    assert parsed.binds == {"a": "text", "b": "text[]"}


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """The calls of a function, or of a method, of that name in the product."""
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == name:
                yield path, node


def _modules() -> list[Path]:
    return sorted(Path(str(resources.files("recon_pipeline"))).rglob("*.py"))


def test_no_name_of_a_statement_is_put_together() -> None:
    """Whoever looks for a file's name finds where it is sent."""
    named = [*calls("statement"), *calls("source"), *calls("as_written"), *calls("_execute"), *calls("_exactly")]
    assert len(named) > 80
    put_together = (ast.JoinedStr, ast.BinOp)
    assert [str(path) for path, call in named if call.args and isinstance(call.args[0], put_together)] == []


def test_every_statement_is_named_by_a_module_and_every_name_in_a_call_is_a_statement() -> None:
    texts = {
        node.value
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    there = {name for package in PACKAGES for name in statements(package)}
    assert [name for name in sorted(there) if name not in texts] == []
    asked = {
        call.args[0].value for _, call in calls("statement") if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert asked <= there


@pytest.mark.parametrize(("name", "choices"), COMBINATIONS, ids=IDS)
def test_the_values_that_a_statement_declares_are_those_that_the_server_infers(
    session: psycopg.Connection, name: str, choices: dict[str, str]
) -> None:
    assert declared_binds(name, choices) == (inferred_binds(session, name, choices) if name not in SCRIPTS else {})


@pytest.mark.parametrize("name", sorted(files()))
def test_a_file_declares_its_own_values_and_no_others(name: str) -> None:
    assert set(header(name).binds) == set(BIND.findall(source(name)))


@pytest.mark.parametrize("name", sorted(inline_statements()))
def test_the_values_that_a_statement_in_a_module_declares_are_those_that_the_server_infers(
    session: psycopg.Connection, name: str
) -> None:
    assert registry.declared_binds(name, {}) == inferred_binds(session, name, {})


def test_every_text_in_a_module_has_a_name_and_is_found_by_it() -> None:
    store = Path(str(resources.files(STORE)))
    named = [call for path, call in calls("labelled") if store in path.parents and path.name != "registry.py"]
    assert len(named) == len(inline_statements()) > 50
    texts = {ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1]) for call in named}
    assert {name: labelled(name, text).text for name, text in texts.items()} == {
        name: inline.clause.text for name, inline in inline_statements().items()
    }
    assert {name: set(BIND.findall(text)) for name, text in texts.items()} == {
        name: set(registry.header(name).binds) for name in texts
    }, "declares its own values and no others"
    assert {name: set(re.findall(r"\{(\w+)\}", text)) for name, text in texts.items()} == {
        name: set(registry.header(name).uses) for name in texts
    }, "declares its conditions and no others"
    assert not set(inline_statements()) & set(files())
    unnamed = [(path.name, call.lineno) for path, call in calls("text") if path.name not in ("statements.py", "sql.py")]
    assert unnamed == [("scratch.py", 76)], "takes any text"


def inferred_binds(session: psycopg.Connection, name: str, choices: dict[str, str]) -> dict[str, str]:
    """The type of each value as the server infers it where nobody says; nothing where there is no value."""
    text = registry.statement(name, choices).text
    names = list(dict.fromkeys(BIND.findall(text)))
    if not names:
        return {}
    for before in registry.header(name).after:
        session.execute(BIND.sub("''", registry.statement(before, {}).text).encode())
    prepared = BIND.sub(lambda bind: f"${names.index(bind[1]) + 1}", text)
    session.execute(f"prepare asked as {prepared}".encode())
    found = session.execute(
        "select parameter_types::text[] from pg_prepared_statements where name = 'asked'"
    ).fetchone()
    session.execute("deallocate asked")
    assert found is not None
    types = [one.replace("timestamp with time zone", "timestamptz") for one in found[0]]
    return dict(sorted(zip(names, types, strict=True)))


def test_pg_stat_activity_shows_the_name_of_what_a_session_runs(prepared_url: str) -> None:
    with BillingDatabase(prepared_url).transaction() as connection, connected(prepared_url) as other:
        connection.execute(statement("run_totals"))
        shown = other.execute(
            "select query from pg_stat_activity"
            " where datname = current_database() and application_name = 'recon_pipeline'"
        ).fetchall()
    assert [name_of(query) for (query,) in shown] == ["run_totals"]


def test_an_error_names_the_statement_that_was_refused_and_the_command_that_prints_it(prepared_url: str) -> None:
    with (
        pytest.raises(StatementFailedError) as refused,
        BillingDatabase(prepared_url).transaction() as connection,
    ):
        connection.execute(statement("drifted_units"), {"run_id": b"\x01"})
    assert "refused the statement drifted_units: " in refused.value.what
    assert "recon sql drifted_units" in refused.value.fix


def test_a_missing_table_is_reported_with_the_statement_that_needs_it(empty_database_url: str) -> None:
    with (
        pytest.raises(StatementFailedError, match=r"recon\.reconciliation_run.*\(statement run_totals\)"),
        BillingDatabase(empty_database_url).transaction(any_schema_version=True) as connection,
    ):
        connection.execute(statement("run_totals"))
