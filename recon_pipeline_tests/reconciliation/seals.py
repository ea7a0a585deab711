"""Seals as the commands write them, through the store's functions."""

from recon_pipeline.assets.archived_corrections import corrections_beside_archive
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.settings import read_settings
from recon_pipeline.store.counters import corrections, reopening, sealing, verify_seals
from recon_pipeline.store.counters.corrections import Correction
from recon_pipeline.store.counters.seal_records import RecordedSeal
from recon_pipeline.store.counters.sealing import Sealed
from recon_pipeline.store.counters.verify_seals import VerifiedSeals
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.sums.run import Reconciliation
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import SCOPE, new_run

MONTH = "2025-05"


def database(billing: Billing) -> BillingDatabase:
    """As the commands open it, with the identity of events that the environment declares."""
    return BillingDatabase(billing.url, event_identity=read_settings().event_identity)


def seal(billing: Billing, month: str = MONTH, *, scope: tuple[MeteredUsage, ...] = SCOPE) -> tuple[Sealed, ...]:
    """Seal a month."""
    question = new_run(billing.url, first=month, last=month, scope=scope).question
    with (
        database(billing).connection() as connection,
        decision(connection, "REPEATABLE READ") as tables,
    ):
        return sealing.seal(connection, question, tables, sealed_by="ada", reason=None, dagster_run_id=None)


def reopen(billing: Billing, month: str = MONTH, *, reason: str = "TICKET-7: wrong price") -> None:
    """Make it an ordinary month again."""
    question = new_run(billing.url, first=month, last=month).question
    with database(billing).connection() as connection, decision(connection) as tables:
        reopening.reopen(connection, question, tables, reason=reason, reopened_by="ada")


def verify(billing: Billing, *, in_log_from: str | None = None, kept_chain: str | None = None) -> VerifiedSeals:
    """Compute every seal again."""
    first = None if in_log_from is None else BillingMonth.parse(in_log_from)
    with (
        database(billing).connection() as connection,
        decision(connection, "REPEATABLE READ") as tables,
    ):
        return verify_seals.verify_seals(
            connection, new_run(billing.url).question, tables, in_log_from=first, kept_chain=kept_chain
        )


def corrections_of(billing: Billing, month: str = MONTH) -> dict[str, Correction]:
    """What came after a month was sealed, by customer."""
    with (
        database(billing).connection() as connection,
        decision(connection, "REPEATABLE READ") as tables,
    ):

        def beside_archive(run: Reconciliation, seal: RecordedSeal) -> list[Correction]:
            return corrections_beside_archive(connection, read_settings(), run, tables, seal)

        months = [BillingMonth.parse(month)]
        question = new_run(billing.url).question
        found = corrections.corrections(connection, question, tables, months, beside_archive=beside_archive)
    return {one.gateway_customer_id: one for one in found}
