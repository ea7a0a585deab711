"""The application's tables as they really are, and the refusal to work from a log that cannot be trusted.

Invariant ("Refuse to be fooled" in docs/correctness.md): no comparison and no repair happens before
`require_trustworthy` has passed in the same step. Row level security hides rows without an error, a standby lags and
cannot be written, a missing column means another table. Real tables differ in constraints and types; these decide which
statements are used, never an assumption.
"""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_CHANGED, UntrustworthyLogError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.declared_key import WiderKey, refuses_repetitions, wider_key
from recon_pipeline.store.log.row_security import lockable, require_every_row
from recon_pipeline.store.log.sealed_months import SealedMonth, read_stand_ins
from recon_pipeline.store.log.shape import COUNTER_KEY, deletion_marks, has_unique_key, unsound_kind, wrong_columns
from recon_pipeline.store.log.tables import (
    COUNTERS,
    EVENTS,
    SUBSCRIPTIONS,
    Server,
    Table,
    describe_server,
    describe_tables,
)
from recon_pipeline.store.postgres.database import declared_identity
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION, require_primary, require_version
from recon_pipeline.store.postgres.statements import Part, statement

NAMED_BY = " events named by "
"""Before the columns in the identity of a log whose events are not named by gateway_name and request_id alone."""


@dataclass(frozen=True)
class BillingTables:
    """What the statements need to know of the tables.

    Attributes:
        event_identity: The event identity, as the owner declares it.
        refuses_repetitions: The log itself refuses a second event of one identity.
        wider_key: The log declares two events of one identity to be two.
        quantity_is_numeric: Quantities can be fractions, NaN or infinite.
        has_subscriptions: Without them limits are unknown.
        has_ingest_xid: Events carry the transaction that inserted them.
        end_is_in_key: Counters of one customer and usage type may begin at the same instant, if they end at others.
        start_digits: The digits of a second that the counters keep of a period's start.
        end_digits: The same of its end.
        finds_periods: An index finds the events that begin before or after a moment.
        finds_counter_periods: An index finds such counters.
        deletion_marks: Columns of the log that mark an event as deleted while it stays there.
        to_lock: The tables that a decision locks.
        log_identity: Which log this is: server, database, tables and partitions, and the event identity.
        reads_by_policy: Row level security is active, and its policies let us read and write every row.
        catalog_version: Changes as soon as anything about the tables changes.
        stand_ins: The billing months whose counters follow a seal or a count in the lake, and not the log.
    """

    event_identity: EventIdentity
    refuses_repetitions: bool
    wider_key: WiderKey | None
    quantity_is_numeric: bool
    has_subscriptions: bool
    has_ingest_xid: bool
    end_is_in_key: bool
    start_digits: int
    end_digits: int
    finds_periods: bool
    finds_counter_periods: bool
    deletion_marks: tuple[str, ...]
    to_lock: tuple[str, ...]
    log_identity: str
    reads_by_policy: bool
    catalog_version: str
    stand_ins: tuple[SealedMonth, ...] = ()

    def standing_in(self, usage: MeteredUsage, extent: Extent) -> tuple[SealedMonth, ...]:
        """The months of a metered usage within an extent that are sealed or counted in the lake."""
        return tuple(one for one in self.stand_ins if one.usage == usage and extent.first <= one.month <= extent.last)

    def sealed_within(self, usage: MeteredUsage, extent: Extent) -> tuple[SealedMonth, ...]:
        """The sealed months of a metered usage within an extent."""
        return tuple(one for one in self.standing_in(usage, extent) if one.is_sealed)

    def absent_within(self, usage: MeteredUsage, extent: Extent) -> tuple[SealedMonth, ...]:
        """Those of which the log need not have the events: the lake has them, or an archive."""
        return tuple(one for one in self.standing_in(usage, extent) if one.is_of_lake or one.archived_seen is not None)

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that fill holes, where the tables decide which."""
        return {
            "countable_events": "countable_events" if self.refuses_repetitions else "countable_events_deduplicated",
            "key_sums": "key_sums" if self.refuses_repetitions else "key_sums_deduplicated",
            "marked_events": "marked_events" if self.refuses_repetitions else "marked_events_deduplicated",
            "came_before": "came_before_by_transaction" if self.has_ingest_xid else "came_before_by_age",
        }

    @property
    def limit_parts(self) -> dict[str, Part]:
        """The file that finds subscribed keys."""
        return {"subscribed_keys": "subscribed_keys" if self.has_subscriptions else "no_key_is_known"}

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the parts bind."""
        return {
            "quantity_is_numeric": self.quantity_is_numeric,
            "event_identity": list(self.event_identity.columns),
            "end_is_in_key": self.end_is_in_key,
            "start_digits": self.start_digits,
            "end_digits": self.end_digits,
        }

    @property
    def prepared_catalog(self) -> str:
        """The version of the catalog, with the event identity if it is not the default: then the log may lack more."""
        return f"{self.catalog_version}{_as_suffix(self.event_identity)}"


def require_trustworthy(connection: Connection) -> BillingTables:
    """Check server and tables, and refuse what a repair must never rely on.

    Runs in each transaction; what a connection has read before is valid as long as the catalog's version is the same.

    Returns:
        The facts that choose the statements.

    Raises:
        UntrustworthyLogError: With the cause and its fix.
        SchemaVersionError: Schema recon was prepared by another release, for example since this run began.
    """
    catalog = connection.execute(statement("catalog_version")).one()
    if catalog.schema_version != SCHEMA_VERSION:
        require_version(connection, catalog.schema_version, database=describe_server(connection).database)
    known: BillingTables | None = connection.info.get(BillingTables)
    is_seen = known and (known.reads_by_policy or not catalog.is_filtered)
    if known and known.catalog_version == catalog.version and not catalog.is_standby and is_seen:
        return replace(known, stand_ins=read_stand_ins(connection))
    connection.info[BillingTables] = found = _look_up(connection, catalog.version)
    return replace(found, stand_ins=read_stand_ins(connection))


def _look_up(connection: Connection, catalog_version: str) -> BillingTables:
    server = describe_server(connection)
    require_primary(is_standby=server.is_standby, database=server.database)
    tables = describe_tables(connection, EVENTS, COUNTERS, SUBSCRIPTIONS)
    events = _require_table(tables.get(EVENTS), EVENTS, server)
    counters = _require_table(tables.get(COUNTERS), COUNTERS, server)
    if not has_unique_key(counters, frozenset(COUNTER_KEY)):
        raise UntrustworthyLogError(
            f"{COUNTERS} has no unique key on {', '.join(COUNTER_KEY)}: "
            "a key could have two counters, and none of them would be right.",
            fix=f"create unique index concurrently on {COUNTERS} ({', '.join(COUNTER_KEY)});",
        )
    subscriptions = tables.get(SUBSCRIPTIONS)
    if subscriptions is not None:
        _require_visible(subscriptions, SUBSCRIPTIONS, server)
    require_every_row(tables.values(), server)
    identity = declared_identity(connection)
    return BillingTables(
        event_identity=identity,
        refuses_repetitions=refuses_repetitions(events, identity),
        wider_key=wider_key(events, identity),
        quantity_is_numeric=events.types["quantity"] == "numeric",
        has_subscriptions=subscriptions is not None,
        has_ingest_xid=events.types.get("ingest_xid") == "xid8",
        end_is_in_key=not has_unique_key(counters, frozenset(COUNTER_KEY) - {"period_end"}),
        start_digits=counters.digits["period_start"],
        end_digits=counters.digits["period_end"],
        finds_periods=events.finds_periods,
        finds_counter_periods=counters.finds_periods,
        deletion_marks=deletion_marks(events),
        to_lock=lockable(filter(None, (events, counters, subscriptions))),
        log_identity=f"{connection.execute(statement('log_identity')).scalar_one()}{_as_suffix(identity)}",
        reads_by_policy=any(table.row_security_active for table in tables.values()),
        catalog_version=catalog_version,
    )


def _as_suffix(identity: EventIdentity) -> str:
    """Empty for the default, so that identities that were stored before the setting existed stay valid."""
    return "" if identity.is_default else f"{NAMED_BY}{identity}"


def require_there(connection: Connection, server: Server) -> None:
    """Refuse to prepare a database that is not the application's.

    Raises:
        UntrustworthyLogError: The log or the counters are not there.
    """
    found = describe_tables(connection, EVENTS, COUNTERS)
    for name in (EVENTS, COUNTERS):
        if name not in found:
            raise _missing(name, server, changed="Nothing was changed.")


def _missing(name: str, server: Server, *, changed: str = NOTHING_CHANGED) -> UntrustworthyLogError:
    return UntrustworthyLogError(
        f"There is no table {name} in {server.database} on the search_path ({server.search_path}).",
        changed=changed,
        fix="Point DATABASE_URL at the application's database, or add its schema: "
        f"alter role {server.role} set search_path = <schema>; "
        "For a new project: recon init --with-billing-tables.",
    )


def _require_table(table: Table | None, name: str, server: Server) -> Table:
    if table is None:
        raise _missing(name, server)
    _require_visible(table, name, server)
    return table


def _require_visible(table: Table, name: str, server: Server) -> None:
    wrong = wrong_columns(table, name)
    if wrong:
        raise UntrustworthyLogError(
            f"{'; '.join(wrong)}.",
            fix=f"Check that search_path ({server.search_path}) finds the application's own {name}.",
        )
    unsound = unsound_kind(table, name)
    if unsound is not None:
        raise UntrustworthyLogError(unsound[0], fix=unsound[1])
    if not table.can_select:
        raise UntrustworthyLogError(
            f"Role {server.role} may not read {table.name}.",
            fix=f"grant select on {table.name} to {server.role};",
        )
