"""In-memory cache of the API keys, refreshed from Redis once a second.

A use that outlives the check takes a hold (holds.py). It is ended within seconds after its key was revoked, changed or
expired.

An unknown key may have been created since the last refresh: `find_new` reads again at once, within the lookup limit
(lookup_limit.py). Concurrent lookups share a read.

A revoked key is rejected within `REFRESH_S` and the time of a read. While Redis is unreachable, the cache is used for
`MAX_STALE_S`. A key revoked in this time is still accepted, which does little harm because nothing can be stored. After
that, and before the first read, every check raises `StoreUnavailable`, and all holders are ended.

Programs that serve clients record once a minute which keys were used, for `whimbrel keys list`.
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
"""Timeout for the lookup of a request's key: shorter than `READ_TIMEOUT_S`, because an unresponsive Redis blocks it."""

UNKNOWN = "cannot check this key: Redis, which stores the keys, is not reachable"

Read = Callable[[Stamp | None], tuple[Stamp, dict[str, Key] | None]]
"""Reads the keys; returns None for them if the stamp is unchanged. Raises `StoreError`, `BusyError`."""


class Keyring:
    """Finds the caller of a key. All methods except `refresh` must be called in the event loop."""

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
        self._lookups: dict[str, asyncio.Task[bool]] = {}  # by key id
        self._reads_begun = 0
        self._has_read = False  # True if the last read succeeded
        self._now_s = now_s
        self._elapsed_s = elapsed_s
        self._stamp: Stamp | None = None
        self._used: set[str] = set()
        self._keys: Mapping[str, Key] = {}
        self._read_at_s: float | None = None
        self._holds = Holds[Caller]()
        self._judged: Mapping[str, Key] = self._keys
        self._judged_at_s = self._next_expiry_s = 0.0
        self.changes = 0  # code that caches a caller must check again when this changes

    def check(self, text: str) -> Caller | Denied:
        """The caller with this key, or the reason for rejection. Raises `StoreUnavailable` if the cache is too old."""
        if not self._is_fresh:
            raise StoreUnavailable(UNKNOWN)
        caller = api_keys.check(text, self._keys.get, self._now_s())
        if isinstance(caller, Caller):
            self._used.add(caller.key_id)
        return caller

    def may_be_new(self, text: str) -> bool:
        """True if a text that `check` rejects could be a key created since the last refresh."""
        key_id = complete_key_id(text)
        return bool(key_id) and key_id not in self._keys

    async def find_new(self, text: str, address: str) -> None:
        """Read the keys again, within the lookup limit, if this may be a new key, so that `check` finds it.

        Raises `StoreUnavailable` if Redis does not answer: the key may be valid.
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
        """Read the current keys; one read serves all concurrent callers. False if it failed."""
        reads_begun = self._reads_begun
        async with self._lock:
            if self._reads_begun == reads_begun:
                self._reads_begun += 1
                self._has_read = await self._try_refresh()
            return self._has_read

    async def _try_refresh(self) -> bool:
        try:
            await asyncio.to_thread(self.refresh)
        except (StoreError, BusyError) as error:
            log.debug("cannot refresh the keys, using those read before: %s", error)
            return False
        return True

    def close(self) -> None:
        """Cancel lookups in progress."""
        for lookup in list(self._lookups.values()):
            lookup.cancel()

    def holds(self, caller: Caller, changes: int) -> bool:
        """True if a caller found at `changes` is still valid without a new check."""
        is_held = changes == self.changes and self._is_fresh and not 0 < caller.expires_s <= self._now_s()
        if is_held:
            self._used.add(caller.key_id)
        return is_held

    def take_used(self) -> set[str]:
        """Ids of the keys used since the last call, or with holders now."""
        used, self._used = self._used | set(self._holds.ids), set()
        return used

    def hold(self, caller: Caller, holder: Holder) -> None:
        """Register a holder to end once the caller's key is withdrawn; replaces the same holder of this key."""
        self._holds.take(caller.key_id, caller, holder)

    def release(self, caller: Caller, holder: Holder) -> None:
        """Forget a holder that has ended."""
        self._holds.release(caller.key_id, holder)

    async def end_withdrawn(self) -> None:
        """End the holders of keys that were revoked, changed or expired; all holders once the cache is too old."""
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
        """Read the keys if they have changed. Raises `StoreError`, `BusyError`."""
        begun_s = self._elapsed_s()
        stamp, keys = self._read(self._stamp)
        if keys is not None:
            self._keys, self._stamp = keys, stamp
            self.changes += 1
        self._read_at_s = begun_s


@contextlib.asynccontextmanager
async def refreshed_keyring(
    connect_to: Callable[[], redis.Redis], is_noting: bool = False, limit: LookupLimit | None = None
) -> AsyncIterator[Keyring]:
    """Context with a keyring that is refreshed; records the use of its keys if `is_noting`."""
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
    """Context with a program's keyring; None if the settings require no keys."""
    if not settings.auth.required:
        return contextlib.nullcontext()
    return refreshed_keyring(lambda: connect(settings, READ_TIMEOUT_S), is_noting, LookupLimit(settings.limits))


async def _refresh_for_ever(keyring: Keyring) -> None:
    await run_periodically("keys", REFRESH_S, lambda: asyncio.shield(keyring.read_again()))


async def _end_for_ever(keyring: Keyring) -> None:
    """A separate task: a read that waits for Redis must not keep an expired key alive."""
    await run_periodically("withdrawn keys", JUDGE_S, keyring.end_withdrawn)


async def _note_used_for_ever(keyring: Keyring, client: redis.Redis) -> None:
    await run_periodically("use of keys", NOTE_USED_S, lambda: asyncio.shield(_note_used(keyring, client)))


async def _note_used(keyring: Keyring, client: redis.Redis) -> None:
    """Record the uses; if Redis is unreachable or full, only the time of a use is lost."""
    used = keyring.take_used()
    if not used:
        return
    try:
        await asyncio.to_thread(shared_state.note_used, client, used, int(time.time()))
    except (StoreError, BusyError) as error:
        log.debug("cannot record the use of keys: %s", error)
