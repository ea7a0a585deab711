"""Whether periods of counters and of subscriptions begin and end at one time of day, as limits take for granted.

Where they do not, the paid limit of a subscription covers no period of the log, and its customer has the free one.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from recon_pipeline.core.errors import one_line
from recon_pipeline.core.findings import Finding, noted, passed
from recon_pipeline.core.periods import instant_in_words
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# The counters with the period of a paid subscription but for less than a day at either end, which it does not cover.
# Index: none: counters and subscriptions are read once and hashed by customer; only recon doctor asks.
# Binds: gateway_name text, paid_statuses text[], usage_type text
_NEARLY_COVERED = labelled(
    "nearly_covered_counters",
    """
    select
        count(*) over () as counters,
        counter.gateway_customer_id,
        (counter.period_start at time zone 'UTC')::text as period_start,
        (counter.period_end at time zone 'UTC')::text as period_end,
        (subscription.current_period_start at time zone 'UTC')::text as began_at,
        (subscription.current_period_end at time zone 'UTC')::text as ends_at
    from billing_usage_counters as counter
    join billing_subscriptions as subscription
        on subscription.gateway_customer_id = counter.gateway_customer_id
        and subscription.gateway_name = counter.gateway_name
    where counter.gateway_name = :gateway_name
        and counter.usage_type = :usage_type
        and subscription.status::text = any(:paid_statuses)
        and subscription.current_period_start > counter.period_start - interval '1 day'
        and subscription.current_period_start < counter.period_start + interval '1 day'
        and subscription.current_period_end > counter.period_end - interval '1 day'
        and subscription.current_period_end < counter.period_end + interval '1 day'
        and not (
            subscription.current_period_start <= counter.period_start + interval '1 second'
            and subscription.current_period_end >= counter.period_end - interval '1 second'
        )
    order by counter.period_start desc, counter.gateway_customer_id
    limit 1
    """,
)


def check_bounds(
    connection: Connection, scope: Sequence[MeteredUsage], *, limited: Collection[str], paid_statuses: Sequence[str]
) -> Finding:
    """Whether a paid subscription covers each counter whose period is its own but for the time of day.

    Args:
        connection: In a transaction.
        scope: Which metered usages.
        limited: The usage types that have limits.
        paid_statuses: With which a subscription gives its customer the paid limit.
    """
    name = "subscription periods"
    said: list[str] = []
    for usage in scope:
        if usage.usage_type not in limited:
            continue
        asked = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type}
        found = connection.execute(_NEARLY_COVERED, asked | {"paid_statuses": list(paid_statuses)}).one_or_none()
        if found is not None:
            bounds = [
                f"{instant_in_words(start)} to {instant_in_words(end)}"
                for start, end in ((found.period_start, found.period_end), (found.began_at, found.ends_at))
            ]
            said.append(
                f"{found.counters:,} counters of {usage} have the period of a paid subscription, but other times of "
                f"day, so that it does not cover them, and the free limit is theirs; for example "
                f"{one_line(found.gateway_customer_id)}: counter {bounds[0]}, subscription {bounds[1]}"
            )
    if not said:
        return passed(name, "none has the days of a counter's period and other times of day")
    return noted(
        name,
        "; ".join(said),
        "Have the application write events and counters with the bounds of the subscription, or keep those of the log "
        "in billing_subscriptions.",
    )
