"""Each doubt of a key is kept by a name of its own: a key can have several, and a reason in words is for people."""

from alembic import op

revision = "0016"
down_revision = "0015"

_DOUBTS = """
create function recon.and_doubt(doubts text[], doubt text) returns text[]
language sql immutable as $and$
    select case when doubt is null or doubt = any(doubts) then doubts else array_append(doubts, doubt) end
$and$;
comment on function recon.and_doubt is 'The doubts of a key with one more, which may be null or among them.';

alter table recon.counter_drift add doubts text[] not null default '{}';
comment on column recon.counter_drift.doubts is
    'What about the log makes the key doubtful; also where it is left alone for another reason.';

alter table recon.open_key add doubts text[] not null default '{}';
comment on column recon.open_key.doubts is
    'What about the log made the key doubtful since its counter last matched.';
-- Which of two doubts about its period a key had is in the reason that a run recorded, unless a later one replaced it.
update recon.open_key
set doubts = case
    when starts_with(doubt, 'identity ')
        then array[case when doubt like '%, credits' then 'shared identity, credits' else 'shared identity' end]
    when doubt <> 'periods' then array[doubt]
    when starts_with(error, 'one usage under two periods') then array['under two periods']
    when starts_with(error, 'one period written in two ways') then array['written twice']
    else array['under two periods', 'written twice']
end
where doubt is not null;
alter table recon.open_key drop column doubt;
"""


def upgrade() -> None:
    """Add the columns; what was kept as one doubt becomes the only one."""
    op.execute(_DOUBTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
