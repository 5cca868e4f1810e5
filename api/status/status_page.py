"""`/status`: the state of the box as a page for operators, or as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal, TypeVar

import msgspec
import redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.legacy.wire.responses import redirect
from api.responses import record_schema
from api.responses.html import SAFE_HEADERS, page
from api.responses.ttl_cache import Kept
from api.status import box_facts, redis_facts
from api.status.box_facts import PARTS, Facts, Store
from api.status.readiness import SILENT_S, Health
from api.status.redis_facts import Backup, Courier, Entries, Programs, Refusals, Server
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.hot_store.shard import Shard
from telemetry.http.operations import Content, Operation
from telemetry.model.errors import ConfigError, StoreError
from telemetry.model.utc import TimeText, iso
from telemetry.system import clock
from telemetry.system.disk_space import Room

T = TypeVar("T")

HEADERS = {"Vary": "Accept", "Cache-Control": "no-store"}


FACTS: list[tuple[str, Any]] = [
    ("status", Literal["ready", "not ready"]),
    ("reasons", list[str]),
    ("clock_problem", str | None),
    ("version", str),
    ("made_at", TimeText),
    *((one.name, one.type | None) for part in PARTS.values() for one in msgspec.structs.fields(part)),
    ("unknown", list[str]),
]
STATUS = Operation(
    "GET",
    "/status",
    "get_status",
    "The state of the box, as a page or as JSON",
    "box",
    {
        200: Content(
            "A page, or the facts for clients that accept JSON; unknown facts are null, and `unknown` has the reasons",
            {"application/json": msgspec.defstruct("StatusAnswer", FACTS), "text/html": {"type": "string"}},
        )
    },
)


class Status:
    """Handler of `/status`; reads the state of the whole box on request."""

    def __init__(
        self,
        health: Health,
        client: redis.Redis,
        attach: Callable[[], Sequence[Shard]],
        archive: Archive,
        full_percent: float,
        room: Room,
        entries: Entries,
    ) -> None:
        self._entries = entries
        self._health = health
        self._client = client
        self._attach = attach
        self._archive = archive
        self._full_percent = full_percent
        self._room = room
        self._kept = Kept(self.look)

    def routes(self) -> list[Route]:
        """The page, and the corresponding route of the older service."""
        return [STATUS.route(self.get_status), Route("/admin/", to_status), Route("/admin", redirect)]

    async def get_status(self, request: Request) -> Response:
        """All facts, as a page, or as JSON for clients that accept it."""
        facts = await self._kept.get()
        if record_schema.wants_json(request):
            return record_schema.json(facts.flat(), headers=HEADERS)
        return page(
            "status.html",
            headers=HEADERS,
            facts=facts,
            full_percent=self._full_percent,
            silent_s=SILENT_S,
            ago=ago,
            utc=utc,
        )

    async def look(self) -> Facts:
        """The current facts."""
        made_at = iso(clock.now_us())
        reasons, (server, programs, refusals, courier, backup, store), files, disk = await asyncio.gather(
            asyncio.to_thread(self._health.reasons),
            asyncio.to_thread(self._redis),
            asyncio.to_thread(known, "the archive", lambda: box_facts.files_of(self._archive, clock.now_us)),
            asyncio.to_thread(known, "the disk", lambda: redis_facts.disk_of(self._room)),
        )
        newest_ms = 0 if isinstance(store, str) else store.newest_ms
        wrong_clock = clock.problem(clock.now_us(), newest_ms)
        parts = (store, files, server, programs, refusals, disk, courier, backup)
        return Facts(reasons, wrong_clock, version("whimbrel"), made_at, *parts)

    def _redis(self) -> tuple[Server | str, Programs | str, Refusals | str, Courier | str, Backup | str, Store | str]:
        """All facts from Redis. If the first read fails, the others are skipped, so there is only one timeout."""
        server = known("Redis", lambda: redis_facts.server_of(self._client))
        if isinstance(server, str):
            return server, server, server, server, server, server
        programs = known("Redis", lambda: redis_facts.programs_of(self._client, clock.now_ms))
        refusals = known("Redis", lambda: redis_facts.refusals_of(self._client))
        courier = known("Redis", lambda: redis_facts.courier_of(self._client, self._entries, clock.now_ms))
        backup = known("Redis", lambda: redis_facts.backup_of(self._client, clock.now_ms))
        store = known("Redis", lambda: box_facts.store_of(self._attach(), clock.now_ms))
        return server, programs, refusals, courier, backup, store


def known(name: str, read: Callable[[], T]) -> T | str:
    """The facts that `read` returns, or the reason why they are unknown."""
    try:
        return read()
    except (StoreError, ConfigError) as error:
        return str(error)
    except READ_ERRORS as error:
        return f"cannot read {name}: {in_one_line(error)}"


async def to_status(_request: Request) -> Response:
    """Redirect from the admin pages of the older service."""
    return Response(status_code=302, headers={**SAFE_HEADERS, "Location": "/status"})


# Words -----------------------------------------------------------------------------------------------


def ago(seconds: float) -> str:
    """An age in a suitable unit: `5 min ago`."""
    if seconds < -1:
        return "ahead of the box's clock"
    for unit, size_s in (("days", 2 * 86_400), ("h", 2 * 3_600), ("min", 2 * 60)):
        if seconds >= size_s:
            return f"{seconds / (size_s // 2):.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def utc(time: TimeText) -> str:
    """2026-11-24 10:25:00"""
    return time[:19].replace("T", " ")
