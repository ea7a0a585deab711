"""One pasted URL, three readers, and never a password shown."""

from urllib.parse import quote, unquote

import psycopg.conninfo
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url

from recon_pipeline.core.database_url import (
    DatabaseUrlError,
    for_dagster,
    for_libpq,
    for_psycopg,
    redacted,
    without_password,
)

PASTED = ["postgres://", "postgresql://", "postgresql+psycopg://", "postgresql+psycopg2://", "POSTGRES://"]
SECRET = "hunter2Secret"


def connect_arguments(sqlalchemy_url: str) -> dict[str, object]:
    """What SQLAlchemy hands to the driver, as text, so that both drivers compare."""
    engine = create_engine(sqlalchemy_url)
    _, arguments = engine.dialect.create_connect_args(make_url(sqlalchemy_url))
    return {name: str(value) for name, value in arguments.items()}


def refusal_of(url: str) -> str:
    """Why a URL is refused, or '' if it is not."""
    try:
        for_libpq(url)
    except DatabaseUrlError as error:
        return str(error)
    return ""


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
        "postgresql://user:secret@h1:5432,h2:5433/app?target_session_attrs=read-write",
        "postgresql://h1:5432,h2:5433/app?target_session_attrs=read-write",
        "postgresql://user@[::1]:5432,[::2]:5433/app",
        "postgresql://user@/app?host=h1,h2&port=5432,5433",
        "postgresql://user:p#s%3Fs=1,2&3@host/my%20app?options=-c%20search_path%3Dbilling%2Bold",
        "postgresql://us%2Fer%2C:p%2C@host",
    ],
)
def test_both_drivers_are_given_what_libpq_reads_from_the_url(url: str) -> None:
    libpq = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(for_libpq(url)).items()}

    assert {k: v for k, v in connect_arguments(for_psycopg(url)).items() if k != "context"} == libpq
    assert connect_arguments(for_dagster(url)) == libpq


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ("h1,h2:6432/app", "5432,6432"),
        ("h1,h2/app", "5432,5432"),
        ("/app?host=h1,h2&port=6432", "6432,6432"),
        ("/app?host=h1,h2&port=,6432", "5432,6432"),
    ],
)
def test_each_of_several_hosts_is_given_its_port(given: str, ports: str) -> None:
    assert for_libpq(f"postgresql://{given}") == (
        f"postgresql:///app?host=h1,h2&port={ports}&target_session_attrs=read-write"
    )


def test_of_several_hosts_the_one_that_takes_writes_is_meant_unless_the_url_says_otherwise() -> None:
    for rewrite in (for_libpq, for_psycopg, for_dagster):
        assert rewrite("postgresql://h1,h2/app").endswith("&target_session_attrs=read-write")
        assert "read-write" not in rewrite("postgresql://h1,h2/app?target_session_attrs=any")
        assert "target_session_attrs" not in rewrite("postgresql://h1/app")


def test_what_a_pooler_advises_for_an_application_is_not_given_to_a_driver() -> None:
    url = "postgres://user@pooler:6543/app?pgbouncer=true&connection_limit=1&pool_timeout=10"
    for rewrite in (for_libpq, for_psycopg, for_dagster):
        assert rewrite(f"{url}&sslmode=require").endswith("://user@pooler:6543/app?sslmode=require")
        assert rewrite(url).endswith("://user@pooler:6543/app")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://user:pa@{SECRET}/x@host:5432/app", "write @ as %40"),
        (f"postgresql://user:12/{SECRET}@host/app", "/ as %2F"),
        (f"postgresql://user:12/a@{SECRET}", "/ as %2F"),
        (f"postgresql://user:12?{SECRET}@host/app", "? as %3F"),
        (f"postgresql://host:5432/app?password=x@{SECRET}", "write @ as %40"),
        (f"postgresql://user:12?{SECRET}", "write @ as %40"),
        (f"postgresql://user:1%{SECRET}@host/app", "write % as %25"),
        (f"postgresql://user:%00{SECRET}@host/app", "write % as %25"),
        (f"postgresql://user:%ff{SECRET}@host/app", "write % as %25"),
        (f"postgresql://user:{SECRET}@host:70000/app", "not a port number"),
        (f"postgresql://user:{SECRET}@h1:1,h2:x/app", "not a port number"),
        (f"postgresql://user:{SECRET}@h1,h2,h3/app?port=1,2", "several ports, but not one for each host"),
    ],
)
def test_a_url_with_two_readings_is_refused_with_the_way_to_write_it(url: str, said: str) -> None:
    for rewrite in (for_libpq, for_psycopg, for_dagster):
        with pytest.raises(DatabaseUrlError) as refusal:
            rewrite(url)
        assert said in str(refusal.value)
        assert SECRET not in str(refusal.value)
    assert redacted(url) == "postgresql://***"


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
    assert redacted(f"postgresql://user:{SECRET}@h1:5432,h2:5433/app?target_session_attrs=read-write") == (
        "postgresql://user:***@/app?host=h1,h2&port=5432,5433&target_session_attrs=read-write"
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
    before=st.text(st.sampled_from("a1:/?#&=%@;, '\""), max_size=8),
    after=st.text(st.sampled_from("a1:/?#&=%@;, '\""), max_size=8),
    tail=st.sampled_from(
        ["@host/app", "@host:5432/app?sslmode=require", "@/app?host=/tmp/db", "@h1:5432,h2:5433/app", "@[::1]/app"]
    ),
)
@example(before="pa@", after="/wd", tail="@host/app")
@example(before="12/se@", after="", tail="@host/app")
def test_no_odd_character_in_a_password_makes_it_show_or_reach_anything_but_the_password(
    before: str, after: str, tail: str
) -> None:
    url = f"postgresql://user:{before}{SECRET}{after}{tail}"

    assert SECRET not in redacted(url)
    said = refusal_of(url)
    if said:
        assert SECRET not in said
        return
    read = [make_url(for_psycopg(url)), make_url(for_dagster(url))]
    libpq = psycopg.conninfo.conninfo_to_dict(for_libpq(url))
    for password, rest in [(one.password, one.set(password=None)) for one in read]:
        assert password == libpq["password"] == unquote(f"{before}{SECRET}{after}")
        assert SECRET not in str(rest)
    assert SECRET not in str({**libpq, "password": None})


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_every_password_that_is_percent_encoded_is_taken_as_it_is(password: str) -> None:
    url = f"postgresql://user:{quote(password, safe='')}@host:5432/app"

    assert psycopg.conninfo.conninfo_to_dict(for_libpq(url))["password"] == password
    assert make_url(for_psycopg(url)).password == make_url(for_dagster(url)).password == password
    assert redacted(url) == "postgresql://user:***@host:5432/app"


def test_a_command_line_is_given_no_password() -> None:
    shown, variable = without_password("postgresql://user:p%40ss@h1:5432,h2:5433/app")

    assert shown == "postgresql://user@/app?host=h1,h2&port=5432,5433&target_session_attrs=read-write"
    assert variable == {"PGPASSWORD": "p@ss"}
    assert without_password("postgresql://user@host/app") == ("postgresql://user@host/app", {})
