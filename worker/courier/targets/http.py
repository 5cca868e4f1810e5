"""HTTP receiver: NDJSON, compressed, one POST per batch, with an Idempotency-Key that is the same when it is
repeated."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable

from telemetry.model.errors import BusyError, SenderError
from worker.courier.alerts.events import signed
from worker.courier.delivery.http_client import NOT_NOW, Peer
from worker.courier.delivery.record_batches import json_line
from worker.courier.targets.target import Batch, BatchRefused, Bounds, Sent

MOST_BYTES = 4 * 2**20
"""Maximum size of a body before compression, bytes."""

HEADERS = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}

BAD_BATCH = (400, 413, 422)
"""Statuses that concern this batch, not the URL, the key or the receiver."""


class Http:
    """A receiver of NDJSON."""

    encode = staticmethod(json_line)

    def __init__(self, peer: Peer, max_records: int, secret: str, now_ms: Callable[[], int], sent: Sent) -> None:
        self.bounds = Bounds(max_records, MOST_BYTES)
        self._peer, self._secret, self._now_ms, self._sent = peer, secret, now_ms, sent

    def send(self, batch: Batch) -> bool:
        """See target.py. True always, because repeats are not reported."""
        body = gzip.compress(b"\n".join(batch.items) + b"\n", 6, mtime=0)
        headers = {"Idempotency-Key": f"{batch.sender}-{batch.number}", **signed(self._secret, body, self._now_s())}
        answer = self._peer.post(body, HEADERS | headers)
        self._sent(len(body))
        if answer.is_good:
            return True
        if answer.status in NOT_NOW:
            raise BusyError(f"it answers {answer}", math.ceil(answer.retry_after_s))
        kind = BatchRefused if answer.status in BAD_BATCH else SenderError
        raise kind(f"it answers {answer}")

    def _now_s(self) -> int:
        return self._now_ms() // 1_000

    def close(self) -> None:
        """See target.py."""
        self._peer.close()
