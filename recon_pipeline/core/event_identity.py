"""The event identity: the columns in which two rows agree if they are one event, `RECON_EVENT_IDENTITY`.

Only the owner of the log knows it. `store/log/` finds out whether the log itself refuses a second event of one
identity, and what follows if it declares another key.
"""

from dataclasses import dataclass

from recon_pipeline.core.errors import ConfigurationError

_REQUIRED = ("gateway_name", "request_id")
TIME = "event_timestamp"
_FURTHER = ("usage_type", "gateway_customer_id", "period_start", "period_end", TIME, "created_at")
NAMING_COLUMNS = (*_REQUIRED, *_FURTHER)
"""All that may name an event, in the order in which they are given and shown."""


@dataclass(frozen=True)
class EventIdentity:
    """The columns that name an event, in one order whatever the order in which they were given."""

    columns: tuple[str, ...] = _REQUIRED

    def __str__(self) -> str:
        return ", ".join(self.columns)

    @property
    def is_default(self) -> bool:
        """Whether a gateway's request id alone names an event."""
        return self.columns == _REQUIRED

    @property
    def has_times(self) -> bool:
        """Whether the time of an event is part of what names it."""
        return TIME in self.columns

    @property
    def setting(self) -> str:
        """As the variable says it."""
        return f"RECON_EVENT_IDENTITY={','.join(self.columns)}"

    @property
    def further(self) -> tuple[str, ...]:
        """What it needs beside gateway_name and request_id."""
        return self.columns[len(_REQUIRED) :]


def identity_of(columns: frozenset[str]) -> EventIdentity | None:
    """The identity that a unique key on these columns declares; None if no setting can name it."""
    if not columns <= set(NAMING_COLUMNS):
        return None
    return EventIdentity(tuple(name for name in NAMING_COLUMNS if name in columns or name in _REQUIRED))


def parse_event_identity(text: str) -> EventIdentity:
    """Read `RECON_EVENT_IDENTITY`: columns of the log, `column,…`.

    Raises:
        ConfigurationError: gateway_name or request_id is missing, or another column than those allowed is named.
    """
    columns = frozenset(column.strip() for column in text.split(","))
    found = identity_of(columns)
    if found is None or not columns >= set(_REQUIRED):
        raise ConfigurationError(
            f"RECON_EVENT_IDENTITY is {text!r}. It must name gateway_name and request_id, and may add "
            f"{', '.join(_FURTHER[:-1])} and {_FURTHER[-1]}, nothing else.",
            fix="Set it to the columns of the log's unique key, like "
            "RECON_EVENT_IDENTITY=gateway_name,request_id,usage_type, or unset it for gateway_name,request_id.",
        )
    return found
