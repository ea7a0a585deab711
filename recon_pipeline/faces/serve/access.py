"""Who may do what over HTTP, as the environment says: the secrets, and the proxies that are trusted for addresses.

No value that can hold a secret is shown.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from recon_pipeline.core.errors import ConfigurationError

DEFAULT_PROXIES = "127.0.0.1,::1"
_TOKEN = re.compile(r"[!-~]+")
_IPV6_PREFIX = 64
"""What one customer of a provider gets: whoever has one address of it has all of them."""

_EVERYWHERE = 8
"""A shorter prefix is no network of proxies."""


@dataclass(frozen=True)
class Secrets:
    """The secrets; each in ASCII, without spaces.

    Attributes:
        changing: `CRON_SECRET`, and while it is being changed `CRON_SECRET_PREVIOUS` too: the cron endpoint, and all
            that the other one opens. None if it is not set.
        reading: `RECON_READ_SECRET`: the pages, and nothing that starts or changes anything. None if it is not set.
    """

    changing: tuple[str, ...] = field(default=(), repr=False)
    reading: tuple[str, ...] = field(default=(), repr=False)


def read_secrets(environ: Mapping[str, str] = os.environ) -> Secrets:
    """Read and check the secrets.

    Raises:
        ConfigurationError: A secret that no caller could send, only a previous one, or two that are the same.
    """
    names = ("CRON_SECRET", "CRON_SECRET_PREVIOUS", "RECON_READ_SECRET")
    secrets = {name: environ.get(name, "") for name in names}
    for name, secret in secrets.items():
        if secret and _TOKEN.fullmatch(secret) is None:
            raise ConfigurationError(
                f"{name} holds a space, a line break or another character that cannot be sent as a token.",
                fix=f'Set it to plain ASCII without spaces, for example {name}="$(openssl rand -hex 32)".',
            )
    if secrets["CRON_SECRET_PREVIOUS"] and not secrets["CRON_SECRET"]:
        raise ConfigurationError(
            "CRON_SECRET_PREVIOUS is set and CRON_SECRET is not.",
            fix="Set CRON_SECRET to the new secret; CRON_SECRET_PREVIOUS is the old one while callers change.",
        )
    reading = secrets.pop("RECON_READ_SECRET")
    if reading and reading in secrets.values():
        raise ConfigurationError(
            "RECON_READ_SECRET is the same as CRON_SECRET or CRON_SECRET_PREVIOUS: who may read could start runs.",
            fix='Set it to another, for example RECON_READ_SECRET="$(openssl rand -hex 32)", or unset it.',
        )
    return Secrets(tuple(filter(None, secrets.values())), (reading,) if reading else ())


@dataclass(frozen=True)
class Proxies:
    """Networks whose `X-Forwarded-For` is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    def __contains__(self, address: str) -> bool:
        """Whether a proxy has that address; false for a text that is no address."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)


def read_proxies(environ: Mapping[str, str] = os.environ) -> Proxies:
    """The proxies, `FORWARDED_ALLOW_IPS`; without it those on this machine.

    Raises:
        ConfigurationError: It is no list of addresses and networks, or it trusts every address.
    """
    given = environ.get("FORWARDED_ALLOW_IPS") or DEFAULT_PROXIES
    try:
        networks = tuple(ip_network(one.strip(), strict=False) for one in given.split(",") if one.strip())
    except ValueError:
        networks = ()
    if not networks or any(network.prefixlen < _EVERYWHERE for network in networks):
        raise ConfigurationError(
            f"FORWARDED_ALLOW_IPS is {given!r}, which is not a list of the addresses or networks of proxies: whoever "
            "it names can take any address, and so escape every limit of one.",
            fix="Set it like FORWARDED_ALLOW_IPS=10.1.2.3,10.4.0.0/16, or unset it if a proxy is on the same machine.",
        )
    return Proxies(networks)


def neighborhood(address: str) -> str:
    """What counts as one address: for IPv6 the network that one customer has."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ip_network((found, _IPV6_PREFIX), strict=False))
