"""Whether counters can follow the log below 0: an owner who declares credits may have forbidden it in the table."""

from sqlalchemy import Connection

from recon_pipeline.core.findings import Finding, noted, passed
from recon_pipeline.store.postgres.statements import labelled

# The check constraints of the counters that refuse a usage_count below 0.
# Index: the catalog's own.
_REFUSING_NEGATIVE = labelled(
    "constraints_refusing_negative_counters",
    """
    select quote_ident(conname) as name, pg_get_constraintdef(oid) as definition
    from pg_constraint
    where conrelid = to_regclass('billing_usage_counters')
        and contype = 'c'
        and pg_get_constraintdef(oid) ~ 'usage_count[^ ]* >=? [(]*''?-?[01]([^0-9]|$)'
    order by conname
    """,
)


def check_negative_counters(connection: Connection) -> Finding:
    """Whether a counter can follow credits below 0, where the owner has declared that there are some."""
    name = "negative sums"
    refusing = connection.execute(_REFUSING_NEGATIVE).all()
    if not refusing:
        return passed(name, "RECON_NEGATIVE_QUANTITIES=sum, and a counter can be below 0")
    named = ", ".join(f"{one.name} {one.definition}" for one in refusing)
    dropped = ", ".join(f"drop constraint {one.name}" for one in refusing)
    return noted(
        name,
        f"RECON_NEGATIVE_QUANTITIES=sum, but billing_usage_counters has {named}: a counter whose events add up to less "
        "than 0 cannot be repaired, and its run is not clean",
        f"If customers can have more credits than usage: alter table billing_usage_counters {dropped};",
    )
