"""Databases whose first run a person has approved: what most tests are about happens after that."""

import psycopg

_ACCEPT = """
    insert into recon.accepted_usage (gateway_name, usage_type, accepted_by, reason)
    select 'stripe', usage_type, 'tests', 'this is not about the first run'
    from unnest(array['remote_commands', 'sms_messages', 'llm_tokens']) as usage_type
    on conflict do nothing
"""


def accept_usages(url: str) -> None:
    """Let runs repair what the tests meter, as if somebody had approved it in the first run."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_ACCEPT)
