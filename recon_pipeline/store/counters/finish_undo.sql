-- Closes the record of an undo.
-- Index: the primary key of recon.undo.
-- Binds: already_undone bigint, below_zero bigint, deferred bigint, failed bigint, not_undone jsonb, run_id text
-- Binds: sealed bigint, undone bigint, without_counter bigint
update recon.undo
set
    finished_at = clock_timestamp(),
    undone = :undone,
    already_undone = :already_undone,
    below_zero = :below_zero,
    without_counter = :without_counter,
    deferred = :deferred,
    failed = :failed,
    sealed = :sealed,
    not_undone = cast(:not_undone as jsonb)
where run_id = :run_id
returning *
