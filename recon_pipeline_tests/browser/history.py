"""What runs, alerts and people would have left in schema recon, written there at once: a page looks at nothing else."""

from datetime import timedelta

import psycopg

_RUN = """
    insert into recon.reconciliation_run (run_id, started_at, finished_at, outcome, mode, scope, first_partition,
        last_partition, events_scanned, counters_scanned, drift_count, rows_repaired, deferred_count, dedupe_count,
        reconcile_failures, mismatch_count, error)
    select coalesce(%(run_id)s, gen_random_uuid()::text), at, at + interval '1.4 seconds', %(outcome)s, 'incremental',
        array['stripe:remote_commands'], to_char(at at time zone 'UTC' - interval '1 month', 'YYYY-MM'),
        to_char(at at time zone 'UTC', 'YYYY-MM'), 2103, 370, %(drift)s, %(repaired)s, 0, 0, 0, %(left)s, %(error)s
    from (select clock_timestamp() - %(ago)s::interval as at) as moment
"""
_ALARM = """
    insert into recon.alert_state (subject, severity, partitions, details, failing_since, told_at)
    values (%s, %s, array[to_char(now() at time zone 'UTC', 'YYYY-MM')], %s, now() - %s::interval, now())
"""
_HOLDS = """
    insert into recon.hold (gateway_customer_id, partition, reason, held_by, until)
    select 'cus_' || lpad(n::text, 6, '0'), case when n %% 3 = 0 then '2026-10' end,
        'TICKET-' || n || ': invoice disputed', 'maria', clock_timestamp() + n * interval '1 hour'
    from generate_series(1, %s) as n
"""
_TABLES = "reconciliation_run, alert_state, alert_outbox, alert_delivery, hold"
SHOWN = "0c1d7a52-5be0-4c4e-9d0e-3f5a8e1b2c44"
"""The run that an alarm of the next text names."""
BLOCKED = (
    "Blocked: 779 counters would be repaired (share 0.1 of 779 keys, at least 50); RECON_MAX_REPAIR_SHARE allows 77.\n"
    "No counter was changed.\nWhat to do: Look at the sample of what would be repaired. If it is right:\n"
    'recon reconcile --all --approve-run 0c1d7a52 --approve "your reason"\n'
    "Or in the UI: job reconcile, Materialize all, partitions [2025-01...2026-11], Config, Add config, with your "
    "reason:\n"
    'resources: {reconciler: {config: {approve_reason: "your reason", approve_run: "0c1d7a52"}}}\n'
    "RECON_MAX_REPAIR_SHARE allows 77, drift_count 779\n"
    "  usage_type remote_commands, gateway_customer_id cus_000186, kind over, usage_count 61, event_sum 54\n"
    "http://127.0.0.1:3000/assets/counter_drift?view=checks&checkDetail=drift_is_within_budgets"
)


class History:
    """Writes it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """Take a connection that commits by itself."""
        self._connection = connection

    def forget(self) -> None:
        """Nothing has happened yet."""
        tables = ", ".join(f"recon.{name}" for name in _TABLES.split(", "))
        self._connection.execute(f"truncate {tables}".encode())
        self._connection.execute("insert into recon.control (action, acted_by) values ('resume', 'maria')")

    def run(
        self,
        outcome: str,
        *,
        ago: timedelta = timedelta(),
        drift: int = 0,
        left: int = 0,
        error: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """One run over every customer."""
        figures = {"drift": drift, "repaired": drift - left if outcome in ("clean", "not_clean") else 0, "left": left}
        self._connection.execute(
            _RUN.encode(), {"run_id": run_id, "outcome": outcome, "ago": ago, "error": error, **figures}
        )

    def week(self) -> None:
        """A run in most spans of a week, as it may go."""
        for hour in range(1, 7 * 24):
            if 60 <= hour < 67:
                continue  # the daemon was down
            drift = (hour * 7919) % 11 * (hour % 3 == 0)
            if hour == 30:
                self.run("blocked", ago=timedelta(hours=hour), drift=64, error="Blocked.")
            elif hour == 29:
                self.run("not_clean", ago=timedelta(hours=hour), drift=64, left=12)
            else:
                self.run("clean", ago=timedelta(hours=hour), drift=drift)

    def alarm(self, subject: str, severity: str, details: str, *, ago: timedelta) -> None:
        """Something fails."""
        self._connection.execute(_ALARM.encode(), (subject, severity, details, ago))

    def pause(self, reason: str) -> None:
        """Somebody has paused repairs."""
        self._connection.execute(
            "insert into recon.control (action, reason, acted_by) values ('pause', %s, 'maria')", (reason,)
        )

    def hold(self, count: int) -> None:
        """So many customers are held."""
        self._connection.execute(_HOLDS.encode(), (count,))

    def hold_one(self, customer: str, reason: str) -> None:
        """One is."""
        self._connection.execute(
            "insert into recon.hold (gateway_customer_id, reason, held_by, until) "
            "values (%s, %s, 'maria', clock_timestamp() + interval '2 days')",
            (customer, reason),
        )
