"""The keys as a program knows them: looked up in memory for each request, read again from Redis once a second.

Whatever outlives a check takes a hold (holds.py) and is ended within seconds after its key was revoked, was changed or
expired.

A key that is not known may have been created since the last read: `find_new` reads again at once, as often as the limit
of look-ups allows (lookup_limit.py). Look-ups at the same time share a read.

A key that was revoked is refused within `REFRESH_S` and the time that a read takes. While Redis is away the keys that
were read last count on, for `MAX_STALE_S`: so long may a key that was revoked meanwhile still be taken, but what can be
done with it then is little, for nothing is stored. Beyond, and until they were read for the first time, nobody can be
told apart: `StoreUnavailable`, and what holds a key is ended.

Programs that clients reach note once a minute which keys were used, for `whimbrel keys list`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import redis

from telemetry.access.holds import Holder, Holds
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import Stamp
from telemetry.hot_store.client import READ_TIMEOUT_S, connect
from telemetry.limits.lookup_limit import LookupLimit
from telemetry.model import api_keys, problems
from telemetry.model.api_keys import Caller, Denied, Key, complete_key_id, withdrawal
from telemetry.model.errors import BusyError, StoreError, StoreUnavailable
from telemetry.system.periodic import run_periodically

log = logging.getLogger(__name__)

REFRESH_S = 1.0
JUDGE_S = 0.5
NOTE_USED_S = 60.0
MAX_STALE_S = 300.0
LOOKUP_TIMEOUT_S = 2.0
"""Time that a request waits for the look-up of its key: less than `READ_TIMEOUT_S`, for a silent Redis holds it up."""

UNKNOWN = "cannot tell whose key this is: Redis, where keys are, is away"

Read = Callable[[Stamp | None], tuple[Stamp, dict[str, Key] | None]]
"""Reads the keys anew, None for them where they are what the stamp stands for. Raises `StoreError`, `BusyError`."""


class Keyring:
    """Answers who has a key. All but `refresh` belongs to the event loop."""

    def __init__(
        self,
        read: Read,
        now_s: Callable[[], float] = time.time,
        elapsed_s: Callable[[], float] = time.monotonic,
        limit: LookupLimit | None = None,
    ) -> None:
        self._read = read
        self._limit = limit or LookupLimit()
        self._lock = asyncio.Lock()
        self._lookups: dict[str, asyncio.Task[bool]] = {}  # by the id of the key
        self._reads_begun = 0
        self._has_read = False  # whether the last of them succeeded
        self._now_s = now_s
        self._elapsed_s = elapsed_s
        self._stamp: Stamp | None = None
        self._used: set[str] = set()
        self._keys: Mapping[str, Key] = {}
        self._read_at_s: float | None = None
        self._holds = Holds[Caller]()
        self._judged: Mapping[str, Key] = self._keys
        self._judged_at_s = self._next_expiry_s = 0.0
        self.changes = 0  # whoever remembers a caller asks again when this is another

    def check(self, text: str) -> Caller | Denied:
        """Who has this text, or why nobody. Raises `StoreUnavailable` if that can't be told now."""
        if not self._is_fresh:
            raise StoreUnavailable(UNKNOWN)
        found = api_keys.check(text, self._keys.get, self._now_s())
        if isinstance(found, Caller):
            self._used.add(found.key_id)
        return found

    def may_be_new(self, text: str) -> bool:
        """Whether a text that `check` does not know could be a key that was created since the last read."""
        key_id = complete_key_id(text)
        return bool(key_id) and key_id not in self._keys

    async def find_new(self, text: str, address: str) -> None:
        """Read the keys again if this may be a new one, so that `check` knows it; not beyond the limit of look-ups.

        Raises `StoreUnavailable` if Redis does not answer: nobody can tell then whether the key is wrong.
        """
        if not self.may_be_new(text):
            return
        key_id = complete_key_id(text)
        lookup = self._lookups.get(key_id)
        if lookup is None:
            if not self._limit.take(address):
                return
            lookup = self._lookups[key_id] = asyncio.create_task(self.read_again())
            lookup.add_done_callback(lambda _: self._lookups.pop(key_id))
        done, _ = await asyncio.wait((lookup,), timeout=LOOKUP_TIMEOUT_S)
        if not done or lookup.cancelled() or not lookup.result():
            raise StoreUnavailable(UNKNOWN)

    async def read_again(self) -> bool:
        """Have what Redis holds from now on; one read serves all that wait for it. False if it failed."""
        begun = self._reads_begun
        async with self._lock:
            if self._reads_begun == begun:
                self._reads_begun += 1
                self._has_read = await self._try_refresh()
            return self._has_read

    async def _try_refresh(self) -> bool:
        try:
            await asyncio.to_thread(self.refresh)
        except (StoreError, BusyError) as error:
            log.debug("keys are as they were read last: %s", error)
            return False
        return True

    def close(self) -> None:
        """End the look-ups that are under way."""
        for lookup in list(self._lookups.values()):
            lookup.cancel()

    def holds(self, caller: Caller, changes: int) -> bool:
        """Whether a caller that was found at so many changes would be found again."""
        is_held = changes == self.changes and self._is_fresh and not 0 < caller.expires_s <= self._now_s()
        if is_held:
            self._used.add(caller.key_id)
        return is_held

    def take_used(self) -> set[str]:
        """Ids of the keys that were used since the last call, or that something holds now."""
        found, self._used = self._used | set(self._holds.ids), set()
        return found

    def hold(self, caller: Caller, holder: Holder) -> None:
        """Have a holder ended once the caller's key no longer counts. A holder of the same key takes its place."""
        self._holds.take(caller.key_id, caller, holder)

    def release(self, caller: Caller, holder: Holder) -> None:
        """Forget a holder that has ended by itself."""
        self._holds.release(caller.key_id, holder)

    async def end_withdrawn(self) -> None:
        """End what holds a key that was revoked, changed or expired; all of it once keys are too old to go by."""
        if not self._is_fresh:
            for key_id in self._holds.ids:
                await self._holds.judge(key_id, lambda _: Denied(problems.BUSY, UNKNOWN))
            return
        now_s, known, judged = self._now_s(), self._keys, self._judged
        if known is judged and self._judged_at_s <= now_s < self._next_expiry_s:
            return
        for key_id in self._holds.ids:
            key = known.get(key_id)
            if key is None or key != judged.get(key_id) or 0 < key.expires_s <= now_s:
                await self._holds.judge(key_id, withdrawal(key, now_s))
        self._judged, self._judged_at_s = known, now_s
        self._next_expiry_s = min((key.expires_s for key in known.values() if key.expires_s > now_s), default=math.inf)

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
async def kept(
    connect_to: Callable[[], redis.Redis], is_noting: bool = False, limit: LookupLimit | None = None
) -> AsyncIterator[Keyring]:
    """Within this, a keyring that is kept up to date, and whose keys' use is noted if `is_noting`."""
    with connect_to() as client:
        keyring = Keyring(partial(shared_state.keys_since, client), limit=limit)
        await keyring.read_again()
        keeping = [asyncio.create_task(task) for task in (_refresh_for_ever(keyring), _end_for_ever(keyring))]
        if is_noting:
            keeping.append(asyncio.create_task(_note_used_for_ever(keyring, client)))
        try:
            yield keyring
        finally:
            keyring.close()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            if is_noting:
                await _note_used(keyring, client)


def required(settings: Settings, is_noting: bool = False) -> AbstractAsyncContextManager[Keyring | None]:
    """The keyring of a program, if the settings require keys."""
    if not settings.auth.required:
        return contextlib.nullcontext()
    return kept(lambda: connect(settings, READ_TIMEOUT_S), is_noting, LookupLimit(settings.limits))


async def _refresh_for_ever(keyring: Keyring) -> None:
    await run_periodically("keys", REFRESH_S, lambda: asyncio.shield(keyring.read_again()))


async def _end_for_ever(keyring: Keyring) -> None:
    """A task of its own: a read that waits for a silent Redis must not keep an expired key alive."""
    await run_periodically("withdrawn keys", JUDGE_S, keyring.end_withdrawn)


async def _note_used_for_ever(keyring: Keyring, client: redis.Redis) -> None:
    await run_periodically("use of keys", NOTE_USED_S, lambda: asyncio.shield(_note_used(keyring, client)))


async def _note_used(keyring: Keyring, client: redis.Redis) -> None:
    """Note it, unless Redis is away or full: then only the time of a use is lost."""
    used = keyring.take_used()
    if not used:
        return
    try:
        await asyncio.to_thread(shared_state.note_used, client, used, int(time.time()))
    except (StoreError, BusyError) as error:
        log.debug("cannot note when keys were used: %s", error)
