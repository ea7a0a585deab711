-- What Postgres has counted of changes to the counters: equal texts mean that it has seen none in between.
-- Invariant: read before the snapshot that it is kept with, so that a change which the snapshot does not see makes another text later. Changes
-- are counted some seconds after they commit; a crash, a reset of statistics or a rewritten table makes another text.
select
    case
        when current_setting('track_counts')::boolean then concat_ws(
            ' ',
            pg_postmaster_start_time(),
            (select stats_reset from pg_stat_database where datname = current_database()),
            string_agg(
                concat_ws(':', part.relid::oid, pg_relation_filenode(part.relid), pg_stat_get_tuples_deleted(part.relid)),
                ',' order by part.relid::oid
            )
        )
    end as kept,
    concat_ws(
        ':',
        sum(pg_stat_get_tuples_inserted(part.relid)),
        sum(pg_stat_get_tuples_updated(part.relid))
    ) as written
from (
    select to_regclass('billing_usage_counters') as relid
    union
    select relid from pg_partition_tree(to_regclass('billing_usage_counters'))
) as part
