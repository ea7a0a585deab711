-- Who sent the usage of one key: request ids with what differs between requests taken out, and the device in the metadata.
-- Invariant: a table without the column metadata has no devices; at most a few rows, the largest first.
-- Index: as {countable_of_key} says.
-- Uses: countable_of_key
-- Binds: rows bigint
select
    producer.pattern,
    producer.device,
    count(*) as event_count,
    sum(producer.quantity)::numeric as usage_count,
    min(producer.event_timestamp) as first_at,
    max(producer.event_timestamp) as last_at
from (
    select
        countable.quantity,
        countable.event_timestamp,
        left(
            regexp_replace(
                regexp_replace(
                    countable.request_id, '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}', '*', 'g'
                ),
                '[0-9a-fA-F]*[0-9][0-9a-fA-F]*', '*', 'g'
            ),
            80
        ) as pattern,
        left(coalesce(context.contents #>> '{device,id}', context.contents ->> 'device_id', context.contents ->> 'device', ''), 80) as device
    from ({countable_of_key}) as countable
    cross join lateral (select to_jsonb(countable) -> 'metadata' as contents) as context
) as producer
group by producer.pattern, producer.device
order by usage_count desc, producer.pattern, producer.device
limit :rows
