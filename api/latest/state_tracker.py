"""Follows the newest state of each device while anybody reads (live_stream.py): Redis announces whose is another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterator

import redis
import redis.asyncio

from api.latest.change_log import Changes, Place
from api.latest.latest_texts import LARGE_BYTES
from api.latest.representation import answer_of
from api.latest.routes import LatestRoutes
from api.requests.key_devices import Devices
from api.responses.record_schema import RecordAnswer, encode
from telemetry.coordination.shared_state import CHANGED
from telemetry.hot_store import corruption
from telemetry.hot_store.entry_codec import decode_latest
from telemetry.http.problem_responses import ProblemError
from telemetry.model.record import Record
from telemetry.system.periodic import count_from_zero, run_periodically

log = logging.getLogger(__name__)

TICK_S = 0.1
LISTEN_S = 1.0
RETRY_S = 1.0

DEVICES_AT_ONCE = 250
"""Devices whose states are read and encoded before others have their turn, some 2 ms."""


GONE_S = 300.0
"""For so long, and at most twice as long, readers are told of a device that was deleted."""


LOOP = "live"
"""The name of the loop that follows changes."""


class States:
    """The newest state of each device, while anybody reads."""

    def __init__(self, latest: LatestRoutes, client: redis.asyncio.Redis) -> None:
        self._latest = latest
        self._client = client
        self.changes = Changes("")
        self._changed: set[str] = set()
        self._readers = 0
        self._following: asyncio.Task[None] | None = None
        self.is_whole = False  # whether all devices were looked at
        self._ticked = asyncio.Event()
        count_from_zero(LOOP)

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Within this states are followed."""
        self._readers += 1
        try:
            if self._following is None:
                self.changes, self.is_whole = Changes(secrets.token_hex(8)), False
                self._following = asyncio.create_task(
                    run_periodically(LOOP, RETRY_S, self._try_to_follow, first_after_s=0.0)
                )
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and self._following is not None:
                self._following.cancel()
                self._following = None
                self.changes = Changes("")

    async def tick(self) -> None:
        """Wait for the next look at what has changed."""
        await self._ticked.wait()

    def wake(self) -> None:
        """Let all who wait go on, though nothing has changed."""
        self._ticked.set()
        self._ticked = asyncio.Event()

    # Following

    async def _try_to_follow(self) -> None:
        try:
            await self._follow()
        except (redis.RedisError, ProblemError) as error:
            log.warning("changes can't be followed: %s; trying again", error)

    async def _follow(self) -> None:
        """Follow until the connection ends. All devices are looked at first: nobody told what changed before."""
        async with self._client.pubsub() as heard:
            await heard.subscribe(CHANGED)
            hearing = asyncio.create_task(self._hear(heard))
            try:
                await self._look_at_all()
                dropped_s, number = time.monotonic(), self.changes.number
                while not hearing.done():
                    await asyncio.sleep(TICK_S)
                    if time.monotonic() - dropped_s > GONE_S:
                        self.changes.drop_gone(number)
                        dropped_s, number = time.monotonic(), self.changes.number
                    taken, self._changed = sorted(self._changed), set()
                    await self._look_at(taken)
                await hearing
            finally:
                hearing.cancel()

    async def _hear(self, heard: redis.asyncio.client.PubSub) -> None:
        """Raises `redis.ConnectionError` if the connection was another meanwhile: what was told then nobody heard."""
        subscribed = 0
        while True:
            message = await heard.get_message(timeout=LISTEN_S)
            if message is not None and message["type"] == "message":
                self._changed.update(message["data"].decode().split("\0"))
            elif message is not None and message["type"] == "subscribe":
                subscribed += 1
                if subscribed > 1:
                    raise redis.ConnectionError("the connection was lost for a moment")

    async def _look_at_all(self) -> None:
        after = ""
        while devices := await self._latest.devices(Devices([]), after, DEVICES_AT_ONCE):
            await self._take(devices)
            after = devices[-1]
        self.is_whole = True
        self.wake()

    async def _look_at(self, devices: list[str]) -> None:
        for start in range(0, len(devices), DEVICES_AT_ONCE):
            await self._take(devices[start : start + DEVICES_AT_ONCE])
        if devices:
            self.wake()

    async def _take(self, devices: list[str]) -> None:
        async for batch in self._latest.batches(devices):
            for device, value in batch:
                self._note(device, value)

    def _note(self, device: str, value: bytes | None) -> None:
        """Note what Redis has of a device. What cannot be decoded is skipped: readers keep the state before."""
        try:
            self._note_decoded(device, value)
        except corruption.ERRORS as error:
            corruption.skip("latest", device, error)

    def _note_decoded(self, device: str, value: bytes | None) -> None:
        if value is None:
            self.changes.forget(device)
        elif len(value) > LARGE_BYTES:
            position = decode_latest(value).position
            where = None if position is None else position.stored(device).record
            self.changes.add_large(device, _place(where), len(value), hash(value))
        else:
            answer = answer_of(device, value)
            self.changes.add(device, _place(answer.position), encode(answer))


def _place(where: RecordAnswer | Record | None) -> Place:
    if where is None or where.latitude is None or where.longitude is None:
        return None
    return where.latitude, where.longitude
