"""Batches: records as they are sent, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Records that go to the box in one request, under a number that they keep until it has answered.

    `body` is a JSON array of `record_count` records. The box stores a number of a sender once, whatever comes under it,
    and takes it only above those before. A batch that was never tried has no sender and no number yet.
    """

    sender_id: str
    number: int
    body: bytes
    record_count: int

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records as they are sent: times are text."""
        found: list[dict[str, Any]] = json.loads(self.body)
        return found

    def without(self, index: int) -> Batch:
        """The same without one record. It keeps the number: of a batch that is refused nothing was stored."""
        left = self.records
        del left[index]
        return self._replace(body=json.dumps(left, separators=(",", ":")).encode(), record_count=len(left))


def joined(items: Sequence[bytes]) -> Batch:
    """A batch, without a number, of records that are JSON each."""
    return Batch("", 0, b"[" + b",".join(items) + b"]", len(items))


class Refused(NamedTuple):
    """A record that the box won't take, and why: its sentence, the field where it names one, the problem's type."""

    record: dict[str, Any]
    reason: str
    field: str | None = None
    type: str = ""


class Sent(NamedTuple):
    """What came of records.

    `accepted` are on the box's disk, `refused` it will never take, `waiting` are in the spool, and `error` says why
    they wait. Without a spool nothing waits. With one, `accepted` also counts records of earlier calls that went out.
    """

    accepted: int = 0
    refused: tuple[Refused, ...] = ()
    waiting: int = 0
    error: Exception | None = None

    def plus(self, other: Sent) -> Sent:
        """Both together, one after the other."""
        return Sent(self.accepted + other.accepted, self.refused + other.refused, other.waiting, other.error)
