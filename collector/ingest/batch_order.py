"""Of senders who number their batches: that none overtakes one of its own that could not be stored."""

from __future__ import annotations

from typing import NamedTuple

from telemetry.hot_store.operations.append import UNLIMITED, Owner

MAX_FAILED_SENDERS = 1_000
"""Senders of one connection whose failures are remembered; a gateway with more begins a connection anew."""


class Lane:
    """What of one connection could not be stored, so that none of its senders overtakes itself.

    Were a sender's batch 6 stored although its 5 failed, then 5 would be taken for a repeat when it comes again,
    and be lost. So behind a failure all with a greater number fail, until that number comes again or, over another
    connection, the sender begins anew. The writers' threads use it, each for its own shard.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._failed: dict[tuple[int, str], int] = {}

    def may_go(self, shard: int, sender: str, number: int) -> bool:
        """Whether a batch overtakes none. One that failed before, or an earlier one, lets those behind it go."""
        failed = self._failed.get((shard, sender))
        if failed is not None and number <= failed:
            del self._failed[shard, sender]
        return not self.is_over and (failed is None or number <= failed)

    def failed(self, shard: int, sender: str, number: int) -> None:
        """Note a failure. With too many senders to be remembered the lane is over: nothing goes any more."""
        if not self.is_over:
            self._failed[shard, sender] = min(self._failed.get((shard, sender), number), number)
            self.is_over = len(self._failed) > MAX_FAILED_SENDERS


class Numbered(NamedTuple):
    """A batch of a sender: its number is above those of all the sender's batches before, or it is a repeat."""

    sender: str
    number: int
    lane: Lane
    owner: Owner = UNLIMITED
