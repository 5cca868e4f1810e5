"""Gauges that the query program refreshes periodically: the archive, readiness, and memory of queries."""

from __future__ import annotations

import asyncio
import logging

import duckdb

from api.status.readiness import Health
from telemetry.archive.table import READ_ERRORS, Archive
from telemetry.model.utc import day_of
from telemetry.observability import metrics
from telemetry.system import clock
from telemetry.system.periodic import run_periodically

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""Interval of refreshes; each reads the table's list of files."""


async def refresh_gauges(archive: Archive, health: Health, cursor: duckdb.DuckDBPyConnection) -> None:
    """Refresh all gauges periodically, in threads."""

    async def refresh() -> None:
        await asyncio.to_thread(refresh_archive, archive, clock.now_us())
        await asyncio.to_thread(refresh_health, health)
        await asyncio.to_thread(refresh_memory, cursor)

    await run_periodically("gauges of the archive", INTERVAL_S, refresh, first_after_s=0.0)


def refresh_archive(archive: Archive, now_us: int) -> None:
    """Set the gauges of files, records and bytes; they are unknown if the archive cannot be read."""
    gauges = (metrics.ARCHIVE_FILES, metrics.ARCHIVE_RECORDS, metrics.ARCHIVE_BYTES, metrics.OPEN_DAY_FILES)
    values: tuple[float | None, ...] = (None,) * len(gauges)
    age_s = whole_age_s = None
    try:
        table = archive.open_existing()
        days = [] if table is None else archive.days(table)
        today = day_of(now_us)
        values = (
            sum(day.files for day in days),
            sum(day.records for day in days),
            sum(day.size_bytes for day in days),
            sum(day.files for day in days if day.day == today),
        )
        changed_us = None if table is None else archive.changed_us(table)
        age_s = None if changed_us is None else (now_us - changed_us) / 1_000_000
        begun_us = None if table is None else archive.begun_us(table)
        whole_age_s = None if begun_us is None else (now_us - begun_us) / 1_000_000
    except READ_ERRORS as error:
        log.debug("cannot read the archive: %s", error)  # /readyz reports it
    for gauge, value in zip(gauges, values, strict=True):
        gauge.one.set(value)
    metrics.COMMIT_AGE_S.one.set(age_s)
    metrics.ARCHIVE_AGE_S.one.set(whole_age_s)


def refresh_health(health: Health) -> None:
    """Set the gauges of readiness."""
    reasons = health.reasons()
    metrics.READY.one.set(not reasons)
    metrics.READY_REASONS.one.set(len(reasons))


def refresh_memory(cursor: duckdb.DuckDBPyConnection) -> None:
    """Set the gauge of the memory that queries use."""
    row = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
    metrics.QUERY_MEMORY.one.set(row[0] if row else None)
