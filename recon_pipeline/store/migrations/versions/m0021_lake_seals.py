"""Seals of months that follow a lake: which count the sealed sums are of."""

from alembic import op

revision = "0021"
down_revision = "0020"

_SEALS = """
alter table recon.month_seal add column lake_source jsonb;
comment on column recon.month_seal.lake_source is
    'Of a month that followed the lake: the count that was sealed, its engine, lake, mapping, files; null: the log.';

create or replace view recon.stand_in as
    select
        seal.id as seal_id, seal.gateway_name, seal.usage_type, seal.partition, seal.nonzero_count,
        case when seal.lake_source is null then seal.acted_at else 'infinity' end as covers_until,
        coalesce((seal.lake_source ->> 'complete_until')::timestamptz, 'infinity') as complete_until
    from recon.sealed_month
    join recon.month_seal as seal on seal.id = sealed_month.seal_id
    union all
    select id, gateway_name, usage_type, partition, nonzero_count, 'infinity', complete_until
    from (
        select distinct on (gateway_name, usage_type, partition) *
        from recon.lake_count
        order by gateway_name, usage_type, partition, id
    ) as newest
    where kind = 'counted'
        and (gateway_name, usage_type, partition)
        not in (select gateway_name, usage_type, partition from recon.sealed_month);
"""


def upgrade() -> None:
    """Let a seal say which count in the lake it is of."""
    op.execute(_SEALS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
