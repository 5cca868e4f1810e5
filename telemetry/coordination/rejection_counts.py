"""What was refused, by reason: counted where it is refused, and added up in Redis for all programs of the box.

A reason is the name of a kind of problem (problems.py), over whichever protocol it was refused. What counts is a
request, a message, a record that `on_error=skip` left out, or a connection; never the bytes it consisted of.

Counting is one addition in the event loop. Once a second what was counted since goes to Redis, from a thread.
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
"""The reason of a job that the worker refused; no sender hears of it."""

REASON_OF_STATUS = {
    400: problems.INVALID_RECORD,
    405: problems.WRONG_METHOD,
    413: problems.BODY_TOO_LARGE,
    415: problems.UNSUPPORTED_TYPE,
    503: problems.BUSY,
}
"""The reason of an answer that names no kind of problem, as the older service's don't."""

REASONS = (*(kind.name for kind in problems.KINDS if kind.status != 404), JOB)
"""All that there are."""

_counted: Counter[str] = Counter()


def count(kind: Problem, number: int = 1) -> None:
    """Count what was refused. Belongs to the event loop, as all here. What isn't there is no refusal."""
    if number and kind.status != 404:
        _counted[kind.name] += number


def count_status(status: int) -> None:
    """Count a refusal of which only the HTTP status is known; one that is none is not counted."""
    if status in REASON_OF_STATUS:
        count(REASON_OF_STATUS[status])


@contextlib.asynccontextmanager
async def reported(connect: Callable[[], redis.Redis]) -> AsyncIterator[None]:
    """Within this what is counted goes to Redis, the last of it at the end."""
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
    """Give what was counted to Redis, or keep it for the next time."""
    taken = dict(_counted)
    if not taken:
        return
    _counted.clear()
    try:
        await asyncio.to_thread(shared_state.add_refused, client, taken)
    except (StoreError, BusyError) as error:
        log.debug("refusals are kept: %s", error)
        _counted.update(taken)
