"""Limits on concurrent readers of `/v1/live`: in total, with one key, and from one address."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from starlette.types import Scope

from telemetry.config.settings import Settings
from telemetry.http.authentication import caller_of
from telemetry.http.problem_responses import ProblemError
from telemetry.http.rate_limiting import ASKING
from telemetry.limits.client_address import Addresses
from telemetry.model import problems

RETRY_S = 5


class Readers:
    """Counts readers from their admission on. 0 = no limit per key or address."""

    def __init__(self, addresses: Addresses, max_readers: int, per_key: int = 0, per_address: int = 0) -> None:
        self._addresses = addresses
        self._max_readers = max_readers
        self._per_key = per_key
        self._per_address = per_address
        self._keys: Counter[str] = Counter()
        self._peers: Counter[str] = Counter()
        self.count = 0

    @classmethod
    def of(cls, settings: Settings) -> Readers:
        """Readers with the limits from the settings."""
        a = settings.api
        return cls(
            Addresses.of(settings), a.max_live_readers, a.max_live_readers_per_key, a.max_live_readers_per_address
        )

    @contextlib.contextmanager
    def admitted(self, scope: Scope) -> Iterator[None]:
        """Count a reader while in the context. Raises `ProblemError` if a limit is reached."""
        key_id, address = caller_of(scope).key_id, self._address(scope)
        self._check(key_id, address)
        self._add(key_id, address, 1)
        try:
            yield
        finally:
            self._add(key_id, address, -1)

    def _check(self, key_id: str, address: str) -> None:
        if self.count >= self._max_readers:
            raise _too_many(f"too many readers of /v1/live: {self._max_readers}")
        if key_id and self._keys[key_id] >= self._per_key > 0:
            raise _too_many(f"too many readers of /v1/live with the key {key_id}: {self._per_key}")
        if address and self._peers[address] >= self._per_address > 0:
            raise _too_many(f"too many readers of /v1/live from {address}: {self._per_address}")

    def _add(self, key_id: str, address: str, sign: int) -> None:
        self.count += sign
        for counter, name in ((self._keys, key_id), (self._peers, address)):
            counter[name] += sign
            if not counter[name]:
                del counter[name]

    def _address(self, scope: Scope) -> str:
        """The client's address; empty for a trusted proxy."""
        asking = scope.get(ASKING)
        if asking is not None:
            address: str = asking.address
        else:
            peer = scope["client"]
            address = self._addresses.asking(peer[0] if peer else "", scope["headers"])
        return "" if self._addresses.is_trusted(address) else address


def _too_many(detail: str) -> ProblemError:
    return ProblemError(problems.BUSY, detail, {"Retry-After": str(RETRY_S)})
