"""A sealed month is written as files that hold the log exactly, and is recorded only once they were read back."""

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from recon_pipeline.assets import archiving
from recon_pipeline.core.errors import ReconError
from recon_pipeline_tests.reconciliation.archives import archive, rows_in
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.seals import reopen, seal
from recon_pipeline_tests.reconciliation.test_archived_months import verified
from recon_pipeline_tests.reconciliation.test_sealed_months import BY_START, fill
from recon_pipeline_tests.support.assets import run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
CUSTOMERS = customers(6)
ONE = CUSTOMERS[0]
ODD_COLUMNS = """
    alter table billing_usage_events
        alter quantity type numeric,
        drop constraint billing_usage_events_quantity_check,
        drop constraint billing_usage_events_check,
        add "Owner's column" text, add bytes bytea, add amounts numeric[], add ratio numeric, add day date,
        add net inet, add moment timestamp, add kind char(4), add yes boolean, add measured real,
        add counted_in bigint, add tags jsonb;
"""
ODD_VALUES = {
    "Owner's column": 'naïve 東京 \x01 "quoted"\n',
    "bytes": b"\x00\xff\x00",
    "amounts": "{1.5,NULL,NaN}",
    "ratio": "12345678901234567890123456789012345678.123456789012345678901234567890",
    "day": "2025-05-31",
    "net": "2001:db8::1/64",
    "moment": "infinity",
    "kind": "a",
    "yes": True,
    "measured": 0.1,
    "counted_in": 2**63 - 1,
    "tags": '{"a": [1, null], "b": "\\u00e9"}',
}


@pytest.fixture(autouse=True)
def no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands")


@pytest.fixture
def sealed(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    billing = fill(make_billing_in_mode(mode))
    seal(billing)
    return billing


def recorded(billing: Billing) -> list[Any]:
    return billing.query(
        "select folder, file_count, row_count, byte_count, manifest_checksum from recon.archived_month"
    )


@EVERY_MODE
def test_an_archive_holds_every_event_of_the_month_and_is_recorded_with_its_manifest(
    sealed: Billing, tmp_path: Path
) -> None:
    before = sealed.log_checksum()
    done = archive(sealed, tmp_path)
    (one,) = done.months
    ((folder, file_count, row_count, byte_count, checksum),) = recorded(sealed)
    assert Path(folder).parent == tmp_path / "month=2025-05" / "gateway=stripe" / "usage=remote_commands"
    written = (Path(folder) / "manifest.json").read_bytes()
    assert hashlib.sha256(written).hexdigest() == checksum == one.archive.manifest_checksum
    manifest = json.loads(written)
    (file,) = manifest["files"]
    content = (Path(folder) / file["name"]).read_bytes()
    assert (file["row_count"], file["byte_count"], file["sha256"]) == (
        12,
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert (file_count, row_count, byte_count) == (1, 12, len(content))
    assert (manifest["seal_id"], manifest["seal_checksum"]) == (one.seal.id, one.seal.seal.checksum)
    rows = rows_in(tmp_path)
    columns = sealed.query("select attname from pg_attribute where attrelid = 'billing_usage_events'::regclass "
                           "and attnum > 0 and not attisdropped order by attnum")  # fmt: skip
    assert rows.column_names == [*(name for (name,) in columns), "recon_counted"]
    assert sorted(rows["quantity"].to_pylist()) == [4] * 6 + [6] * 6
    assert set(rows["recon_counted"].to_pylist()) == {True}
    assert sealed.log_checksum() == before, "the log is the owner's"


@EVERY_MODE
def test_columns_that_we_do_not_know_and_values_that_parquet_has_no_type_for_are_kept_as_postgres_has_them(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode, ODD_COLUMNS)
    wide = "9" * 39
    billing.add_event(ONE, 6, request_id="odd é", **ODD_VALUES, event_timestamp="infinity")
    billing.add_event(ONE, "4.50", request_id="fraction", event_timestamp="-infinity", ratio="NaN")
    billing.add_event(ONE, "-0.5", request_id="credit", event_timestamp="1969-12-31 23:59:59.5Z")
    billing.add_event(ONE, wide, request_id="wide", event_timestamp="2025-05-07 12:00:00.000001Z")
    billing.add_event(ONE, f"-{wide}", request_id="taken back", event_timestamp=None)
    billing.add_event(ONE, "NaN", request_id="not finite")
    billing.add_counter(ONE, 10)
    seal(billing)
    archive(billing, tmp_path)
    rows = {row["request_id"]: row for row in rows_in(tmp_path).to_pylist()}
    odd = rows["odd é"]
    kept_as_text = billing.query(
        """
        select "Owner's column", bytes, amounts::text, ratio::text, day, net::text, moment::text, kind, yes, measured,
            counted_in, tags::text, quantity::text, event_timestamp::text
        from billing_usage_events where request_id = 'odd é'
        """
    )
    names = [*ODD_VALUES, "quantity", "event_timestamp"]
    assert [odd[name] for name in names] == [*kept_as_text[0][:9], odd["measured"], *kept_as_text[0][10:]]
    assert odd["measured"] == pytest.approx(0.1)
    assert (rows["wide"]["quantity"], rows["not finite"]["quantity"]) == (wide, "NaN")
    assert {name for name, row in rows.items() if not row["recon_counted"]} == {"not finite"}


@EVERY_MODE
def test_names_that_are_equal_by_their_collation_alone_are_kept_as_each_event_has_them(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    try:
        billing = make_billing_in_mode(
            mode,
            """
            create collation whatever_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            alter table billing_usage_events alter gateway_name type text collate whatever_case;
            """,
        )
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"{error}; Debian's Postgres has it")
    billing.add_event(ONE, 6, request_id="small")
    billing.add_event(ONE, 4, request_id="great", gateway_name="Stripe")
    billing.add_counter(ONE, 10)
    seal(billing)
    archive(billing, tmp_path)
    kept = {row["request_id"]: (row["gateway_name"], row["usage_type"]) for row in rows_in(tmp_path).to_pylist()}
    assert kept == {"small": ("stripe", "remote_commands"), "great": ("Stripe", "remote_commands")}


@EVERY_MODE
def test_quantities_of_38_digits_are_decimals(make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path) -> None:
    billing = make_billing_in_mode(mode, ODD_COLUMNS)
    wide = "123456789012345678901234567890123456.25"
    for quantity in (wide, f"-{wide}", "9.5", "0.50", "0"):
        billing.add_event(ONE, quantity)
    billing.add_counter(ONE, 10)
    seal(billing)
    archive(billing, tmp_path)
    rows = rows_in(tmp_path)
    assert rows.schema.field("quantity").type == pa.decimal128(38, 2)
    assert max(rows["quantity"].to_pylist()) == Decimal(wide)


@EVERY_MODE
def test_duplicates_and_invalid_events_are_kept_and_marked(
    make_billing_in_mode: MakeBilling, mode: str, tmp_path: Path
) -> None:
    billing = make_billing_in_mode(mode, BY_START)
    for number in range(3):
        billing.add_event(ONE, 4, request_id="twin", event_timestamp=f"2025-05-07 12:00:0{number}Z")
    billing.add_event(ONE, 6)
    billing.add_event(ONE, 5, request_id="no period", period=(MAY[0], MAY[0]))
    billing.add_counter(ONE, 10)
    assert run_assets().record.outcome == "clean"
    seal(billing)
    archive(billing, tmp_path)
    marked = sorted((row["request_id"], row["recon_counted"]) for row in rows_in(tmp_path).to_pylist())
    assert [one for one in marked if one[0] in ("twin", "no period")] == [
        ("no period", False), ("twin", False), ("twin", False), ("twin", True),
    ]  # fmt: skip


REFUSED: dict[str, tuple[Callable[[Billing], object], str]] = {
    "a month that is not sealed": (
        reopen,
        "2025-05 of stripe:remote_commands is not sealed, so it cannot be archived.",
    ),
    "a late event": (
        lambda billing: billing.record(ONE, 5),
        "The events of 2025-05 of stripe:remote_commands are not what was sealed: 1 keys differ, the first of customer "
        f"{ONE} (2 events of 10 units were sealed, 3 of 15 are there).",
    ),
    "an event of another size": (
        lambda billing: billing.query("update billing_usage_events set quantity = 5 where quantity = 4"),
        "6 keys differ, the first of customer customer_0000 (2 events of 10 units were sealed, 2 of 11 are there).",
    ),
    "an event of another name": (
        lambda billing: billing.query("update billing_usage_events set request_id = 'x' where quantity = 4 and "
                                      "gateway_customer_id = 'customer_0000'"),
        "1 keys differ, the first of customer customer_0000 (2 events of 10 units were sealed, 2 of 10 are there).",
    ),
    "an event that left": (
        lambda billing: billing.query("delete from billing_usage_events where quantity = 4"),
        "6 keys differ, the first of customer customer_0000 (2 events of 10 units were sealed, 1 of 6 are there).",
    ),
    "a column of our name": (
        lambda billing: billing.query("alter table billing_usage_events add recon_counted boolean"),
        "The log has a column recon_counted, the name under which files say whether an event counted.",
    ),
}  # fmt: skip


@EVERY_MODE
@pytest.mark.parametrize(("state", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_what_was_sealed_is_not_archived_and_the_refusal_says_why(
    sealed: Billing, tmp_path: Path, state: Callable[[Billing], object], sentence: str
) -> None:
    state(sealed)
    counters = sealed.counters()
    with pytest.raises(ReconError) as refused:
        archive(sealed, tmp_path)
    assert sentence in refused.value.what
    assert refused.value.changed == "No event was deleted, no archive was recorded. No counter was changed."
    assert recorded(sealed) == []
    assert [*tmp_path.rglob("*.*")] == [], "nothing looks like an archive"
    assert sealed.counters() == counters


@pytest.mark.parametrize("mode", ["incremental"])
def test_another_archive_of_the_month_that_is_killed_takes_no_file_of_one_that_was_read_back_and_is_recorded_next(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back, write = archiving.compared_with_seal, archiving.write_files

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    def and_then_another(*given: Any) -> Any:
        found = read_back(*given)
        monkeypatch.setattr(archiving, "compared_with_seal", read_back)
        monkeypatch.setattr(archiving, "write_files", killed)
        with pytest.raises(KeyboardInterrupt):
            archive(sealed, tmp_path)
        monkeypatch.setattr(archiving, "write_files", write)
        return found

    monkeypatch.setattr(archiving, "compared_with_seal", and_then_another)
    (statement,) = archive(sealed, tmp_path).statements
    sealed.query(statement)
    assert len(rows_in(tmp_path)) == 12, "they are nowhere else"
    assert verified(sealed) is None


@pytest.mark.parametrize("mode", ["incremental"])
def test_what_fails_between_the_files_and_the_manifest_leaves_no_files(
    sealed: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "beside").open("w") as beside:
        beside.write("of somebody else")

    def full(self: Any, _: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recon_pipeline.lake.archive_files._Hashed.write", full)
    with pytest.raises(ReconError, match="No space left on device"):
        archive(sealed, tmp_path)
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["beside"]
    assert recorded(sealed) == []
