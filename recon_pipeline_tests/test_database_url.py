"""One pasted URL, three readers, and never a password shown."""

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url

from recon_pipeline.core.database_url import DatabaseUrlError, for_dagster, for_libpq, for_psycopg, redacted

PASTED = ["postgres://", "postgresql://", "postgresql+psycopg://", "postgresql+psycopg2://", "POSTGRES://"]
SECRET = "hunter2Secret"


def connect_arguments(sqlalchemy_url: str) -> dict[str, object]:
    """What SQLAlchemy hands to the driver, as text, so that both drivers compare."""
    engine = create_engine(sqlalchemy_url)
    _, arguments = engine.dialect.create_connect_args(make_url(sqlalchemy_url))
    return {name: str(value) for name, value in arguments.items()}


@pytest.mark.parametrize("scheme", PASTED)
def test_every_spelling_a_person_pastes_becomes_the_one_each_reader_needs(scheme: str) -> None:
    rest = "user:p%40ss%2Fword@host:6543/app?sslmode=require"

    assert for_libpq(scheme + rest) == "postgresql://" + rest
    assert for_psycopg(scheme + rest) == "postgresql+psycopg://" + rest
    assert for_dagster(scheme + rest) == "postgresql+psycopg2://" + rest


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss%2F%3A%25word@host:6543/app?sslmode=require&application_name=a+b",
        "postgresql://postgres@/app?host=/tmp/a%20folder&port=5432",
        "postgresql://user:secret@%2Fvar%2Frun%2Fpostgresql:5433/app?sslmode=disable",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/app",
        "postgresql://user:secret@[::1]:5432/app",
        "postgresql:///app?host=/run/db&user=someone&password=secret",
    ],
)
def test_both_drivers_are_given_what_libpq_reads_from_the_url(url: str) -> None:
    libpq = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(for_libpq(url)).items()}

    assert {k: v for k, v in connect_arguments(for_psycopg(url)).items() if k != "context"} == libpq
    assert connect_arguments(for_dagster(url)) == libpq


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host/app",
        f"postgresql+asyncpg://user:{SECRET}@host/app",
        f"user:{SECRET}@host://app",
        f"host=localhost password={SECRET}",
        f"postgresql://user:a@{SECRET}@host/app",
        f"postgresql://user:a/{SECRET}@host/app",
        f"postgresql://user:{SECRET}",
        "",
    ],
)
def test_what_is_no_postgres_url_is_refused_without_showing_any_of_it(url: str) -> None:
    for rewrite in (for_libpq, for_psycopg, for_dagster):
        with pytest.raises(DatabaseUrlError) as refusal:
            rewrite(url)
        assert SECRET not in str(refusal.value)
        assert refusal.value.__context__ is None
    assert SECRET not in redacted(url)


def test_a_redacted_url_still_says_where_and_who() -> None:
    assert redacted(f"postgresql://user:{SECRET}@host:5432/app?sslmode=require") == (
        "postgresql://user:***@host:5432/app?sslmode=require"
    )
    assert redacted("postgresql://postgres@/app?host=/tmp/db&port=5432") == (
        "postgresql://postgres@/app?host=/tmp/db&port=5432"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@host/app?password={SECRET}&sslpassword={SECRET}",
        f"postgresql://user@host/app?sslpassword=x@{SECRET}",
        f"postgresql://user:{SECRET}",
        f"postgresql://user:{SECRET}/app",
        f"postgresql://user:a/{SECRET}@host/app",
        f"postgresql://user:a?{SECRET}@host/app",
        f"postgresql://user:a#{SECRET}@host/app",
        f"postgresql://user:a@{SECRET}@host/app",
        f"postgresql://host/app?host=h;password={SECRET}",
        f"postgresql://host/app?dbname=postgresql://u:{SECRET}@h",
        f"postgresql://host/app?{SECRET}",
        f"postgresql://host/app#{SECRET}",
        f"postgresql:/user:{SECRET}@host",
        f" user:{SECRET}@host/app",
    ],
)
def test_a_password_is_hidden_wherever_it_sits_and_however_the_url_is_broken(url: str) -> None:
    assert SECRET not in redacted(url)


@given(
    before=st.text(st.sampled_from("a:/?#&=%@;, '\""), max_size=8),
    after=st.text(st.sampled_from("a:/?#&=%;, '\""), max_size=8),
    tail=st.sampled_from(["@host/app", "@host:5432/app?sslmode=require", "@/app?host=/tmp/db"]),
)
def test_no_odd_character_in_a_password_makes_it_show(before: str, after: str, tail: str) -> None:
    assert SECRET not in redacted(f"postgresql://user:{before}{SECRET}{after}{tail}")
