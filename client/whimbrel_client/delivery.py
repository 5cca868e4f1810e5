"""One batch to the box: sent under its number until the box has answered, without the records that it refuses."""

from __future__ import annotations

import gzip

from whimbrel_client.answers import checked, object_of
from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.errors import RequestRefused, WhimbrelError
from whimbrel_client.retrying import Patience, asked
from whimbrel_client.steps import Answer, Ask, Steps

PATH = "/v1/records"
WHAT = "send records"

COMPRESSED_FROM_BYTES = 1_000
"""Below it a body is sent as it is: it fits into one packet."""

OF_THE_BODY = (400, 413, 422)
"""The refusals that are of the records and not of who sends them."""


def request(batch: Batch) -> Ask:
    """The request that sends a batch; always the same."""
    headers = {
        "Content-Type": "application/json",
        "Sender-Id": batch.sender_id,
        "Batch-Number": str(batch.number),
    }
    body = batch.body
    if len(body) >= COMPRESSED_FROM_BYTES:
        body = gzip.compress(body, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Ask("POST", PATH, (), headers, body)


def delivered(batch: Batch, patience: Patience) -> Steps[Sent]:
    """What came of a batch once the box has answered.

    Raises `BoxUnavailable` when patience is over, `RequestRefused` for what is not of the records, such as the key;
    the error's `undelivered` is then what is left of the batch, and `sent` has the records that were refused.
    """
    refused: list[Refused] = []
    while batch.record_count:
        try:
            answer = yield from asked(request(batch), lambda answer: checked(answer, WHAT), patience)
            return Sent(_accepted(answer, batch), tuple(refused))
        except WhimbrelError as error:
            index = _index(error, batch)
            if index is not None:
                refused.append(_refused(batch.records[index], error))
                batch = batch.without(index)
            elif isinstance(error, RequestRefused) and error.status in OF_THE_BODY:
                refused += [_refused(record, error) for record in batch.records]
                break
            else:
                error.undelivered, error.sent = (batch,), Sent(0, tuple(refused))
                raise
    return Sent(0, tuple(refused))


def _accepted(answer: Answer, batch: Batch) -> int:
    """How many records of a batch are on disk: all, also where it was stored before and only that answer got lost."""
    receipt = object_of(answer, WHAT)
    if receipt.get("repeated") is True or receipt.get("accepted") == batch.record_count:
        return batch.record_count
    message = f"cannot {WHAT}: no Whimbrel that knows numbered batches answers so: {answer.content[:80]!r}"
    raise RequestRefused(message, status=answer.status)


def _index(error: WhimbrelError, batch: Batch) -> int | None:
    """Which record a refusal is about, if it is about one."""
    index = error.members.get("index")
    is_one = isinstance(error, RequestRefused) and isinstance(index, int) and 0 <= index < batch.record_count
    return index if is_one else None


def _refused(record: dict[str, object], error: WhimbrelError) -> Refused:
    field = error.members.get("field")
    reason = error.members.get("reason") or error.detail or error.title or str(error)
    return Refused(record, str(reason), field if isinstance(field, str) else None, error.type)
