"""Stops `recon init`, and the SQL that it prints, before a subscription to the billing database would stop for good.

Invariant: nothing is added that a publication takes in, unless a person says that its subscribers can take it. Those of
a publication of all tables stop at schema recon itself, others at a new column of the log.
"""

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.log.publications import (
    OF_ALL_TABLES,
    OF_THE_LOG,
    publications,
    publications_of_all_tables,
)
from recon_pipeline.store.log.tables import EVENTS, describe_table
from recon_pipeline.store.postgres.database import begin

_ALL_TABLES = (
    "publishes all tables of this database, so also those that recon init creates in schema recon. Its subscriptions "
    "would stop at the first row of a table that they lack."
)
_LIST_THEM = (
    "Publish only the tables that are subscribed to: create publication the_tables for table ..., ...; Then at each "
    "subscriber: alter subscription ... set publication the_tables; Then here: drop publication {publication}; and run "
    "this again. Or, if what reads the publication is no subscription and takes new tables and columns: {ready}."
)
_NEW_COLUMN = "If it is given the column ingest_xid now, its subscriptions stop until their tables have that column."
_ADD_IT = (
    "First, at each subscriber: alter table {log} add column ingest_xid xid8; (any type that takes its text will do). "
    "Then here: {ready}. Or leave the log as it is{until}: {leave}."
)
_RAISING = """\
do $published$
declare
    found text;
begin
    select string_agg(pubname, ', ') into found from (
    {query}
    ) as publication;
    if found is not null then
        raise exception using
            message = replace('{said}', '%s', found) || ' Nothing was changed.',
            hint = replace('{fix}', '%s', found);
    end if;
end
$published$;"""
_READY, _LEAVE = "--subscribers-have-ingest-xid", "--without-ingest-xid"


def require_no_subscriber_of_all_tables(connection: Connection) -> None:
    """Stop before schema recon gets tables that a publication takes in.

    Raises:
        ReconError: There is such a publication.
    """
    found = publications_of_all_tables(connection)
    if found:
        raise ReconError(
            f"Publication {', '.join(found)} {_ALL_TABLES}",
            changed="Nothing was changed.",
            fix=_LIST_THEM.format(publication=", ".join(found), ready=f"recon init {_READY}"),
        )


def require_no_subscriber_of_the_log(connection: Connection) -> None:
    """Stop before a published log is given a column, which its subscribers would not have.

    Raises:
        ReconError: It is published, and has no such column yet.
    """
    with begin(connection):
        events, found = describe_table(connection, EVENTS), publications(connection)
    if events is not None and found:
        raise ReconError(
            f"{events.name} is published by logical replication (publication {', '.join(found)}). {_NEW_COLUMN}",
            changed="Schema recon is ready. The log was left as it is, and runs will read all of it.",
            fix=_ADD_IT.format(
                log=events.name,
                ready=f"recon init {_READY}",
                until=", now and at each later start",
                leave=f"recon init {_LEAVE}",
            ),
        )


def stopping_script(*, with_ingest_xid: bool) -> str:
    """The same as the first statements of a script: they end it with an error before it changes anything.

    Args:
        with_ingest_xid: The script also adds the column to the log.
    """
    ready = f"what recon init --print {_READY} prints"
    checks = [(OF_ALL_TABLES.text, f"Publication %s {_ALL_TABLES}", _LIST_THEM.format(publication="%s", ready=ready))]
    if with_ingest_xid:
        fix = _ADD_IT.format(log=EVENTS, ready=ready, until="", leave=f"what recon init --print {_LEAVE} prints")
        is_published = f"{EVENTS} is published by logical replication (publication %s). {_NEW_COLUMN}"
        checks.append((OF_THE_LOG.text, is_published, fix))
    return "-- Stops here if a subscription to this database would stop.\n" + "\n".join(
        _RAISING.format(query=query.strip(), said=said, fix=fix) for query, said, fix in checks
    )
