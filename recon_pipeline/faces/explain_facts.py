"""An explanation in sentences and tables, the same in the terminal and in the report."""

from collections.abc import Iterator
from datetime import date

from recon_pipeline.core.periods import instant_in_words
from recon_pipeline.store.parity.monitored import ParityOfKey
from recon_pipeline.store.records.explain import Explanation, Key


def verdict(one: Explanation) -> str:
    """Counter and log, or what stands in its place in the month, in a sentence."""
    counter = "no row" if one.key.usage_count is None else f"{one.key.usage_count:,}"
    followed = (
        "the event sum" if one.seal is None else "the sealed sum" if one.seal.is_sealed else "the sum in the lake"
    )
    difference = one.difference if one.seal is None else (one.key.usage_count or 0) - one.seal.usage_count
    if difference == 0:
        return f"{counter}: equals {followed}"
    return f"{counter}: {abs(difference):,} {'above' if difference > 0 else 'below'} {followed}"


def facts(one: Explanation) -> Iterator[tuple[str, str]]:
    """The facts of a key, each a name and a sentence; only those that exist."""
    sums, limit = one.sums, one.limit
    yield "counter", verdict(one)
    if one.key.left_alone_as is not None:
        yield (
            "left alone",
            one.key.left_alone_as + (f": {one.key.left_alone_because}" if one.key.left_alone_because else ""),
        )
    if one.seal is not None:
        yield (
            "counted in the lake"
            if not one.seal.is_sealed
            else "sealed, of a count in the lake"
            if one.seal.is_of_lake
            else "sealed",
            f"{one.seal.usage_count:,} in {one.seal.event_count:,} events, by {one.seal.acted_by} on "
            f"{one.seal.acted_at:%Y-%m-%d %H:%M} UTC; "
            + ("what comes after" if one.seal.is_sealed else "what the log in Postgres says")
            + " changes no counter",
        )
        if one.seal.archived_folder is not None:
            yield "archived", f"in {one.seal.archived_folder}; {_read_from(one)}"
        elif not one.seal.is_of_lake and (sums.usage_count, sums.event_count) != (
            one.seal.usage_count,
            one.seal.event_count,
        ):
            yield (
                "since then",
                f"{sums.usage_count - one.seal.usage_count:+,} units, {sums.event_count - one.seal.event_count:+,} "
                "events in the log: recon corrections",
            )
    yield "event sum", f"{sums.usage_count:,} in {sums.event_count:,} events"
    if one.stripe is not None:
        yield "Stripe", _at_stripe(one.stripe)
    if limit.units is None:
        yield "limit", f"{'none' if limit.is_known else 'unknown'} ({limit.source})"
    else:
        yield "limit", f"{limit.units:,} ({limit.source})"
        yield "quota", _quota(one.key.usage_count or 0, limit.units)
    for crossing in one.crossings:
        reached = f"reached on {crossing.day:%Y-%m-%d}" if crossing.day else "not reached"
        yield f"limit {crossing.name}", f"{crossing.units:,}: {reached}"
    if sums.late_count:
        hours = (sums.latest_by_seconds or 0) / 3600
        yield (
            "late arrivals",
            f"{sums.late_count:,} events with {sums.late_usage:,} units arrived more than an hour after they happened, "
            f"the last of them by {hours:,.1f} hours",
        )
    if sums.imported_count:
        yield (
            "imported",
            f"{sums.imported_count:,} events happened before the customer's first event arrived: they are history that "
            "was imported",
        )
    if sums.repeated_count:
        yield "duplicates", f"{sums.repeated_count:,} events repeat a request id; they are not counted"
    if sums.invalid_count:
        yield "invalid", f"{sums.invalid_count:,} events are invalid; they are not counted"
    if sums.outside_period_count:
        yield "outside", f"{sums.outside_period_count:,} events happened outside of their period; they are counted"


def _read_from(one: Explanation) -> str:
    if one.archive_error is not None:
        return f"not read: {one.archive_error} What follows is of the log alone, which need not have these events"
    if one.events_from != "log":
        return "what follows is of the archive's events and of those that the log has"
    return "the log has these events too"


def _at_stripe(compared: ParityOfKey) -> str:
    at = f"compared on {compared.compared_at:%Y-%m-%d %H:%M} UTC"
    if compared.error is not None:
        return f"refused: {compared.error}; {at}"
    if compared.provider_units is None:
        return f"not asked: no event names a customer of Stripe's; {at}"
    figures = f"{compared.provider_units:,f} at Stripe, {compared.compared_log_units:,f} sent by the log's timestamps"
    is_equal = compared.provider_units == compared.compared_log_units
    elsewhere = "equal" if is_equal else "listed with another customer who is the same one of Stripe's"
    return f"{figures}, {', '.join(compared.kinds) or elsewhere}; {at}"


def _quota(counter: int, units: int) -> str:
    if counter >= units:
        return f"over: {counter - units:,} above the limit, so requests are denied"
    return f"{units - counter:,} left"


def period_name(key: Key) -> str:
    """The metered usage and the period of a key, for a person."""
    bounds = f"{instant_in_words(key.period_start)} to {instant_in_words(key.period_end)}"
    return f"{key.gateway_name}:{key.usage_type}, {bounds}"


def crossed_on(one: Explanation, day: date) -> str:
    """The limits that were reached on a day."""
    return ", ".join(f"{crossing.name} limit" for crossing in one.crossings if crossing.day == day)


Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]


def repairs_table(one: Explanation) -> Rows:
    """Headings and rows."""
    return ("at (UTC)", "kind", "before", "after", "added", "run"), [
        (
            f"{repair.repaired_at:%Y-%m-%d %H:%M}",
            repair.kind,
            "no row" if repair.usage_count_before is None else f"{repair.usage_count_before:,}",
            f"{repair.usage_count_after:,}",
            f"{repair.usage_delta:+,}",
            repair.run_id[:8],
        )
        for repair in one.repairs
    ]


def producers_table(one: Explanation) -> Rows:
    """Headings and rows."""
    return ("request ids", "device", "events", "usage", "first (UTC)", "last (UTC)"), [
        (
            producer.pattern,
            producer.device or "-",
            f"{producer.event_count:,}",
            f"{producer.usage_count:,}",
            f"{producer.first_at:%m-%d %H:%M}" if producer.first_at else "-",
            f"{producer.last_at:%m-%d %H:%M}" if producer.last_at else "-",
        )
        for producer in one.producers
    ]


def days_table(one: Explanation) -> Rows:
    """Headings and rows."""
    return ("day", "events", "usage", "total", "limit reached"), [
        (
            f"{day.day:%Y-%m-%d}",
            f"{day.event_count:,}",
            f"{day.usage_count:,}",
            f"{day.running_total:,}",
            crossed_on(one, day.day),
        )
        for day in one.days
    ]


def bursts_table(one: Explanation) -> Rows:
    """Headings and rows."""
    return ("minute", "events", "usage"), [
        (f"{burst.minute:%Y-%m-%d %H:%M}", f"{burst.event_count:,}", f"{burst.usage_count:,}") for burst in one.bursts
    ]
