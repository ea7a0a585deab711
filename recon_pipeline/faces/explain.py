"""`recon explain`: collects all that is known of a customer's counter. Changes nothing."""

from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.explain_report import require_writable, write_report
from recon_pipeline.faces.explained import Explained
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters.pause import read_pause
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import IDLE_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, BillingDatabase
from recon_pipeline.store.records import explain as store
from recon_pipeline.store.records.customers import require_known_customers
from recon_pipeline.store.records.explain import Explanation, Key
from recon_pipeline.store.records.latest_of_key import latest_of_key
from recon_pipeline.store.records.retention import read_retention


def explain(settings: Settings, customer: str, month: BillingMonth | None, html: Path | None = None) -> Explained:
    """Explain a customer's keys, at one snapshot.

    Args:
        settings: Name the database, the scope and the limits.
        customer: By gateway_customer_id.
        month: None for the latest period of the customer.
        html: A file for the report, or None.

    Raises:
        ConfigurationError: The file cannot be written.
        ReconError: There is nothing of this customer.
    """
    if html is None:
        return explain_in(billing_database(settings), settings, customer, month)
    require_writable(html)
    explained = replace(explain_in(billing_database(settings), settings, customer, month), report=html)
    write_report(html, explained)
    return explained


def explain_in(
    database: BillingDatabase,
    settings: Settings,
    customer: str,
    month: BillingMonth | None,
    *,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    reads_archives: bool = True,
) -> Explained:
    """The same in a given database.

    Args:
        database: Which.
        settings: As for `explain`.
        customer: As for `explain`.
        month: As for `explain`.
        statement_timeout_ms: No statement takes longer.
        reads_archives: Whether to read the archive of a month whose events have left the log; that may take minutes.

    Raises:
        ReconError: Like `explain`.
    """
    first, last = (month, month) if month else known_months()
    with (
        database.connection() as connection,
        decision(
            connection,
            "REPEATABLE READ",
            statement_timeout_ms=statement_timeout_ms,
            idle_timeout_ms=STATEMENT_TIMEOUT_MS if reads_archives else IDLE_TIMEOUT_MS,
        ) as tables,
    ):
        keys = store.keys_of_customer(connection, customer, Extent(settings.scope, first, last))
        if not keys:
            require_known_customers(connection, [customer])
            raise ReconError(
                f"{customer} has neither a counter nor an event in "
                f"{', '.join(map(str, settings.scope))}, {f'month {month.key}' if month else 'in any month'}.",
                changed="Nothing was changed.",
                fix="Check the id (gateway_customer_id), the period, RECON_SCOPE and DATABASE_URL.",
            )
        wanted = keys[: store.KEYS_EXPLAINED] if month else keys[:1]
        latest = {
            run.run_id: run
            for key in wanted
            if (run := latest_of_key(connection, customer, key.usage, BillingMonth.containing(key.period_start)))
        }
        retention = read_retention(connection)
        is_compared = retention is None or all(retention.keeps(key.period_start) for key in wanted)
        return Explained(
            customer=customer,
            asked_at=now(connection),
            database=database.name,
            keys=keys,
            explanations=tuple(
                _explained(connection, settings, tables, customer, key, reads_archives=reads_archives) for key in wanted
            ),
            holds=tuple(one for one in holds.open_holds(connection) if one.gateway_customer_id == customer),
            blocked=tuple(run for run in latest.values() if run.outcome == "blocked"),
            pause=read_pause(connection),
            retention=None if is_compared else retention,
        )


def _explained(
    connection: Connection, settings: Settings, tables: BillingTables, customer: str, key: Key, *, reads_archives: bool
) -> Explanation:
    def by_log() -> Explanation:
        return store.explain(connection, customer, key, tables, settings.quotas, settings.paid_statuses)

    one = by_log()
    if not (one.is_sealed_elsewhere and reads_archives):
        return one
    from recon_pipeline.assets.archived_explanation import with_archive  # noqa: PLC0415 - slow

    try:
        return with_archive(connection, settings, tables, customer, key, by_log)
    except ReconError as error:
        return replace(one, archive_error=error.what)
