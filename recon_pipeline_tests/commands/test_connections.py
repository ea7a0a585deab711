"""Databases that are not there, not open to us, or not what they should be: reported clearly, without a password."""

from collections.abc import Iterator

import pytest

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


@pytest.mark.usefixtures("orchestrated")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_does_not_exist_is_named(own_server: OwnServer, command: tuple[str, ...]) -> None:
    output = recon(*command, DATABASE_URL=own_server.url("no_such_database"))
    assert output.exit_code == 1
    assert "no_such_database" in output.said
    assert "does not exist" in output.said


def test_a_billing_database_is_never_taken_for_dagsters_records(make_billing: MakeBilling) -> None:
    billing = make_billing()
    billing.add_event("a", 3)

    output = recon("reconcile", "--period", "2025-05", "--json", DAGSTER_PG_URL=None)

    assert output.exit_code == 2
    assert "DAGSTER_PG_URL is not" in output.json["error"]
    assert "DAGSTER_PG_URL=postgresql://" in output.json["what_to_do"]
    assert billing.value("select count(*) from pg_class where relname = 'event_logs'") == 0
    assert billing.counters() == {}


def test_doctor_and_dev_refuse_dagsters_records_in_the_billing_databases_schema_public(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing()
    monkeypatch.setenv("DAGSTER_PG_URL", billing.url)

    doctor, dev = recon("doctor", "--json"), recon("dev")

    (finding,) = [one for one in doctor.json["findings"] if one["requirement"] == "Dagster storage"]
    assert finding["verdict"] == "fail"
    for said in (finding["detail"] + finding["mend"], dev.said):
        assert "DAGSTER_PG_URL is the schema public of the billing database" in said
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
