"""What can go wrong between a client and its box.

    WhimbrelError
    ├── BoxUnavailable       no answer, or one that says "later": 408, 429, 5xx. The same again may go well
    │   ├── RateLimited      429
    │   └── AnswerBrokenOff  an answer that began and did not end
    ├── RequestRefused       any other answer that is not of success. The same again would be refused again
    │   ├── KeyRefused       401, 403: no key, a wrong one, or one that is not for this
    │   ├── NotFound         404
    │   └── TooLarge         413
    ├── AnswerTruncated      an answer to SQL that the box cut at its bounds
    ├── SpoolError           the folder of a spool can't be used
    │   ├── SpoolInUse       another process has it
    │   └── SpoolFull        it has no room for a batch
    └── WriterClosed         a writer that was closed, or has failed, is written to

A record or a parameter that can't be written as text at all is a `ValueError` or `TypeError` before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel_client.batch import Batch, Sent


class WhimbrelError(Exception):
    """Whatever this package raises. The message is one sentence: what failed, and why.

    What the box said of it (RFC 9457) stands in `type`, `title`, `detail` and `status`; they are empty, and 0, where
    it said nothing. `members` are all members of its answer. Where a `send` failed, `undelivered` are the batches of
    it that the box may not have, and `sent` is what came of those before.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        members: Mapping[str, Any] | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.members: Mapping[str, Any] = members or {}
        self.type = str(self.members.get("type", ""))
        self.title = str(self.members.get("title", ""))
        self.detail = str(self.members.get("detail", ""))
        self.status = status
        self.retry_after_s = retry_after_s
        self.undelivered: Sequence[Batch] = ()
        self.sent = Sent()


class BoxUnavailable(WhimbrelError):
    """The box gave no answer, or says that it can't now."""


class RateLimited(BoxUnavailable):
    """There were too many requests or records of this address or key; `retry_after_s` says when to come again."""


class AnswerBrokenOff(BoxUnavailable):
    """The connection ended amid an answer: what arrived is not the whole."""


class RequestRefused(WhimbrelError):
    """The box does not take this request, now or later."""


class KeyRefused(RequestRefused):
    """The key is missing, unknown, or not for this."""


class NotFound(RequestRefused):
    """There is no such device, or no such address."""


class TooLarge(RequestRefused):
    """The body has more bytes or records than the box takes."""


class AnswerTruncated(WhimbrelError):
    """An answer to SQL reached a bound of the box; `table` is what came."""

    def __init__(self, message: str, table: Any) -> None:
        super().__init__(message)
        self.table = table


class SpoolError(WhimbrelError):
    """The folder of a spool can't be used."""


class SpoolInUse(SpoolError):
    """Another process has the spool open."""


class SpoolFull(SpoolError):
    """The spool has no room for a batch; nothing of that batch was kept."""


class WriterClosed(WhimbrelError):
    """The writer was closed, or has failed: it takes no more records."""
