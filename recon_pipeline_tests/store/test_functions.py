"""Rules that several statements apply are functions of schema recon, which Postgres puts into the statements."""

import re

import pytest
from sqlalchemy import text

from recon_pipeline.faces import sql as face
from recon_pipeline.faces.sql_values import SqlOptions
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.postgres.registry import combinations, header, names, statement
from recon_pipeline_tests.reconciliation.billing import connected

FUNCTIONS = ("are_one_event", "billing_month", "fits_bigint", "fits_index", "is_settled")
CALL = re.compile(rf"\brecon\.({'|'.join(FUNCTIONS)})\(")
CALLING = [
    (name, choices)
    for name in names()
    if face.has_plan(name)
    for choices in combinations(name)
    if CALL.search(statement(name, choices).text)
]


def test_each_function_stands_for_a_rule_of_several_statements() -> None:
    callers = {function: set[str]() for function in FUNCTIONS}
    for name in names():
        for choices in combinations(name):
            for function in CALL.findall(statement(name, choices).text):
                callers[function].add(name)
    assert min(len(names) for names in callers.values()) > 2
    assert sum(len(names) for names in callers.values()) > 40


def test_no_query_plan_calls_them(prepared_url: str) -> None:
    """A call for each row takes many times as long as the expression, and hides it from indexes."""
    called: dict[str, list[str]] = {}
    with BillingDatabase(prepared_url).connection() as connection:
        with begin(connection):
            kept = connection.execute(text("explain (verbose) select recon.fits_bigint(random()::numeric)")).scalars()
            assert CALL.findall("\n".join(kept)) == ["fits_bigint"], "a call that stays is shown"
        for name, choices in CALLING:
            printed = face.compose(read_settings(), SqlOptions(name, tuple(choices.values()), ("cus_1",)))
            with begin(connection):
                for before in header(name).after:
                    connection.execute(statement(before, {}), dict(printed.values))
                plan = (
                    connection.execute(text(f"explain (verbose) {printed.text}"), dict(printed.values)).scalars().all()
                )
                connection.rollback()
            called[f"{name} {choices}"] = CALL.findall("\n".join(plan))
    assert len(called) > 40
    assert {name: calls for name, calls in called.items() if calls} == {}


@pytest.mark.parametrize(
    ("amount", "fits"),
    [
        ("9223372036854775807", True),
        ("9223372036854775808", False),
        ("-9223372036854775808", True),
        ("-9223372036854775809", False),
        ("1.0", True),
        ("0.5", False),
        ("NaN", False),
        ("Infinity", False),
    ],
)
def test_a_counter_can_hold_whole_numbers_within_bigint(prepared_url: str, amount: str, fits: bool) -> None:
    with connected(prepared_url) as session:
        assert session.execute("select recon.fits_bigint(%s::numeric)", (amount,)).fetchone() == (fits,)
