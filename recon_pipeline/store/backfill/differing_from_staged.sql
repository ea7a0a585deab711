-- Part of other statements: the names of what is billed otherwise by two events of one request id.
array_remove(array[
    case when event.gateway_customer_id is distinct from staged.gateway_customer_id then 'gateway_customer_id' end,
    case when event.usage_type is distinct from staged.usage_type then 'usage_type' end,
    case when event.quantity is distinct from staged.quantity then 'quantity' end,
    case when event.period_start is distinct from staged.period_start then 'period_start' end,
    case when event.period_end is distinct from staged.period_end then 'period_end' end
], null)
