"""Counts of rejections by reason: counted in each process, and summed in Redis for all programs of the box.

A reason is the name of a problem (problems.py), whatever the protocol. The unit is a request, a message, a connection,
or a record skipped by `on_error=skip`; never bytes.

Counting is one addition in the event loop. A thread adds the new counts to Redis once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

import redis

from telemetry.coordination import shared_state
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError
from telemetry.model.problems import Problem
from telemetry.system.periodic import run_periodically

log = logging.getLogger(__name__)

REPORT_S = 1.0

JOB = "job-not-allowed"
"""Reason for a job that the worker rejected; no sender is notified of it."""

REASON_OF_STATUS = {
    400: problems.INVALID_RECORD,
    405: problems.WRONG_METHOD,
    413: problems.BODY_TOO_LARGE,
    415: problems.UNSUPPORTED_TYPE,
    503: problems.BUSY,
}
"""Reasons by HTTP status, for responses without a problem type, as in the legacy API."""

REASONS = (*(kind.name for kind in problems.KINDS if kind.status != 404), JOB)
"""All reasons."""

_counted: Counter[str] = Counter()


def count(kind: Problem, number: int = 1) -> None:
    """Count rejections. Must be called in the event loop. Status 404 is not a rejection."""
    if number and kind.status != 404:
        _counted[kind.name] += number


def count_status(status: int) -> None:
    """Count a rejection known only by its HTTP status; other statuses are ignored."""
    if status in REASON_OF_STATUS:
        count(REASON_OF_STATUS[status])


@contextlib.asynccontextmanager
async def reported(connect: Callable[[], redis.Redis]) -> AsyncIterator[None]:
    """Context in which counts are added to Redis, the last of them at the end."""
    with connect() as client:
        reporting = asyncio.create_task(_report_for_ever(client))
        try:
            yield
        finally:
            reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporting
            await _report(client)


async def _report_for_ever(client: redis.Redis) -> None:
    await run_periodically("refusals", REPORT_S, lambda: asyncio.shield(_report(client)))


async def _report(client: redis.Redis) -> None:
    """Add the counts to Redis, or keep them for the next attempt."""
    counts = dict(_counted)
    if not counts:
        return
    _counted.clear()
    try:
        await asyncio.to_thread(shared_state.add_refused, client, counts)
    except (StoreError, BusyError) as error:
        log.debug("cannot add the counts of rejections yet: %s", error)
        _counted.update(counts)
