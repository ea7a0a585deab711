"""Reads a Postgres URL once, as libpq does, and writes it for each library that needs it, or without its secrets.

A person sets `postgres://` or `postgresql://`, with one host, several, or a socket's folder. SQLAlchemy splits some
URLs in another way than libpq: the password of one is a host's name to the other, which sends it to the DNS and shows
it in messages. So no library gets the text itself, but what was read, written in the one way that all of them read
alike. A text with two readings is refused. No message shows any part of it but the scheme.
"""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote_to_bytes

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"})
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_DEFAULT_PORT = "5432"
_LARGEST_PORT = 65_535
_OF_AN_OWN_POOL = frozenset({"pgbouncer", "connection_limit", "pool_timeout"})
"""What a pooler's pages advise for an application with a pool of its own; no driver knows these, and ours suits one."""

_PUBLIC = frozenset(
    {"host", "hostaddr", "port", "dbname", "sslmode", "application_name", "connect_timeout", "target_session_attrs"}
    | {"channel_binding", "sslrootcert", "gssencmode", "keepalives", "load_balance_hosts"}
)
_IN_FRONT = ("user", "password", "dbname")
_WRITE = "write @ as %40, / as %2F, ? as %3F and % as %25"
_RESERVED = f"its user, password or a parameter contains a reserved character; {_WRITE}"
_NO_PORT = f"the text after the colon that follows its host is not a port number; if it belongs to a password, {_WRITE}"
_HIDDEN = "***"


class DatabaseUrlError(ValueError):
    """The text is not a URL of a Postgres database. The message contains no part of it but the scheme."""


@dataclass(frozen=True, repr=False)
class _DatabaseUrl:
    """What a URL says, by libpq's names, decoded; several hosts or ports are one value with commas.

    Of several hosts the one that takes writes is used, unless the URL says otherwise: a standby lags behind.
    """

    values: dict[str, str]

    @classmethod
    def read(cls, url: str) -> Self:
        before, _, query = _after_scheme(url).partition("?")
        authority, _, database = before.partition("/")
        user_info, at, hosts = authority.rpartition("@")
        user, colon, password = user_info.partition(":")
        values = {"user": user} if at else {}
        values |= {"password": password} if colon else {}
        values |= {"dbname": database} if database else {}
        values = {name: _decoded(value) for name, value in values.items()}
        values |= _hosts_and_ports(hosts) | _parameters(query)
        _require_ports(values)
        if "," in values.get("host", ""):
            values.setdefault("target_session_attrs", "read-write")
        return cls(values)

    def write(self, *, shows_secrets: bool) -> str:
        """What follows the scheme."""
        parts = {
            name: quote(value, safe="" if name in _IN_FRONT else "/,")
            if shows_secrets or _is_public(name, value)
            else _HIDDEN
            for name, value in self.values.items()
        }
        user, password, database = (parts.pop(name, None) for name in _IN_FRONT)
        login = "" if user is password is None else f"{user or ''}{'' if password is None else f':{password}'}@"
        one = self.values.get("host", "")
        host = port = ""
        if not one.startswith(("/", "@")) and "," not in one + self.values.get("port", ""):
            host, port = parts.pop("host", ""), parts.pop("port", "")
            host = f"[{host.replace('%3A', ':')}]" if ":" in one else host
            port = port and f":{port}"
        query = "&".join(f"{name}={value}" for name, value in parts.items())
        slash = "/" if database or query else ""
        return f"{login}{host}{port}{slash}{database or ''}{query and f'?{query}'}"


def for_libpq(url: str) -> str:
    """The plain form, `postgresql://`, for psycopg itself, `psql` and `pg_dump`.

    Raises:
        DatabaseUrlError: Another scheme, no URL at all, or one with two readings.
    """
    return f"postgresql://{_DatabaseUrl.read(url).write(shows_secrets=True)}"


def for_psycopg(url: str) -> str:
    """The form for SQLAlchemy with psycopg 3, `postgresql+psycopg://`.

    Raises:
        DatabaseUrlError: Another scheme, no URL at all, or one with two readings.
    """
    return f"postgresql+psycopg://{_DatabaseUrl.read(url).write(shows_secrets=True)}"


def for_dagster(url: str) -> str:
    """The form for Dagster's storage, `postgresql+psycopg2://`: its `NOTIFY` fails on psycopg 3.

    Raises:
        DatabaseUrlError: Another scheme, no URL at all, or one with two readings.
    """
    return f"postgresql+psycopg2://{_DatabaseUrl.read(url).write(shows_secrets=True)}"


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """The plain form for a program's command line, and the environment variable that holds what it leaves out.

    Raises:
        DatabaseUrlError: Another scheme, no URL at all, or one with two readings.
    """
    values = _DatabaseUrl.read(url).values
    password = values.pop("password", None)
    shown = f"postgresql://{_DatabaseUrl(values).write(shows_secrets=True)}"
    return shown, {} if password is None else {"PGPASSWORD": password}


def redacted(url: str) -> str:
    """The URL with everything hidden that is, or could be, a password. Never raises.

    In case of doubt a part is hidden: of a text that is refused only the scheme is shown.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        return _HIDDEN
    try:
        read = _DatabaseUrl.read(url)
    except DatabaseUrlError:
        return f"{scheme}://{_HIDDEN}"
    before_colon, colon, _ = rest.partition("?")[0].partition(":")
    # Without a user the part after the colon is a port, or the password of a URL whose end was cut off.
    if colon and "@" not in rest:
        return f"{scheme}://{_HIDDEN}" if re.search("[/,[]", before_colon) else f"{scheme}://{before_colon}:{_HIDDEN}"
    return f"{scheme}://{read.write(shows_secrets=False)}"


def _is_public(name: str, value: str) -> bool:
    """Whether a part can be shown: what it is, and that it looks like that."""
    if name == "user":
        return True
    return name in _PUBLIC and re.fullmatch(r"[\w ./,:%~+-]*", value) is not None


def _after_scheme(url: str) -> str:
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        raise DatabaseUrlError("it is not a URL like postgresql://user:password@host:5432/database")
    if scheme.lower() not in _SCHEMES:
        shown = f" {scheme}://" if re.fullmatch(r"[A-Za-z][A-Za-z0-9+]*", scheme) else ""
        raise DatabaseUrlError(f"its scheme{shown} is not that of a Postgres database; use postgresql://")
    # libpq looks for the one @ that ends the login before the first /, SQLAlchemy before or after.
    if rest.count("@") > 1 or "@" in rest[len(re.split("[/?]", rest)[0]) :]:
        raise DatabaseUrlError(_RESERVED)
    return rest


def _decoded(text: str) -> str:
    """The text without its percent signs.

    Raises:
        DatabaseUrlError: It holds a percent sign that libpq would not decode, and would show.
    """
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        decoded = "\0"
    if "\0" in decoded or re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise DatabaseUrlError("it has a % that two hexadecimal digits of a UTF-8 text do not follow; write % as %25")
    return decoded


def _hosts_and_ports(text: str) -> dict[str, str]:
    """`host1:5432,host2:5433`, where each host may be `[an IPv6 address]` and may come without a port."""
    found = [_HOST_AND_PORT.fullmatch(one) for one in text.split(",")]
    if not all(found):
        raise DatabaseUrlError(_NO_PORT)
    hosts = ",".join(_decoded((one["host"] or "").strip("[]")) for one in found if one)
    ports = [one["port"] or "" for one in found if one]
    return {name: value for name, value in (("host", hosts), ("port", ",".join(ports))) if value.strip(",")}


def _parameters(query: str) -> dict[str, str]:
    """The named values after the question mark; the last one counts where a name comes twice."""
    parts = [part.partition("=") for part in query.split("&")] if query else []
    if not all(equals and re.fullmatch("[A-Za-z_]+", name) for name, equals, _ in parts):
        raise DatabaseUrlError(f"what follows its ? is not a list of name=value; if it belongs to a password, {_WRITE}")
    return {name: _decoded(value) for name, _, value in parts if name not in _OF_AN_OWN_POOL}


def _require_ports(values: dict[str, str]) -> None:
    """Refuse what are no ports, or not one for all hosts or one for each; and write several hosts with one for each."""
    hosts = values.get("host", "").split(",")
    ports = [port or _DEFAULT_PORT for port in values.get("port", "").split(",")]
    if not all(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= _LARGEST_PORT for port in ports):
        raise DatabaseUrlError(_NO_PORT)
    if len(ports) not in (1, len(hosts)):
        raise DatabaseUrlError("it has several ports, but not one for each host")
    if len(hosts) > 1:
        values["port"] = ",".join(ports * len(hosts) if len(ports) == 1 else ports)
