"""Looks up whether devices are known, for ports with `known_devices_only`.

Results are cached, so that a device costs Redis one lookup a minute. Devices requested during a lookup share the next
one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import NamedTuple

from telemetry.config.settings import Settings
from telemetry.coordination.known_devices import are_known
from telemetry.hot_store.client import READ_TIMEOUT_S, connect

KNOWN_S = 60.0
"""Cache time of a known device, s: for this time, a deleted or removed device may still be accepted."""

UNKNOWN_S = 1.0
"""Cache time of an unknown device, s: enough to judge the message for which it was looked up."""

MAX_REMEMBERED = 100_000
"""Maximum number of cached devices, some 200 bytes each."""

READ_DEVICES = 1_000
"""Number of devices per lookup."""

Read = Callable[[Sequence[str]], Sequence[bool]]
"""Reads which devices are known. Raises `StoreError`, `BusyError`."""


class Answer(NamedTuple):
    is_known: bool
    until_s: float


class DeviceLookups:
    """Cache of known devices. Must be used in the event loop; `read` runs in a thread, one call at a time."""

    def __init__(self, read: Read, clock_s: Callable[[], float] = monotonic) -> None:
        self._read = read
        self._clock_s = clock_s
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._lock = asyncio.Lock()
        self._devices: dict[str, None] = {}  # of the next lookup
        self._question: asyncio.Task[None] | None = None  # the next lookup, until it begins

    def is_known(self, device_id: str) -> bool | None:
        """True if a device is known; None if it must be looked up."""
        answer = self._answers.get(device_id)
        return answer.is_known if answer is not None and self._clock_s() < answer.until_s else None

    def was_known(self, device_id: str) -> bool:
        """The last result, however old: `is_known` may become None while a message is judged."""
        answer = self._answers.get(device_id)
        return answer is not None and answer.is_known

    async def look_up(self, devices: Iterable[str]) -> None:
        """Look devices up, so that `is_known` has a result. Raises `StoreError`, `BusyError`."""
        self._devices.update(dict.fromkeys(devices))
        if self._question is None:
            self._question = asyncio.create_task(self._ask())
        await asyncio.shield(self._question)

    async def _ask(self) -> None:
        async with self._lock:
            devices, self._devices, self._question = list(self._devices), {}, None
            for at in range(0, len(devices), READ_DEVICES):
                part = devices[at : at + READ_DEVICES]
                self._remember(part, await asyncio.to_thread(self._read, part))

    def _remember(self, devices: Sequence[str], found: Sequence[bool]) -> None:
        now_s = self._clock_s()
        for device_id, is_known in zip(devices, found, strict=True):
            self._answers[device_id] = Answer(is_known, now_s + (KNOWN_S if is_known else UNKNOWN_S))
            self._answers.move_to_end(device_id)
        while len(self._answers) > MAX_REMEMBERED:
            self._answers.popitem(last=False)


@asynccontextmanager
async def device_lookups(settings: Settings) -> AsyncIterator[DeviceLookups | None]:
    """Context with lookups of known devices; None if no port needs them."""
    if not any(one.known_devices_only for one in settings.collector.listen):
        yield None
        return
    with connect(settings, READ_TIMEOUT_S) as client:
        yield DeviceLookups(partial(are_known, client, settings.redis.shards))
