"""Publications of the log: a column that is added to a published table stops its subscribers until they have it too."""

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

# The publications that would publish a new column of the log, or of any of its partitions.
# Invariant: a publication that lists the columns of the log publishes no other.
_PUBLICATIONS = labelled(
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
    where publication.puballtables
        or named.oid is not null
        or (listed.oid is not null and listed.prattrs is null)
    order by publication.pubname
    """,
)


def publications(connection: Connection) -> tuple[str, ...]:
    """The names of the publications that would publish a new column of the log."""
    return tuple(connection.execute(_PUBLICATIONS).scalars())
