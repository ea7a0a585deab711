-- Takes back what look_up_by_index set, within the same transaction: for statements that read a great deal at once.
select set_config(name, reset_val, true)
from pg_settings
where name in ('enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit')
