"""A writer whose calls wait: records go in one by one, batches go out from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.errors import WriterClosed
from whimbrel_client.gathering import Gathering, left_of, next_batch, pause_s, plus
from whimbrel_client.values import encoded


class Writer:
    """Gathers records and sends them; threads may share it. A `with` around it sends what is left at its end.

    `totals` is what came of all so far; of the refused records it has the last 1,000, and `on_refused` is called with
    each as it comes, from the writer's thread. Where sending fails for good, the next call raises why, and `unsent` has
    what the box may not have, for `resend`; with a spool nothing fails but the disk.
    """

    def __init__(
        self,
        send: Callable[[Sequence[bytes]], Sent],
        next_try_s: Callable[[], float | None],
        max_records: int,
        max_delay_s: float,
        on_refused: Callable[[Sequence[Refused]], object] | None,
    ) -> None:
        self.totals = Sent()
        self.unsent: Sequence[Batch] = ()
        self._send = send
        self._next_try_s = next_try_s
        self._on_refused = on_refused
        self._gathering = Gathering(max_records, max_delay_s)
        self._changed = threading.Condition()
        self._is_sending = False
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="whimbrel-writer", daemon=True)
        self._thread.start()

    def write(self, record: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Add a record, given as a mapping, as fields, or both; waits while ten batches are on their way.

        Raises `ValueError` or `TypeError` for what JSON can't hold, and why sending failed.
        """
        item = encoded({**(record or {}), **fields})
        with self._changed:
            self._changed.wait_for(lambda: self._gathering.has_room or self._is_over)
            self._raise_if_over()
            self._gathering.add(item, time.monotonic())
            self._changed.notify_all()

    def flush(self) -> Sent:
        """Send what was written until now, and wait for it: on the box's disk, or in the spool. Returns the totals."""
        with self._changed:
            self._gathering.want()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or not (self._gathering or self._is_sending))
            self._raise_if_failed()
            return self.totals

    def close(self) -> None:
        """Flush, and end. Raises why sending failed."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._raise_if_failed()

    @property
    def _is_over(self) -> bool:
        return self._is_closing or self._error is not None

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _raise_if_over(self) -> None:
        self._raise_if_failed()
        if self._is_closing:
            raise WriterClosed("cannot write: the writer is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:  # that error is the one to hear of
            with self._changed:
                self._is_closing = True
                self._changed.notify_all()
            self._thread.join()

    # The thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (items := self._next()) is not None:
            try:
                self._note(self._send(items))
            except BaseException as error:  # whoever writes hears of it
                self._fail(error, items)
                return

    def _next(self) -> Sequence[bytes] | None:
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()
            while True:
                now_s, again_s = time.monotonic(), self._next_try_s()
                found = next_batch(self._gathering, self._is_closing, now_s, again_s)
                if found is not None:
                    self._is_sending = bool(found)
                    return found
                if self._is_closing:
                    return None
                self._changed.wait(pause_s(self._gathering, now_s, again_s))

    def _note(self, sent: Sent) -> None:
        with self._changed:
            self.totals = plus(self.totals, sent)
        if sent.refused and self._on_refused is not None:
            self._on_refused(sent.refused)

    def _fail(self, error: BaseException, items: Sequence[bytes]) -> None:
        with self._changed:
            self.unsent = left_of(self._gathering, error, items)
            self._error = error
            self._is_sending = False
            self._changed.notify_all()
