"""What every kind of receiver is to the courier.

Errors say what follows. `BusyError` and `OSError`: it can't be reached or has no room, try the same again later.
`RecordError` with an `index`: that record of the batch can't be taken. `SenderError`: the batch can't be, whoever
runs the box must look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from telemetry.archive.change_feed import Change
from telemetry.model.errors import SenderError
from worker.courier.delivery.record_batches import Encode


class BatchRefused(SenderError):
    """The receiver won't take this batch; it may take the next."""


class Batch(NamedTuple):
    """Records with the sender and the number that name them, each time the same."""

    sender: str
    number: int
    items: Sequence[bytes]


class Bounds(NamedTuple):
    """How large batches are. For a receiver that knows them by number these are constants, for ever."""

    most_records: int
    most_bytes: int


class RecordTarget(Protocol):
    """Takes records."""

    bounds: Bounds
    encode: Encode

    def send(self, batch: Batch) -> bool:
        """Have the receiver store a batch. False if it says that it had that number already."""

    def close(self) -> None:
        """Leave the connection."""


class TableTarget(Protocol):
    """Takes a copy of the table."""

    def newest(self) -> int | None:
        """The version of the copy that is there; None if there is none, or one that is not whole.

        Raises `SenderError` if it isn't of this archive.
        """

    def begin(self, files: Sequence[str], version: int) -> None:
        """Begin a copy: all `files` that the table names at `version`, then its log up to there."""

    def copy(self, change: Change) -> None:
        """Copy what a version added, then its entry."""

    def rewind(self, version: int) -> bool:
        """Take from the copy's log what is above a version. False if what is left is no table."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files of the copy."""

    def close(self) -> None:
        """Leave the connection."""


Sent = Callable[[int], None]
"""Told the bytes that were just sent; it waits where they were too many."""
