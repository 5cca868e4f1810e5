"""Refusals of access for the audit log: the first of each address is a line within a second, more of them are counted.

Noting one is a dictionary's work in the event loop. A refusal is known by its address, key, reason and protocol; within
`WINDOW_S` all that are alike become at most two lines, whatever number an attacker sends. Beyond `MAX_KNOWN` different
ones in a window, the others become one line.
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
"""Reason of a refusal of which only the HTTP status is known."""


class _Alike(NamedTuple):
    address: str
    actor: Actor
    claimed_key: str
    reason: str
    status: int


class _Counted(Struct):
    """How many since the last line, and the first of them; when its window began, and whether it has a line yet."""

    begun_s: float
    is_written: bool = False
    count: int = 0
    first_s: float = 0
    last_s: float = 0
    target: str = ""
    device: str = ""


_open: dict[_Alike, _Counted] = {}


def note(
    kind: Problem,
    address: str,
    target: str,
    actor: Actor = ANONYMOUS,
    claimed_key: str = "",
    device: str = "",
) -> None:
    """Note one refusal. What is no refusal of access is left out. Belongs to the event loop."""
    if kind.status in STATUSES:
        _note(_Alike(address, actor, claimed_key, kind.name, kind.status), target, device)


def note_status(status: int, scope: Scope, actor: Actor) -> None:
    """Note the answer to an HTTP request, if it refuses access; its reason is known by its status alone."""
    if status in STATUSES:
        _note(_Alike(address_of(scope), actor, "", REASONS[status], status), target_of(scope), "")


def target_of(scope: Scope) -> str:
    """Method and path of an HTTP request; its query may be long, and says little."""
    return f"{scope['method']} {scope['path']}"


def _note(alike: _Alike, target: str, device: str) -> None:
    now_s = time.time()
    found = _open.get(alike)
    if found is None:
        if len(_open) >= MAX_KNOWN:
            alike = _Alike(OTHERS, ANONYMOUS, "", alike.reason, alike.status)
        found = _open.setdefault(alike, _Counted(now_s))
    if found.count == 0:
        found.first_s, found.target, found.device = now_s, target, device
    found.count += 1
    found.last_s = now_s


@contextlib.asynccontextmanager
async def recorded(audit: Audit) -> AsyncIterator[None]:
    """Within this what is noted goes to the audit log, the last of it at the end."""
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


def _due(is_last: bool) -> list[tuple[_Alike, _Counted]]:
    """What is to be written now: refusals seen for the first time, and those whose window is over."""
    now_s, due = time.time(), []
    for alike, found in list(_open.items()):
        is_over = is_last or not 0 <= now_s - found.begun_s < WINDOW_S  # also after the clock was set back
        if found.count and (is_over or not found.is_written):
            due.append((alike, msgspec.structs.replace(found)))
            found.count, found.is_written = 0, True
        if is_over:
            del _open[alike]
    return due


def _write(audit: Audit, due: list[tuple[_Alike, _Counted]]) -> None:
    for alike, found in due:
        details = {"reason": alike.reason} | ({"key": alike.claimed_key} if alike.claimed_key else {})
        entry = Entry(
            moment(time.time()),  # not the first refusal's: entries are followed in the order of their moments
            new_id(),
            audit.program,
            ACTION,
            "refused",
            alike.actor,
            alike.address,
            found.target,
            found.device,
            alike.status,
            found.count,
            moment(found.first_s),
            moment(found.last_s) if found.count > 1 else "",
            details,
        )
        audit.note("refusals", entry)
