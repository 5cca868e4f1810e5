"""Interface of the receivers.

Errors: `BusyError` and `OSError`: unreachable or full; try the same again later. `RecordError` with an `index`: this
record of the batch is not accepted. `SenderError`: the batch is not accepted, and the operator must act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from telemetry.archive.change_feed import Change
from telemetry.model.errors import SenderError
from worker.courier.delivery.record_batches import Encode


class BatchRefused(SenderError):
    """The receiver rejects this batch; it may accept the next."""


class Batch(NamedTuple):
    """Records with their sender and number, the same when sent again."""

    sender: str
    number: int
    items: Sequence[bytes]


class Bounds(NamedTuple):
    """Limits of batches. For a receiver that knows batches by number they must never change."""

    most_records: int
    most_bytes: int


class RecordTarget(Protocol):
    """Receives records."""

    bounds: Bounds
    encode: Encode

    def send(self, batch: Batch) -> bool:
        """Send a batch. False if the receiver reports that it has the number already."""

    def close(self) -> None:
        """Close the connection."""


class TableTarget(Protocol):
    """Receives a copy of the table."""

    def newest(self) -> int | None:
        """The version of an existing copy; None if there is none, or an incomplete one.

        Raises `SenderError` if it belongs to another archive.
        """

    def begin(self, files: Sequence[str], version: int) -> None:
        """Begin a copy: all `files` of the table at `version`, then its log up to there."""

    def copy(self, change: Change) -> None:
        """Copy the files that a version added, then its entry."""

    def rewind(self, version: int) -> bool:
        """Remove entries above a version from the copy's log. False if no readable table remains."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files of the copy."""

    def close(self) -> None:
        """Close the connection."""


Sent = Callable[[int], None]
"""Called with the number of bytes sent; waits if they exceed the bandwidth limit."""
