"""Why a server that answers refuses the login, and what to do about each reason.

Before a session begins the driver has no SQLSTATE, so the server's message is matched. If none matches, for example in
another language, the server is reported as unreachable.
"""

import re

from recon_pipeline.core.errors import DatabaseRefusedError

_REFUSALS = tuple(
    (re.compile(said), fix)
    for said, fix in (
        (
            r'role "(?P<name>[^"]*)" is not permitted to log in',
            'As a superuser: alter role "{name}" login; or name another role in DATABASE_URL.',
        ),
        (
            r'role "(?P<name>[^"]*)" does not exist',
            "Check the user in DATABASE_URL, or create the role: docs/privileges.md.",
        ),
        (
            r'database "(?P<name>[^"]*)" does not exist|no such database: ',
            "Check the name of the database, the part after the last / of DATABASE_URL, and that this is the server "
            "that has it.",
        ),
        (
            r'database "(?P<name>[^"]*)" is not currently accepting connections',
            'As its owner, if that is over: alter database "{name}" allow_connections true;',
        ),
        (
            r'permission denied for database "(?P<name>[^"]*)"',
            'As its owner: grant connect on database "{name}" to …, the user in DATABASE_URL.',
        ),
        (
            r'too many connections for role "(?P<name>[^"]*)"',
            "Wait until others of that role have ended (select * from pg_stat_activity where usename = '{name}';), or "
            'as a superuser: alter role "{name}" connection limit …;',
        ),
        (
            r'too many connections for database "(?P<name>[^"]*)"',
            "Wait until others of that database have ended (select * from pg_stat_activity where datname = '{name}';), "
            'or as its owner: alter database "{name}" connection limit …;',
        ),
        (
            "too many clients already|remaining connection slots are reserved|no more connections allowed",
            "Wait until other sessions have ended, end idle ones (pg_stat_activity), or raise max_connections of the "
            "server; of a pooler, max_client_conn.",
        ),
        (
            "server does not support SSL, but SSL was required",
            "Let the server use SSL (ssl = on, with a certificate); or, where the network between is trusted, write "
            "sslmode=prefer instead of what DATABASE_URL or PGSSLMODE asks for.",
        ),
        (
            "certificate verify failed|root certificate file .* does not exist|server certificate for ",
            "Name in DATABASE_URL the certificate that signed the server's (sslrootcert=FILE), and the host as the "
            "server's certificate does.",
        ),
        (
            r"no pg_hba\.conf entry .* no encryption",
            "The server asks for SSL, or does not know this address: add sslmode=require to DATABASE_URL, or a line to "
            "its pg_hba.conf.",
        ),
        (
            r"no pg_hba\.conf entry|pg_hba\.conf rejects connection",
            "Let the server's pg_hba.conf accept this user from this address, then select pg_reload_conf();",
        ),
    )
)


def explain_refusal(said: str, *, state: str, database: str) -> DatabaseRefusedError | None:
    """The error that a person reads, or None if the server is unreachable, or the session had begun.

    Args:
        said: The driver's message for each host that it tried.
        state: The SQLSTATE, or '' where the driver knows none.
        database: As a person knows it, without its password.
    """
    if state.startswith("28") or "authentication failed" in said:
        return DatabaseRefusedError(
            f"The billing database {database} refused the login: {said}",
            fix="Check user and password in DATABASE_URL.",
        )
    if state:
        return None
    for pattern, fix in _REFUSALS:
        found = pattern.search(said)
        if found is not None:
            return DatabaseRefusedError(
                f"The billing database {database} did not let us in: {said}",
                fix=fix.format(**found.groupdict()),
            )
    return None
