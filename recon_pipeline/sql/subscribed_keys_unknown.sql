-- Part of other statements: no key is known to be subscribed, because there is no table billing_subscriptions.
-- Invariant: the statement around it is told that limits are unknown and says so instead of guessing.
select drifted.gateway_customer_id, drifted.period_start, drifted.period_end
from drifted
where false
