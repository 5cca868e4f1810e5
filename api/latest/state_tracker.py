"""Tracks the newest state of each device while `/v1/live` has readers; Redis pub/sub names the changed devices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterator

import redis
import redis.asyncio

from api.latest.change_log import ChangeLog, Place
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

BATCH_DEVICES = 250
"""Maximum devices whose states are read and encoded before other tasks run."""


DELETED_FOR_S = 300.0
"""Minimum time for which readers are notified of a deleted device; at most twice this time."""


LOOP = "live"
"""Name of the loop that tracks changes, in metrics."""


class StateTracker:
    """The newest state of each device, tracked while there are readers."""

    def __init__(self, latest: LatestRoutes, client: redis.asyncio.Redis) -> None:
        self._latest = latest
        self._client = client
        self.changes = ChangeLog("")
        self._changed: set[str] = set()
        self._readers = 0
        self._tracking: asyncio.Task[None] | None = None
        self.is_complete = False  # True when the state of each device was read
        self._ticked = asyncio.Event()
        count_from_zero(LOOP)

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Count a reader; states are tracked while there is one."""
        self._readers += 1
        try:
            if self._tracking is None:
                self.changes, self.is_complete = ChangeLog(secrets.token_hex(8)), False
                self._tracking = asyncio.create_task(
                    run_periodically(LOOP, RETRY_S, self._try_to_track, first_after_s=0.0)
                )
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and self._tracking is not None:
                self._tracking.cancel()
                self._tracking = None
                self.changes = ChangeLog("")

    async def tick(self) -> None:
        """Wait for the next change."""
        await self._ticked.wait()

    def wake(self) -> None:
        """Wake all waiting readers."""
        self._ticked.set()
        self._ticked = asyncio.Event()

    # Tracking

    async def _try_to_track(self) -> None:
        try:
            await self._track()
        except (redis.RedisError, ProblemError) as error:
            log.warning("cannot track changes: %s; trying again", error)

    async def _track(self) -> None:
        """Track changes until the connection is lost. All devices are read first, because earlier changes are
        unknown."""
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(CHANGED)
            receiving = asyncio.create_task(self._receive(pubsub))
            try:
                await self._read_all()
                dropped_s, number = time.monotonic(), self.changes.number
                while not receiving.done():
                    await asyncio.sleep(TICK_S)
                    if time.monotonic() - dropped_s > DELETED_FOR_S:
                        self.changes.drop_deleted(number)
                        dropped_s, number = time.monotonic(), self.changes.number
                    changed, self._changed = sorted(self._changed), set()
                    await self._read_changed(changed)
                await receiving
            finally:
                receiving.cancel()

    async def _receive(self, pubsub: redis.asyncio.client.PubSub) -> None:
        """Note the devices in messages. Raises `redis.ConnectionError` after a reconnect, since messages may be
        lost."""
        subscriptions = 0
        while True:
            message = await pubsub.get_message(timeout=LISTEN_S)
            if message is not None and message["type"] == "message":
                self._changed.update(message["data"].decode().split("\0"))
            elif message is not None and message["type"] == "subscribe":
                subscriptions += 1
                if subscriptions > 1:
                    raise redis.ConnectionError("the connection was lost for a moment")

    async def _read_all(self) -> None:
        after = ""
        while devices := await self._latest.devices(Devices([]), after, BATCH_DEVICES):
            await self._read_batch(devices)
            after = devices[-1]
        self.is_complete = True
        self.wake()

    async def _read_changed(self, devices: list[str]) -> None:
        for start in range(0, len(devices), BATCH_DEVICES):
            await self._read_batch(devices[start : start + BATCH_DEVICES])
        if devices:
            self.wake()

    async def _read_batch(self, devices: list[str]) -> None:
        async for batch in self._latest.batches(devices):
            for device, value in batch:
                self._note(device, value)

    def _note(self, device: str, value: bytes | None) -> None:
        """Note a device's record in Redis. One that cannot be decoded is skipped: readers keep the previous state."""
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
