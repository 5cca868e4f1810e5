"""Keeps each sender's numbered batches in order: after a failed batch, later ones are rejected until it is retried."""

from __future__ import annotations

from typing import NamedTuple

from telemetry.hot_store.operations.append import UNLIMITED, Owner

MAX_FAILED_SENDERS = 1_000
"""Maximum number of senders with failed batches that a connection remembers; beyond it, the sender must reconnect."""


class Lane:
    """The failed batches of one connection.

    If batch 6 were stored after batch 5 failed, the retry of 5 would be dropped as a duplicate. After a failure all
    batches with greater numbers are therefore rejected until that number is sent again, or the sender reconnects. The
    writers' threads use it, each for its own shard.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._failed: dict[tuple[int, str], int] = {}

    def may_go(self, shard: int, sender: str, number: int) -> bool:
        """True if a batch may be stored. The retry of a failed batch, or an earlier one, lifts the block."""
        failed = self._failed.get((shard, sender))
        if failed is not None and number <= failed:
            del self._failed[shard, sender]
        return not self.is_over and (failed is None or number <= failed)

    def failed(self, shard: int, sender: str, number: int) -> None:
        """Record a failure. With too many senders everything is rejected from then on."""
        if not self.is_over:
            self._failed[shard, sender] = min(self._failed.get((shard, sender), number), number)
            self.is_over = len(self._failed) > MAX_FAILED_SENDERS


class Numbered(NamedTuple):
    """A numbered batch: its number is above the numbers of the sender's earlier batches, or it is a repeat."""

    sender: str
    number: int
    lane: Lane
    owner: Owner = UNLIMITED
