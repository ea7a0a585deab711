"""Databases that are not there, not open to us, or not what they should be: reported clearly, without a password."""

import socket
import threading
from collections.abc import Iterator

import pytest

from recon_pipeline.store.postgres.refusals import explain_refusal
from recon_pipeline_tests.commands.conftest import MakeBilling, OwnServer, migrate, recon
from recon_pipeline_tests.reconciliation.billing import connected

PASSWORD = "hunter2secret"
COMMANDS = [("init",), ("status", "--json"), ("doctor", "--json"), ("reconcile", "--json")]
A_RUN = ("reconcile", "--period", "2025-05", "--json")
NOBODY = f"postgresql://app:{PASSWORD}@127.0.0.1:1/billing"


@pytest.fixture
def patient_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster asks a storage that does not answer again and again; do not wait between the attempts."""

    class Clock:
        sleep = staticmethod(lambda _: None)

    monkeypatch.setattr("dagster_postgres.utils.time", Clock)


@pytest.fixture
def guarded_url(own_server: OwnServer) -> str:
    """A prepared database behind a password."""
    url = own_server.create_database("guarded", migrate)
    with connected(url, autocommit=True) as connection:
        connection.execute("drop role if exists guarded")
        connection.execute(f"create role guarded superuser login password '{PASSWORD}'")
        own_server.write("pg_hba.conf", "local all guarded scram-sha-256\nlocal all all trust\n")
        connection.execute("select pg_reload_conf()")
    return url.replace("postgres@", f"guarded:{PASSWORD}@")


@pytest.mark.usefixtures("orchestrated")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (NOBODY, "Connection refused"),
        (f"postgresql://app:{PASSWORD}@no-such-host.invalid/billing", "failed to resolve host"),
        (f"{NOBODY}?sslmode={PASSWORD}", "could not be reached"),
        (f"{NOBODY}?pgbouncer=true", "Connection refused"),
        (f"{NOBODY}?schema=public", 'invalid connection option "schema"'),
    ],
)
def test_a_server_out_of_reach_is_reported_with_its_address_and_without_its_password(
    command: tuple[str, ...], url: str, said: str
) -> None:
    output = recon(*command, DATABASE_URL=url)
    assert output.exit_code == 1
    assert said in output.said.replace('\\"', '"')
    assert "postgresql://app:***@" in output.said
    assert "DATABASE_URL" in output.said
    if "sslmode" not in url:  # what a driver says of a parameter's value is the driver's to say
        assert PASSWORD not in output.out + output.err


@pytest.mark.usefixtures("orchestrated")
@pytest.mark.parametrize("command", [*COMMANDS, A_RUN])
def test_a_wrong_password_is_reported_as_a_refused_login_and_never_printed(
    guarded_url: str, command: tuple[str, ...]
) -> None:
    output = recon(*command, DATABASE_URL=guarded_url.replace(PASSWORD, f"{PASSWORD}-wrong"))
    assert output.exit_code == 1
    assert "refused the login" in output.said
    assert "Check user and password in DATABASE_URL." in output.said
    assert PASSWORD not in output.out + output.err


@pytest.mark.usefixtures("orchestrated")
def test_the_right_password_is_never_printed_either(guarded_url: str) -> None:
    for command in (("init",), ("doctor",), ("doctor", "--json"), ("status", "--json")):
        output = recon(*command, DATABASE_URL=guarded_url)
        assert "guarded:***@" in output.said
        assert PASSWORD not in output.out + output.err


@pytest.mark.parametrize(
    ("before", "said", "fix"),
    [
        (
            "alter role guarded nologin",
            'role "guarded" is not permitted to log in',
            'As a superuser: alter role "guarded" login; or name another role in DATABASE_URL.',
        ),
        (
            "drop role guarded",
            'role "guarded" does not exist',
            "Check the user in DATABASE_URL, or create the role: docs/privileges.md.",
        ),
        (
            "alter role guarded nosuperuser connection limit 0",
            'too many connections for role "guarded"',
            "Wait until others of that role have ended (select * from pg_stat_activity where usename = 'guarded';), or "
            'as a superuser: alter role "guarded" connection limit …;',
        ),
        (
            "alter role guarded nosuperuser; alter database guarded connection limit 0",
            'too many connections for database "guarded"',
            "Wait until others of that database have ended (select * from pg_stat_activity where datname = 'guarded';)"
            ', or as its owner: alter database "guarded" connection limit …;',
        ),
        (
            "alter role guarded nosuperuser; revoke connect on database guarded from public",
            'permission denied for database "guarded"',
            'As its owner: grant connect on database "guarded" to …, the user in DATABASE_URL.',
        ),
        (
            "alter database guarded allow_connections false",
            'database "guarded" is not currently accepting connections',
            'As its owner, if that is over: alter database "guarded" allow_connections true;',
        ),
        (
            "drop database guarded",
            'database "guarded" does not exist',
            "Check the name of the database, the part after the last / of DATABASE_URL, and that this is the server "
            "that has it.",
        ),
    ],
)
def test_a_server_that_lets_nobody_in_says_why_and_what_to_do_about_that(
    own_server: OwnServer, guarded_url: str, before: str, said: str, fix: str
) -> None:
    if before == "drop role guarded":
        own_server.write("pg_hba.conf", "local all all trust\n")
    with connected(own_server.url("postgres"), autocommit=True) as connection:
        connection.execute("select pg_reload_conf()")
        for statement in before.split("; "):
            connection.execute(statement.encode())
    try:
        output = recon("status", "--json", DATABASE_URL=guarded_url)
    finally:
        with connected(own_server.url("postgres"), autocommit=True) as connection:
            connection.execute("update pg_database set datallowconn = true where datname = 'guarded'")

    assert output.exit_code == 1
    assert "did not let us in: " in output.json["error"]
    assert output.json["error"].endswith(said)
    assert output.json["changed"] == "No counter was changed."
    assert output.json["what_to_do"] == fix
    assert PASSWORD not in output.out + output.err


def test_a_server_without_ssl_is_distinguished_from_one_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_ssl() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(8)  # SSLRequest
                connection.sendall(b"N")

        threading.Thread(target=refuse_ssl, daemon=True).start()
        url = f"postgresql://app:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/billing?sslmode=require"
        output = recon("status", "--json", DATABASE_URL=url)

    assert output.json["error"].endswith("server does not support SSL, but SSL was required")
    assert output.json["changed"] == "No counter was changed."
    assert output.json["what_to_do"] == (
        "Let the server use SSL (ssl = on, with a certificate); or, where the network between is trusted, write "
        "sslmode=prefer instead of what DATABASE_URL or PGSSLMODE asks for."
    )


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("FATAL:  sorry, too many clients already", "Wait until other sessions have ended"),
        ("FATAL:  no more connections allowed (max_client_conn)", "Wait until other sessions have ended"),
        ("FATAL:  no such database: billing", "Check the name of the database"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "a", database "b", no encryption', "The server asks"),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "a", database "b", SSL encryption',
            "Let the server's",
        ),
        ("SSL error: certificate verify failed", "Name in DATABASE_URL the certificate"),
    ],
)
def test_what_servers_and_poolers_say_that_are_full_or_closed_has_its_own_fix(said: str, begins: str) -> None:
    refused = explain_refusal(f"connection failed: {said}", state="", database="billing")
    assert refused is not None
    assert refused.fix.startswith(begins)


def test_a_billing_database_is_never_taken_for_dagsters_records(make_billing: MakeBilling) -> None:
    billing = make_billing()
    billing.add_event("a", 3)

    output = recon("reconcile", "--period", "2025-05", "--json", DAGSTER_PG_URL=None)

    assert output.exit_code == 2
    assert "DAGSTER_PG_URL is not" in output.json["error"]
    assert "DAGSTER_PG_URL=postgresql://" in output.json["what_to_do"]
    assert billing.value("select count(*) from pg_class where relname = 'event_logs'") == 0
    assert billing.counters() == {}


@pytest.mark.parametrize("schema", ["public", "app"])
def test_doctor_and_dev_refuse_dagsters_records_in_the_schema_of_the_billing_tables(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    tables = ("billing_usage_events", "billing_usage_counters", "billing_subscriptions")
    moves = f"create schema {schema};" + "".join(f"alter table {table} set schema {schema};" for table in tables)
    billing = make_billing(moves if schema != "public" else "")
    url = f"{billing.url}{'&' if '?' in billing.url else '?'}options=-csearch_path%3D{schema}"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DAGSTER_PG_URL", url)

    doctor, dev = recon("doctor", "--json"), recon("dev")

    (finding,) = [one for one in doctor.json["findings"] if one["requirement"] == "Dagster storage"]
    assert finding["verdict"] == "fail"
    for said in (finding["detail"] + finding["mend"], dev.said):
        assert f"DAGSTER_PG_URL is the schema {schema} of the billing database" in said
        assert "add ?options=-csearch_path%3Ddagster to DAGSTER_PG_URL" in said
    assert (doctor.exit_code, dev.exit_code) == (1, 2)
    assert billing.value("select count(*) from pg_class where relname = 'event_logs'") == 0


def test_a_schema_of_dagsters_own_in_the_billing_database_is_accepted(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing("create schema dagster")
    join = "&" if "?" in billing.url else "?"
    monkeypatch.setenv("DAGSTER_PG_URL", f"{billing.url}{join}options=-csearch_path%3Ddagster")

    doctor = recon("doctor", "--json")

    (finding,) = [one for one in doctor.json["findings"] if one["requirement"] == "Dagster storage"]
    assert finding["verdict"] == "pass", finding
    assert billing.value("select count(*) from pg_class where relname = 'event_logs'") == 1
    assert billing.value("select to_regclass('dagster.event_logs') is not null")


@pytest.mark.usefixtures("patient_dagster")
def test_dagsters_storage_out_of_reach_is_reported_before_anything_is_changed(make_billing: MakeBilling) -> None:
    billing = make_billing()
    billing.add_event("a", 3)

    output = recon("reconcile", "--period", "2025-05", "--json", DAGSTER_PG_URL=NOBODY)

    assert output.exit_code == 1
    assert "Dagster's storage cannot be reached" in output.json["error"]
    assert "Connection refused" in output.json["error"]
    assert output.json["changed"] == "No counter was changed."
    assert "DAGSTER_PG_URL" in output.json["what_to_do"]
    assert PASSWORD not in output.out + output.err
    assert billing.counters() == {}


@pytest.mark.parametrize("home", ["", "/no/such/folder"])
def test_runs_are_never_recorded_in_a_folder_without_dagster_yaml(
    make_billing: MakeBilling, home: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make_billing()
    home = home or str(tmp_path_factory.mktemp("empty"))
    output = recon("reconcile", "--period", "2025-05", "--json", DAGSTER_HOME=home)
    assert output.exit_code == 2
    assert f"DAGSTER_HOME is {home}, which holds no dagster.yaml" in output.json["error"]


@pytest.fixture
def standby_url(own_server: OwnServer) -> Iterator[str]:
    """A prepared database on a server in recovery."""
    url = own_server.create_database("replica", migrate)
    own_server.stop()
    own_server.write("standby.signal", "")
    own_server.start()
    yield url
    own_server.stop()


@pytest.mark.usefixtures("orchestrated")
def test_a_standby_is_refused_by_name_and_the_fix_names_the_primary(standby_url: str) -> None:
    init = recon("init", DATABASE_URL=standby_url)
    doctor = recon("doctor", "--json", DATABASE_URL=standby_url)
    reconcile = recon("reconcile", "--period", "2025-05", "--json", DATABASE_URL=standby_url)

    assert [output.exit_code for output in (init, doctor, reconcile)] == [1, 1, 1]
    (primary,) = [finding for finding in doctor.json["findings"] if finding["requirement"] == "primary"]
    assert (primary["verdict"], primary["mend"]) == ("fail", "Point DATABASE_URL at the primary.")
    for said in (init.said, reconcile.said):
        assert "is a standby" in said
        assert "Point DATABASE_URL at the primary." in said
