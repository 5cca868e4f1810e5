"""Registry of long-lived uses of credentials, so that a withdrawn credential ends everything that it opened.

A check of a key lasts a moment; a request, a stream or a TCP connection outlives it. Each takes a hold under the
credential's id and releases it at its end. The owner of the credentials (key_cache.py for keys) judges the holds of an
id when that credential changes or expires. A hold that is no longer allowed is removed, then its holder is ended.
Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from telemetry.model.api_keys import Denied

C = TypeVar("C")

TURN_HOLDERS = 500
"""Holders judged before the event loop does other work: one fleet key may have as many holders as connections."""


class Holder(Protocol):
    """A long-lived use of a credential."""

    def end(self, denied: Denied) -> None:
        """End soon, for this reason. Called at most once for each hold; must not block or raise."""
        ...


class Holds(Generic[C]):
    """Holders by the id of their credential. `C` is the result of a check, such as `Caller`."""

    def __init__(self) -> None:
        self._by_id: dict[str, dict[Holder, C]] = {}

    def take(self, credential_id: str, credential: C, holder: Holder) -> None:
        """Register a holder; for a registered one, replace its credential."""
        held = self._by_id.get(credential_id)
        if held is None:
            self._by_id[credential_id] = {holder: credential}
        else:
            held[holder] = credential

    def release(self, credential_id: str, holder: Holder) -> bool:
        """Forget a holder. Returns False if it was not registered."""
        held = self._by_id.get(credential_id)
        if held is None or held.pop(holder, None) is None:
            return False
        if not held:
            del self._by_id[credential_id]
        return True

    @property
    def ids(self) -> list[str]:
        """Credentials with holders."""
        return list(self._by_id)

    async def judge(self, credential_id: str, judge: Callable[[C], Denied | None]) -> None:
        """End the holders of a credential for which `judge` returns a reason."""
        for number, (holder, credential) in enumerate(list(self._by_id.get(credential_id, {}).items()), 1):
            denied = judge(credential)
            if denied is not None and self.release(credential_id, holder):
                holder.end(denied)
            if number % TURN_HOLDERS == 0:
                await asyncio.sleep(0)
