"""All records at the end, as three kinds of users read them, and the latest of each device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import duckdb
import httpx
import polars
from deltalake import DeltaTable

from benchmarks.crash_ledger.ledger import Ledger, Row
from benchmarks.crash_ledger.readers import Pages, Range

MOST_DEVICES = 50_000
GIVE_UP_S = 120.0
"""By then an API that runs in quiet has given all pages."""


def read_back(api_port: int, archive: Path, ledger: Ledger) -> dict[str, Sequence[Row]]:
    """Name of each way, and what it found; `latest` is held against the archive."""
    found: dict[str, Sequence[Row]] = {
        "duckdb over the listed files": with_duckdb(archive),
        "polars over the delta table": with_polars(archive),
    }
    check_latest(api_port, found["duckdb over the listed files"], ledger)
    rows = over_api(api_port, ledger)
    return found if rows is None else found | {"api": rows}


def over_api(port: int, ledger: Ledger) -> list[Row] | None:
    """All pages; None, and an anomaly, if the API didn't give them."""
    given_up = threading.Event()
    timer = threading.Timer(GIVE_UP_S, given_up.set)
    timer.start()
    pages = Pages(port, ledger, given_up)
    rows = pages.check(Range())
    pages.close()
    timer.cancel()
    if pages.refused:
        ledger.anomaly("refused in quiet", f"{pages.refused} pages, while everything ran")
    return rows


def with_duckdb(archive: Path) -> list[Row]:
    """The files that the table lists."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT json_extract_string(attributes, '$.key'), device_id, epoch_us(timestamp), altitude_m, id "
            "FROM read_parquet($1)",
            [DeltaTable(str(archive)).file_uris()],
        ).fetchall()
    return [Row(*row) for row in found]


def with_polars(archive: Path) -> list[Row]:
    """The table as its own log describes it."""
    found = polars.read_delta(str(archive)).select(
        polars.col("attributes").str.json_path_match("$.key"),
        "device_id",
        polars.col("timestamp").dt.epoch("us"),
        "altitude_m",
        "id",
    )
    return [Row(*row) for row in found.iter_rows()]


def check_latest(port: int, rows: Sequence[Row], ledger: Ledger) -> None:
    """See that of each device the latest is its record with the greatest timestamp, of equal ones the last.

    Of one that has no record of a day that is kept it may be one that was given up: retention leaves latest as it is.
    """
    kept = [row for row in rows if row.timestamp_us >= ledger.kept_from_us]
    newest = {row.device_id: row.id for row in sorted(kept, key=lambda row: (row.timestamp_us, row.id))}
    given_up = {entry.device_id for entry in ledger.entries if not ledger.is_kept(entry)}
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/latest", params={"limit": MOST_DEVICES}, timeout=30)
        shown = {record["device_id"]: record["id"] for record in answer.raise_for_status().json()["records"]}
    except httpx.HTTPError as error:
        ledger.anomaly("wrong latest", f"no answer: {error}")
        return
    for device in newest.keys() | (shown.keys() - given_up):
        if newest.get(device) != shown.get(device):
            ledger.anomaly("wrong latest", f"{device}: {shown.get(device)}, the newest is {newest.get(device)}")
