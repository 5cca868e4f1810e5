"""What sending over HTTP and over TCP have in common: batches, answers, counts and patience."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from cli.sending.sources import Row, Unreadable
from telemetry.model.errors import BusyError, SenderError

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
"""Back-off doubles from the first to the longest: short enough to go on soon after a restart."""

MAX_CATCH_UP_S = 1.0
"""How far a paced sender that was held up may make up for lost time."""

Batch = list[Row]
Say = Callable[[str], None]


class Accepted(NamedTuple):
    """The collector has this many records on disk."""

    records: int


class Refused(NamedTuple):
    """Nothing of the batch was stored; `record` is the place of the one to blame, None if that isn't known."""

    reason: str
    record: int | None = None


class Busy(NamedTuple):
    """Nothing is wrong with the batch: send it again later."""

    reason: str
    retry_after_s: float = 0.0


Answer = Accepted | Refused | Busy


class Sender(Protocol):
    """Sends batches and counts what became of them."""

    def send(self, batch: Batch) -> None:
        """Send a batch; its answer may come later."""

    def finish(self) -> None:
        """Wait until all that was sent is answered."""

    def unanswered(self) -> Iterable[Batch]:
        """What was given to `send` and is neither accepted nor refused."""

    def close(self) -> None:
        """Leave the connection."""


class Tally:
    """What became of a file's records. Every one is counted once: it is accepted, refused or unanswered."""

    def __init__(self, file_name: str, say: Say, progress: Callable[[int], object]) -> None:
        self.sent = 0
        self.accepted = 0
        self.refused = 0
        self._file_name = file_name
        self._say = say
        self._progress = progress

    @property
    def complete(self) -> bool:
        """True if all was accepted."""
        return self.accepted == self.sent and self.refused == 0

    def accept(self, records: int) -> None:
        """Count records that are safe."""
        self.accepted += records
        self._progress(records)

    def refuse(self, line: int, reason: str) -> None:
        """Count one record that is not taken, and say where it stands and why."""
        self.refused += 1
        self._say(f"{self._file_name}, line {line}: {reason}")

    def readable(self, rows: Iterable[Row | Unreadable], max_bytes: int) -> Iterator[Row]:
        """Count all rows, and pass on those that can be sent."""
        for row in rows:
            self.sent += 1
            if isinstance(row, Unreadable):
                self.refuse(row.line, row.reason)
            elif len(row.body) > max_bytes:
                self.refuse(row.line, f"a record of {len(row.body)} bytes, at most {max_bytes} are taken")
            else:
                yield row


def batches(rows: Iterable[Row], max_records: int, max_bytes: int) -> Iterator[Batch]:
    """Cut rows into batches of at most so many records, and so many bytes as one JSON array.

    Where the source breaks off, what it gave before is still sent.
    """
    batch: Batch = []
    size = 0
    try:
        for row in rows:
            if batch and size + len(row.body) + 2 > max_bytes:
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += len(row.body) + 1
            if len(batch) == max_records:
                yield batch
                batch, size = [], 0
    except SenderError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def json_array(batch: Batch) -> bytes:
    """A batch as one JSON array, without a newline."""
    return b"[" + b",".join([row.body for row in batch]) + b"]"


def paced(
    source: Iterable[Batch], rate: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Batch]:
    """Hold batches back, so that `rate` records a second pass."""
    due = clock()
    for batch in source:
        now = clock()
        if due > now:
            sleep(due - now)
        due = max(due, now - MAX_CATCH_UP_S) + len(batch) / rate
        yield batch


def settle(batch: Batch, answer: Accepted | Refused, tally: Tally) -> list[Batch]:
    """Count an answer, and return what of the batch has to be sent again.

    A batch is refused whole for one record, named by its index: the others go again without it. Those
    behind it were not looked at yet, so they go as two halves: each bad record costs three more batches
    at most, and many of them don't cost a pass over all the rest each. Where none is named, halves find it.
    """
    if isinstance(answer, Accepted):
        tally.accept(answer.records)
        return []
    index = answer.record if len(batch) > 1 else 0
    if index is None or not 0 <= index < len(batch):
        return _halves(batch)
    tally.refuse(batch[index].line, answer.reason)
    return [part for part in (batch[:index], *_halves(batch[index + 1 :])) if part]


def _halves(batch: Batch) -> list[Batch]:
    middle = (len(batch) + 1) // 2
    return [batch[:middle], batch[middle:]]


class Patience:
    """Waits longer after each failure in a row, and gives up `seconds` after the first."""

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None], say: Say) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._say = say
        self._first: float | None = None
        self._wait_s = FIRST_WAIT_S

    def failed(self, reason: str, retry_after_s: float = 0.0) -> None:
        """Wait before the next try. Raises `BusyError` when there has been enough of them."""
        now = self._clock()
        if self._first is None:
            self._first = now
            self._say(f"{reason}; trying again for {self._seconds:g} s")
        left = self._first + self._seconds - now
        if left <= 0:
            raise BusyError(f"gave up after {self._seconds:g} s: {reason}")
        self._sleep(min(left, max(retry_after_s, self._wait_s)))
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def succeeded(self) -> None:
        """Forget the failures so far."""
        self._first = None
        self._wait_s = FIRST_WAIT_S
