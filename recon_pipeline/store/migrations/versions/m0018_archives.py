"""A sealed month may leave the log for files: where they are, and what proves that they are what was sealed."""

from alembic import op

revision = "0018"
down_revision = "0017"

_ARCHIVES = """
create table recon.archived_month (
    id bigint generated always as identity primary key,
    seal_id bigint not null,
    archived_at timestamptz not null default clock_timestamp(),
    archived_by text not null,
    run_id text,
    seen pg_snapshot not null,
    folder text not null,
    manifest_checksum text not null,
    file_count bigint not null,
    row_count bigint not null,
    byte_count bigint not null
);
create index archived_month_by_seal on recon.archived_month (seal_id);
create trigger archived_month_is_append_only
    before update or delete or truncate on recon.archived_month
    for each statement execute function recon.refuse_change();
comment on table recon.archived_month is
    'Append only: the archives of sealed months, each read back before it was recorded. The newest of a seal counts.';
comment on column recon.archived_month.seen is
    'The snapshot at which the events were read: events that it does not see are in no file.';
comment on column recon.archived_month.folder is 'Where the files and their manifest are; never holds a password.';
comment on column recon.archived_month.manifest_checksum is
    'SHA-256 of the manifest, which holds that of each file.';
comment on column recon.archived_month.row_count is 'Rows in the files, those that do not count too.';
"""


def upgrade() -> None:
    """Create the record of archives."""
    op.execute(_ARCHIVES)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
