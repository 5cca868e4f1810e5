"""The keys as a program knows them: looked up in memory for each request, read again from Redis once a second.

A key that was revoked is refused within `REFRESH_S` and the time that a read takes. While Redis is away the keys that
were read last count on, for `MAX_STALE_S`: so long may a key that was revoked meanwhile still be taken, but what can be
done with it then is little, for nothing is stored. Beyond, and until they were read for the first time, nobody can be
told apart: `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import redis

from telemetry import keys, notes
from telemetry.errors import BusyError, StoreError, StoreUnavailable
from telemetry.keys import Caller, Denied, Key
from telemetry.notes import Stamp
from telemetry.redis_client import READ_TIMEOUT_S, connect
from telemetry.settings import Settings

log = logging.getLogger(__name__)

REFRESH_S = 1.0
MAX_STALE_S = 300.0

Read = Callable[[Stamp | None], tuple[Stamp, dict[str, Key] | None]]
"""Reads the keys anew, None for them where they are what the stamp stands for. Raises `StoreError`, `BusyError`."""


class Keyring:
    """Answers who has a key. All but `refresh` belongs to the event loop."""

    def __init__(
        self, read: Read, now_s: Callable[[], float] = time.time, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._now_s = now_s
        self._elapsed_s = elapsed_s
        self._stamp: Stamp | None = None
        self._keys: Mapping[str, Key] = {}
        self._read_at_s: float | None = None
        self.changes = 0  # whoever remembers a caller asks again when this is another

    def check(self, text: str) -> Caller | Denied:
        """Who has this text, or why nobody. Raises `StoreUnavailable` if that can't be told now."""
        if not self._is_fresh:
            raise StoreUnavailable("cannot tell whose key this is: Redis, where keys are, is away")
        return keys.check(text, self._keys.get, self._now_s())

    def holds(self, caller: Caller, changes: int) -> bool:
        """Whether a caller that was found at so many changes would be found again."""
        return changes == self.changes and self._is_fresh and not 0 < caller.expires_s <= self._now_s()

    @property
    def _is_fresh(self) -> bool:
        return self._read_at_s is not None and self._elapsed_s() - self._read_at_s <= MAX_STALE_S

    def refresh(self) -> None:
        """Read the keys, if they have changed. Raises `StoreError`, `BusyError`."""
        begun_s = self._elapsed_s()
        stamp, found = self._read(self._stamp)
        if found is not None:
            self._keys, self._stamp = found, stamp
            self.changes += 1
        self._read_at_s = begun_s


@contextlib.asynccontextmanager
async def kept(connect_to: Callable[[], redis.Redis]) -> AsyncIterator[Keyring]:
    """Within this, a keyring that is kept up to date."""
    with connect_to() as client:
        keyring = Keyring(partial(notes.keys_since, client))
        await _refresh(keyring)
        keeping = asyncio.create_task(_refresh_for_ever(keyring))
        try:
            yield keyring
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping


def required(settings: Settings) -> AbstractAsyncContextManager[Keyring | None]:
    """The keyring of a program, if the settings require keys."""
    return kept(lambda: connect(settings, READ_TIMEOUT_S)) if settings.auth.required else contextlib.nullcontext()


async def _refresh_for_ever(keyring: Keyring) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        await asyncio.shield(_refresh(keyring))


async def _refresh(keyring: Keyring) -> None:
    try:
        await asyncio.to_thread(keyring.refresh)
    except (StoreError, BusyError) as error:
        log.debug("keys are as they were read last: %s", error)
