"""Rejected access for the audit log: the first of each address is logged within a second, further ones are counted.

Recording one costs a dictionary lookup in the event loop. Rejections are grouped by address, key, reason and protocol.
Within `WINDOW_S` a group becomes at most two lines, however many requests an attacker sends. Beyond `MAX_KNOWN` groups
in a window, all others are merged into one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct
from starlette.types import Scope

from telemetry.audit.entry import ANONYMOUS, Actor, Entry, moment, new_id
from telemetry.audit.writer import Audit
from telemetry.limits.client_address import address_of
from telemetry.model.problems import Problem
from telemetry.system.periodic import run_periodically

WINDOW_S, FLUSH_S = 60.0, 1.0
MAX_KNOWN = 1_000
OTHERS = "(others)"
ACTION = "access"

STATUSES = (401, 403, 421)
REASONS: Mapping[int, str] = {401: "no-key-or-wrong-key", 403: "not-allowed", 421: "misdirected"}
"""Reason of a rejection known only by its HTTP status."""


class _Group(NamedTuple):
    address: str
    actor: Actor
    claimed_key: str
    reason: str
    status: int


class _Counted(Struct):
    """Number since the last line and the first of them; start of the window, and whether it has a line yet."""

    begun_s: float
    is_written: bool = False
    count: int = 0
    first_s: float = 0
    last_s: float = 0
    target: str = ""
    device: str = ""


_open: dict[_Group, _Counted] = {}


def note(
    kind: Problem,
    address: str,
    target: str,
    actor: Actor = ANONYMOUS,
    claimed_key: str = "",
    device: str = "",
) -> None:
    """Record a rejection; ignores problems other than rejected access. Must be called in the event loop."""
    if kind.status in STATUSES:
        _note(_Group(address, actor, claimed_key, kind.name, kind.status), target, device)


def note_status(status: int, scope: Scope, actor: Actor) -> None:
    """Record the response to an HTTP request if it rejects access, with the reason given by its status."""
    if status in STATUSES:
        _note(_Group(address_of(scope), actor, "", REASONS[status], status), target_of(scope), "")


def target_of(scope: Scope) -> str:
    """Method and path of an HTTP request, without its query."""
    return f"{scope['method']} {scope['path']}"


def _note(alike: _Group, target: str, device: str) -> None:
    now_s = time.time()
    counted = _open.get(alike)
    if counted is None:
        if len(_open) >= MAX_KNOWN:
            alike = _Group(OTHERS, ANONYMOUS, "", alike.reason, alike.status)
        counted = _open.setdefault(alike, _Counted(now_s))
    if counted.count == 0:
        counted.first_s, counted.target, counted.device = now_s, target, device
    counted.count += 1
    counted.last_s = now_s


@contextlib.asynccontextmanager
async def recorded(audit: Audit) -> AsyncIterator[None]:
    """Context in which recorded rejections are written to the audit log, the last of them at the end."""
    recording = asyncio.create_task(_record_for_ever(audit))
    try:
        yield
    finally:
        recording.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await recording
        await asyncio.to_thread(_write, audit, _due(is_last=True))


async def _record_for_ever(audit: Audit) -> None:
    await run_periodically("audit of refusals", FLUSH_S, lambda: _record(audit))


async def _record(audit: Audit) -> None:
    if entries := _due(is_last=False):
        await asyncio.shield(asyncio.to_thread(_write, audit, entries))


def _due(is_last: bool) -> list[tuple[_Group, _Counted]]:
    """Groups to write now: new ones, and those whose window has ended."""
    now_s, due = time.time(), []
    for alike, counted in list(_open.items()):
        is_over = is_last or not 0 <= now_s - counted.begun_s < WINDOW_S  # also if the clock was set back
        if counted.count and (is_over or not counted.is_written):
            due.append((alike, msgspec.structs.replace(counted)))
            counted.count, counted.is_written = 0, True
        if is_over:
            del _open[alike]
    return due


def _write(audit: Audit, due: list[tuple[_Group, _Counted]]) -> None:
    for alike, counted in due:
        details = {"reason": alike.reason} | ({"key": alike.claimed_key} if alike.claimed_key else {})
        entry = Entry(
            moment(time.time()),  # not the first rejection's time: readers follow entries in order of time
            new_id(),
            audit.program,
            ACTION,
            "refused",
            alike.actor,
            alike.address,
            counted.target,
            counted.device,
            alike.status,
            counted.count,
            moment(counted.first_s),
            moment(counted.last_s) if counted.count > 1 else "",
            details,
        )
        audit.note("refusals", entry)
