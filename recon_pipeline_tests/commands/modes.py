"""In which mode runs are, as each command tells it, and what the catalog holds of `ingest_xid`."""

import os
import re
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

from recon_pipeline_tests.commands.conftest import CommandResult, recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.acceptance import accept_usages
from recon_pipeline_tests.support.assets import run_assets

MAY = ("--period", "2025-05", "--json")
FOLLOWED = "1000000"
XID_INDEXES = """
    select
        index.indrelid::regclass::text as on_table, index.indexrelid::regclass::text as name,
        index.indisvalid as is_valid
    from pg_index as index
    join pg_attribute as first on first.attrelid = index.indrelid and first.attnum = index.indkey[0]
    where first.attname = 'ingest_xid'
    order by 1, 2
"""
TRIGGERS = """
    select tgrelid::regclass::text as on_table, tgname as name
    from pg_trigger
    where tgname like 'recon\\_note\\_%'
    order by 1, 2
"""


def finding(requirement: str) -> dict[str, Any]:
    """What doctor says of a requirement; empty where it says nothing."""
    found = [one for one in recon("doctor", "--json").json["findings"] if one["requirement"] == requirement]
    return found[0] if found else {}


def mode() -> tuple[str, str | None]:
    """Mode and reason, as status tells them; doctor must say the same, in both of their outputs."""
    status, mode_of_doctor = recon("status", "--json").json, finding("mode")
    known, reason = status["mode"], status["mode_reason"]
    assert mode_of_doctor["verdict"] == ("pass" if known == "incremental" else "note")
    assert mode_of_doctor["detail"].startswith(known)
    assert f"Mode {known}" in recon("status").said
    if known == "full":
        assert reason in mode_of_doctor["detail"]
        assert reason in recon("status").said
    else:
        assert reason is None
    return known, reason


def is_incremental() -> bool:
    """Whether every command says so."""
    return mode() == ("incremental", None)


def run_may() -> dict[str, Any]:
    """The record of a clean run over May; a person has accepted the usage, and what leaves the log is followed."""
    accept_usages(os.environ["DATABASE_URL"])
    with patch.dict(os.environ, RECON_MAX_EVENTS_LEFT=FOLLOWED):
        record = run_assets().record
    assert record.outcome == "clean", record.error
    return asdict(record)


def statements(output: CommandResult) -> list[str]:
    """What a person is asked to run by hand, each as it stands there."""
    return re.findall(r"^  (\S.*);$", output.out, flags=re.MULTILINE)


def xid_indexes(billing: Billing) -> list[tuple[str, bool]]:
    """Table and validity of every index on `ingest_xid`."""
    return [(row.on_table, row.is_valid) for row in billing.query(XID_INDEXES)]
