"""Publications by logical replication: a subscription stops at the first row that its own tables cannot take.

Such a row has a column that is added to the published log, or it is of a table that a publication of all tables takes
in as soon as it is created.
"""

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

# The publications that would publish the column ingest_xid of the log or of a partition; none if the log has it.
# Invariant: a publication that lists the columns of the log publishes no other.
OF_THE_LOG = labelled(
    "publications_of_log",
    """
    with part as (
        select to_regclass('billing_usage_events')::oid as relid
        union
        select relid from pg_partition_tree(to_regclass('billing_usage_events'))
    )
    select distinct publication.pubname
    from pg_publication as publication
    join part on true
    join pg_class as relation on relation.oid = part.relid
    left join pg_publication_rel as listed
        on listed.prpubid = publication.oid and listed.prrelid = part.relid
    left join pg_publication_namespace as named
        on named.pnpubid = publication.oid and named.pnnspid = relation.relnamespace
    where
        (
            publication.puballtables
            or named.oid is not null
            or (listed.oid is not null and listed.prattrs is null)
        )
        and not exists (
            select 1
            from pg_attribute
            where attrelid = to_regclass('billing_usage_events') and attname = 'ingest_xid' and not attisdropped
        )
    order by publication.pubname
    """,
)

# The publications that publish each table of this database, so also each that is created later.
OF_ALL_TABLES = labelled(
    "publications_of_all_tables", "select pubname from pg_publication where puballtables order by pubname"
)


def publications(connection: Connection) -> tuple[str, ...]:
    """The names of the publications that would publish the column ingest_xid if the log got it now."""
    return tuple(connection.execute(OF_THE_LOG).scalars())


def publications_of_all_tables(connection: Connection) -> tuple[str, ...]:
    """The names of the publications that would publish the tables of schema `recon`."""
    return tuple(connection.execute(OF_ALL_TABLES).scalars())
