"""What the query program looks at for `/metrics`, now and then: the archive, and what `/readyz` would say."""

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

LOOK_S = 10.0
"""Between two looks: each reads the table's list of files, some ms where there are a thousand."""


async def look_for_ever(archive: Archive, health: Health, cursor: duckdb.DuckDBPyConnection) -> None:
    """Look again and again, in threads."""

    async def look() -> None:
        await asyncio.to_thread(look_at_archive, archive, clock.now_us())
        await asyncio.to_thread(look_at_health, health)
        await asyncio.to_thread(look_at_memory, cursor)

    await run_periodically("gauges of the archive", LOOK_S, look, first_after_s=0.0)


def look_at_archive(archive: Archive, now_us: int) -> None:
    """Note how many files, records and bytes there are; nothing is known of an archive that can't be read."""
    gauges = (metrics.ARCHIVE_FILES, metrics.ARCHIVE_RECORDS, metrics.ARCHIVE_BYTES, metrics.OPEN_DAY_FILES)
    found: tuple[float | None, ...] = (None,) * len(gauges)
    age_s = whole_age_s = None
    try:
        table = archive.open_existing()
        days = [] if table is None else archive.days(table)
        today = day_of(now_us)
        found = (
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
        log.debug("cannot read the archive: %s", error)  # /readyz says so
    for gauge, value in zip(gauges, found, strict=True):
        gauge.one.set(value)
    metrics.COMMIT_AGE_S.one.set(age_s)
    metrics.ARCHIVE_AGE_S.one.set(whole_age_s)


def look_at_health(health: Health) -> None:
    """Note whether the box is ready."""
    reasons = health.reasons()
    metrics.READY.one.set(not reasons)
    metrics.READY_REASONS.one.set(len(reasons))


def look_at_memory(cursor: duckdb.DuckDBPyConnection) -> None:
    """Note how much memory queries use."""
    found = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
    metrics.QUERY_MEMORY.one.set(found[0] if found else None)
