"""Values that are sent to Postgres as an array arrive as they are."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from recon_pipeline.store.postgres.database import BillingDatabase

TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("its_type", "values"),
    [
        ("text[]", ["", "NULL", '"', "\\", "{a,b}", " a ", "ключ", "客户\u3000", "line\nend", "x" * 100_000]),
        ("text[]", ["a", None, "b"]),
        ("text[]", [None, None]),
        ("text[]", []),
        ("bigint[]", [1, 2**62, -(2**63), None]),
        ("bigint[]", []),
        ("numeric[]", [Decimal("1e-30"), Decimal(10) ** 40 + 1, Decimal("-0.10"), None]),
        ("boolean[]", [True, None, False]),
        ("timestamptz[]", [datetime(2025, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), None]),
        ("timestamptz[]", [datetime(2025, 3, 30, 1, 59, 59, 999_999, tzinfo=TOKYO), datetime.max.replace(tzinfo=UTC)]),
        ("timestamptz[]", [None]),
    ],
)
def test_an_array_arrives_with_each_value_as_it_was_sent(
    empty_database_url: str, its_type: str, values: Sequence[Any]
) -> None:
    with BillingDatabase(empty_database_url).transaction(any_schema_version=True) as connection:
        arrived = connection.execute(text(f"select cast(:values as {its_type})"), {"values": values}).scalar_one()
    assert arrived == values


def test_texts_become_what_a_statement_takes_them_for(empty_database_url: str) -> None:
    """Transaction ids have no type of their own in Python."""
    with BillingDatabase(empty_database_url).transaction(any_schema_version=True) as connection:
        asked = text("select cast(:given as xid8[])::text, 7 = any(cast(:numbers as bigint[]))")
        assert connection.execute(asked, {"given": ["1", str(2**63)], "numbers": [7, 10**12]}).one() == (
            f"{{1,{2**63}}}",
            True,
        )
