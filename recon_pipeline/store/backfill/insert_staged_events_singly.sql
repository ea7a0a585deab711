-- Inserts the events of a chunk one by one, after the log refused one of them: it records the refused one with the error and inserts the
-- others.
-- Invariant: only an error of the row itself counts as a refusal; a full disk, a lost privilege or a lock fails the whole chunk. The
-- setting recon.event_identity of the transaction contains the event identity, since a block takes no values. Where no unique key refuses
-- repetitions, an event that the application commits at this moment is not seen.
-- Index: as insert_staged_events.
-- After: create_staged_events, declare_identity
do $singly$
declare
    staged record;
    said text;
    more text;
    identity constant text[] := string_to_array(current_setting('recon.event_identity'), ',');
begin
    for staged in select * from pg_temp.staged_event order by ordinal loop
        begin
            insert into billing_usage_events (
                id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,
                period_start, period_end, event_timestamp, metadata
            )
            select
                staged.id, staged.gateway_name, staged.gateway_customer_id, staged.usage_type, staged.request_id,
                staged.quantity, staged.period_start, staged.period_end, staged.event_timestamp, cast(staged.metadata as jsonb)
            where not exists (
                select from billing_usage_events as event
                where event.gateway_name = staged.gateway_name and event.request_id = staged.request_id
                    and recon.are_one_event(
                        identity,
                        event.usage_type = staged.usage_type, event.gateway_customer_id = staged.gateway_customer_id,
                        event.period_start = staged.period_start, event.period_end = staged.period_end,
                        recon.are_one_instant(event.event_timestamp, staged.event_timestamp), true
                    )
            )
            on conflict do nothing;
        exception
            when data_exception or integrity_constraint_violation or program_limit_exceeded or raise_exception then
                get stacked diagnostics said = message_text, more = pg_exception_detail;
                update pg_temp.staged_event set refusal = concat_ws(': ', said, nullif(more, '')) where id = staged.id;
        end;
    end loop;
end
$singly$
