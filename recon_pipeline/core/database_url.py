"""Rewrites a Postgres URL for each library that reads it, and shows it without its password.

A person sets `postgres://` or `postgresql://`. For these SQLAlchemy would choose the wrong driver on Dagster's
side, and libpq refuses a URL that names a driver. Only the scheme changes, and two spellings that SQLAlchemy
reads differently from libpq; everything else stays as given. No message and no result of `redacted` ever shows
a password.
"""

import re

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"})
_ENCODED_SOCKET = re.compile(r"^(?P<user>[^@/?]*@)?(?P<host>%2[Ff][^:/?@]*)(?::(?P<port>\d+))?(?P<rest>[/?].*|)$")
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d+)?")
_PUBLIC_PARAMETERS = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "user",
        "dbname",
        "sslmode",
        "application_name",
        "connect_timeout",
        "pgbouncer",
    }
    | {"target_session_attrs", "channel_binding", "sslrootcert", "gssencmode", "keepalives"}
)
_HIDDEN = "***"


class DatabaseUrlError(ValueError):
    """The text is not a URL of a Postgres database. The message contains no part of it but the scheme."""


def for_libpq(url: str) -> str:
    """The plain form, `postgresql://`, for psycopg itself, `psql` and `pg_dump`.

    Raises:
        DatabaseUrlError: Another scheme, or no URL at all.
    """
    return f"postgresql://{_after_scheme(url)}"


def for_psycopg(url: str) -> str:
    """The form for SQLAlchemy with psycopg 3, `postgresql+psycopg://`.

    Raises:
        DatabaseUrlError: Another scheme, or no URL at all.
    """
    return f"postgresql+psycopg://{_for_sqlalchemy(_after_scheme(url))}"


def for_dagster(url: str) -> str:
    """The form for Dagster's storage, `postgresql+psycopg2://`: its `NOTIFY` fails on psycopg 3.

    Raises:
        DatabaseUrlError: Another scheme, or no URL at all.
    """
    return f"postgresql+psycopg2://{_for_sqlalchemy(_after_scheme(url))}"


def redacted(url: str) -> str:
    """The URL with everything hidden that is, or could be, a password. Never raises.

    In case of doubt a part is hidden: a malformed URL shows less than a good one.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+]*", scheme):
        return _HIDDEN
    user_info, at, location = rest.rpartition("@")
    if at:
        user, colon, _ = user_info.partition(":")
        # A ? or # before the last @ is part of a password or of the query: it is not clear which.
        if re.search(r"[?#]", user_info) or not re.fullmatch(r"[\w.%~-]*", user):
            return f"{scheme}://{_HIDDEN}"
        shown_user = f"{user}:{_HIDDEN}@" if colon else f"{user}@"
    else:
        shown_user = ""
        before_colon, colon, _ = location.partition("?")[0].partition(":")
        # Without an @ the part after the colon is a port, or the password of a URL whose end was cut off.
        if colon:
            return f"{scheme}://{before_colon}:{_HIDDEN}" if "/" not in before_colon else f"{scheme}://{_HIDDEN}"
    path, question_mark, query = location.partition("?")
    shown_path, hash_sign, _ = path.partition("#")
    tail = f"#{_HIDDEN}" if hash_sign else ""
    return f"{scheme}://{shown_user}{shown_path}{tail}{question_mark}{_redacted_query(query)}"


def _redacted_query(query: str) -> str:
    parts: list[str] = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not re.fullmatch(r"[a-z_]*", name):
            parts.append(_HIDDEN)
        elif name in _PUBLIC_PARAMETERS and re.fullmatch(r"[\w./,%+-]*", value):
            parts.append(part)
        else:
            parts.append(f"{name}{equals}{_HIDDEN}" if equals else _HIDDEN)
    return "&".join(parts) if query else ""


def _after_scheme(url: str) -> str:
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        raise DatabaseUrlError("it is not a URL like postgresql://user:password@host:5432/database")
    if scheme.lower() not in _SCHEMES:
        shown = f" {scheme}://" if re.fullmatch(r"[A-Za-z][A-Za-z0-9+]*", scheme) else ""
        raise DatabaseUrlError(f"its scheme{shown} is not that of a Postgres database; use postgresql://")
    authority, _, path = rest.partition("/")
    user_info, at, hosts = authority.rpartition("@")
    if "@" in user_info or (not at and "@" in path.partition("?")[0]):
        raise DatabaseUrlError(
            "its user or password contains a reserved character; write @ as %40, / as %2F and % as %25"
        )
    if not all(_HOST_AND_PORT.fullmatch(host) for host in hosts.partition("?")[0].split(",")):
        raise DatabaseUrlError("the text after the colon that follows its host is not a port number")
    return rest


def _for_sqlalchemy(rest: str) -> str:
    """Rewrite the two spellings that SQLAlchemy reads differently from libpq."""
    encoded_socket = _ENCODED_SOCKET.match(rest)
    if encoded_socket:
        user, host, port, tail = (encoded_socket[name] or "" for name in ("user", "host", "port", "rest"))
        path, _, query = tail.partition("?")
        parameters = [f"host={host}", f"port={port}" if port else "", query]
        rest = f"{user}{path or '/'}?{'&'.join(filter(None, parameters))}"
    before, question_mark, query = rest.partition("?")
    return f"{before}{question_mark}{query.replace('+', '%2B')}"
