-- Part of other statements: whether the sums of a key of recon.parity_key are counted. Keys of a period that share a customer of the
-- provider's have one sum, that of all of them: the last that was compared stands for it.
-- Index: none of its own.
provider_units is not null and 1 = row_number() over (
    partition by
        gateway_name, usage_type, provider_customer is null,
        coalesce(provider_customer, gateway_customer_id), period_start, period_end
    order by provider_units is null, compared_at desc, gateway_customer_id
)
