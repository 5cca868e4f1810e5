"""What is to be sent, in order: with a spool it goes to the disk first, and to the box when that is there."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from whimbrel_client.batch import Batch, Sent, joined
from whimbrel_client.delivery import delivered
from whimbrel_client.errors import BoxUnavailable, WhimbrelError
from whimbrel_client.retrying import Patience, Pauses
from whimbrel_client.spool import Spool
from whimbrel_client.steps import Do, Steps, Wait

BATCH_RECORDS = 1_000
BATCH_BYTES = 2**19
"""How much goes into one request: far less than a box takes, and so much that more would not be quicker."""


def batches_of(items: Sequence[bytes]) -> list[Batch]:
    """Encoded records in batches of such sizes, in their order, without numbers yet."""
    found: list[Batch] = []
    begin, size = 0, 0
    for place, item in enumerate(items):
        if place > begin and (place - begin == BATCH_RECORDS or size + len(item) > BATCH_BYTES):
            found.append(joined(items[begin:place]))
            begin, size = place, 0
        size += len(item) + 1
    return [*found, joined(items[begin:])] if items else []


class Direct:
    """Straight to the box: whoever sends waits until it has answered, or hears that it is away."""

    def __init__(self, retry_for_s: float, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._retry_for_s = retry_for_s
        self._new_id = new_id
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._sender_id = self._new_id()
        self._number = 0

    def send(self, items: Sequence[bytes]) -> Steps[Sent]:
        """Send encoded records. Raises as `resend` does."""
        return (yield from self.resend(batches_of(items)))

    def resend(self, batches: Sequence[Batch]) -> Steps[Sent]:
        """Send batches, under their numbers if they have some. Raises as `delivered` does, for all that are left.

        Where one fails, what is numbered next is of a new sender: a greater number of the same one would have the box
        take the failed batch, when it comes again, for a repeat.
        """
        sent = Sent()
        for place, batch in enumerate(batches):
            try:
                sent = sent.plus((yield from delivered(self._numbered(batch), Patience(self._retry_for_s))))
            except WhimbrelError as error:
                self._begin_anew()
                error.undelivered = (*error.undelivered, *batches[place + 1 :])
                error.sent = sent.plus(error.sent)
                raise
            except BaseException:  # given up amid a try
                self._begin_anew()
                raise
        return sent

    def _numbered(self, batch: Batch) -> Batch:
        if batch.sender_id:
            return batch
        self._number += 1
        return batch._replace(sender_id=self._sender_id, number=self._number)

    def drain(self, timeout_s: float) -> Steps[Sent]:
        """Nothing ever waits."""
        del timeout_s
        yield Wait(0)
        return Sent()

    @property
    def next_try_s(self) -> float | None:
        """When to look at what waits: never."""
        return None

    def close(self) -> None:
        """Nothing is open."""


class Spooled:
    """To the disk first. What waits there goes out in its order, as soon as the box takes it."""

    def __init__(self, spool: Spool, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._clock = clock
        self._pauses = Pauses()
        self._not_before_s = 0.0
        self._error: WhimbrelError | None = None

    @property
    def next_try_s(self) -> float | None:
        """When, by the clock, to send what waits; None if nothing does."""
        return self._not_before_s if self._spool.waiting_records else None

    def send(self, items: Sequence[bytes]) -> Steps[Sent]:
        """Keep encoded records, and send what waits if it is time.

        When it returns they are on this disk or on the box's. Raises `SpoolError` if they can't be kept: `undelivered`
        has those that are not, without a number.
        """
        return (yield from self.resend(batches_of(items)))

    def resend(self, batches: Sequence[Batch]) -> Steps[Sent]:
        """The same of batches that failed before. One that has a number, of a client without a spool, goes at once."""
        sent = Sent()
        for place, batch in enumerate(batches):
            try:
                if batch.sender_id:
                    sent = sent.plus((yield from delivered(batch, Patience(0))))
                else:
                    yield Do(partial(self._spool.append, batch))
            except WhimbrelError as error:
                error.undelivered = batches[place:]
                error.sent = sent._replace(waiting=self._spool.waiting_records)
                raise
        return sent.plus((yield from self._tried()))

    def drain(self, timeout_s: float) -> Steps[Sent]:
        """Send what waits until nothing does, or the time is over. Raises what the box refuses, such as the key."""
        until_s = self._clock() + timeout_s
        sent = Sent()
        self._not_before_s = 0.0
        while True:
            sent = sent.plus((yield from self._tried()))
            if not sent.waiting or self._clock() >= until_s:
                return sent
            if self._error is not None and not isinstance(self._error, BoxUnavailable):
                raise self._error
            yield Wait(max(0.0, min(self._not_before_s, until_s) - self._clock()))

    def _tried(self) -> Steps[Sent]:
        sent = Sent()
        while self._clock() >= self._not_before_s:
            batch: Batch | None = yield Do(self._spool.head)
            if batch is None:
                self._error = None
                break
            try:
                one = yield from delivered(batch, Patience(0))
            except WhimbrelError as error:
                self._error, least_s = error, error.retry_after_s
                self._not_before_s = self._clock() + self._pauses.next_s(least_s)
                break
            self._pauses.succeeded()
            self._error = None
            yield Do(partial(self._spool.settle, batch, one.refused))
            sent = sent.plus(one)
        return sent._replace(waiting=self._spool.waiting_records, error=self._error)

    def close(self) -> None:
        """Let another process have the spool."""
        self._spool.close()


def outbox_of(spool: Spool | str | os.PathLike[str] | None, retry_for_s: float) -> Direct | Spooled:
    """What sends: by way of a spool, if there is one."""
    if spool is None:
        return Direct(retry_for_s)
    return Spooled(spool if isinstance(spool, Spool) else Spool(spool))
