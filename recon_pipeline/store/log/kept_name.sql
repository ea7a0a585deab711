-- Part of key_figures: the customer of an event, or the empty name where it belongs to no key that could be kept.
case
    when octet_length(event.gateway_customer_id) <= 1000 and event.period_end is not null then event.gateway_customer_id
    else ''
end
