"""`/readyz`: readiness of the box, with the reasons if it is not ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.responses import record_schema
from api.status.probe_operations import READYZ
from collector.ingest.watermarks import memory_percent
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.coordination import shared_state
from telemetry.hot_store.client import check_server
from telemetry.hot_store.shard import Shard
from telemetry.http.authentication import caller_of
from telemetry.model.api_keys import READ
from telemetry.model.errors import BusyError, ConfigError, StoreError
from telemetry.startup.store_setup import apart
from telemetry.system import clock
from telemetry.system.disk_space import Room, in_words

SILENT_S = 60
"""Maximum age of the heartbeat of a working worker or scheduler."""


HIDDEN_REASONS = "a request with a key that may read all devices receives the reasons"


class Health:
    """Checks Redis, archive, disk, worker and scheduler on request."""

    def __init__(
        self,
        client: redis.Redis,
        attach: Callable[[], Sequence[Shard]],
        archive: Archive,
        durability: str,
        full_percent: float,
        room: Room,
    ) -> None:
        self._client = client
        self._attach = attach
        self._archive = archive
        self._durability = durability
        self._full_percent = full_percent
        self._room = room
        self._was_short = False

    def routes(self) -> list[Route]:
        """The route."""
        return [READYZ.route(self.get_readyz)]

    async def get_readyz(self, request: Request) -> Response:
        """200, or 503 with the reasons. Clients that may not read all devices do not receive the reasons."""
        reasons = await asyncio.to_thread(self.reasons)
        caller = caller_of(request.scope)
        if reasons and not (caller.may(READ) and caller.sees_all):
            reasons = [HIDDEN_REASONS]
        return record_schema.json(
            {"status": "not ready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200
        )

    def reasons(self) -> list[str]:
        """All reasons why the box is not ready."""
        try:
            reasons = [*self._disk(), *self._settings()]
        except StoreError as error:
            return [*self._disk(), str(error)]
        for check in (self._memory, self._stores, self._programs):
            try:
                reasons += check()
            except (StoreError, ConfigError) as error:
                reasons.append(str(error))
            except READ_ERRORS as error:
                reasons.append(f"cannot read the archive: {in_one_line(error)}")
        return reasons

    def _settings(self) -> list[str]:
        try:
            check_server(self._client, self._durability)
        except ConfigError as error:
            return [str(error)]
        return []

    def _disk(self) -> list[str]:
        try:
            self._was_short = self._room.is_short(self._was_short)
            if not self._was_short:
                return []
            free = in_words(self._room.fullest().free)
        except OSError as error:
            return [f"cannot look at the disk: {error}"]
        return [f"the disk has {free} free: not accepting records until it has {in_words(self._room.resume_bytes)}"]

    def _memory(self) -> list[str]:
        used_percent = memory_percent(self._client)
        if used_percent < self._full_percent:
            return []
        return [
            f"Redis uses {used_percent:.0f} % of its memory limit: not accepting records until the worker drains it"
        ]

    def _stores(self) -> list[str]:
        shards = self._attach()
        return [*self._writes(), *self._clock(shards), *self._together(shards), *self._saves(shards)]

    def _writes(self) -> list[str]:
        """The reason why Redis would reject an append. `_memory` reports full memory."""
        try:
            shared_state.require_writable(self._client)
        except StoreError as error:
            return [f"not accepting records: {error}"]
        except BusyError:
            pass
        return []

    def _clock(self, shards: Sequence[Shard]) -> list[str]:
        newest_ms = max(shard.newest_ms() for shard in shards)
        problem = clock.problem(clock.now_us(), newest_ms)
        return [f"{problem}; records from the future are accepted meanwhile"] if problem else []

    def _together(self, shards: Sequence[Shard]) -> list[str]:
        mismatch = next((why for shard in shards if (why := apart(shard, self._archive))), None)
        return [f"{mismatch}; not saving until `whimbrel recover` has repaired it"] if mismatch else []

    def _saves(self, shards: Sequence[Shard]) -> list[str]:
        failed = ((shard.shard, why) for shard in shards if (why := shard.trouble()))
        return [f"cannot save shard {number}, its records wait in Redis: {why}" for number, why in failed]

    def _programs(self) -> list[str]:
        seen, now_s = shared_state.heartbeats(self._client), time.time()
        return [
            f"the {program} has given no sign of life for {SILENT_S} s"
            for program in (shared_state.WORKER, shared_state.SCHEDULER)
            if abs(now_s - seen.get(program, 0.0)) > SILENT_S
        ]
