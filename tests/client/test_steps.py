"""What decides, without a box: what is sent again and when, what is given up, what a record may hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_client import (
    AnswerBrokenOff,
    Batch,
    BoxUnavailable,
    KeyRefused,
    NotFound,
    RateLimited,
    RequestRefused,
    Sent,
    TooLarge,
)
from whimbrel_client.answers import error_of
from whimbrel_client.batch import joined
from whimbrel_client.delivery import delivered, request
from whimbrel_client.gathering import Gathering
from whimbrel_client.outbox import BATCH_BYTES, BATCH_RECORDS, Direct, batches_of
from whimbrel_client.retrying import LONGEST_PAUSE_S, Patience, Pauses
from whimbrel_client.steps import Answer, Ask, Steps, Wait
from whimbrel_client.tables import arrow
from whimbrel_client.values import encoded, parameters

T = TypeVar("T")
BATCH = Batch("s", 7, b'[{"n":0},{"n":1},{"n":2}]', 3)


def stored(count: int) -> Answer:
    return Answer(202, {}, json.dumps({"accepted": count}).encode())


def refused(status: int, **members: Any) -> Answer:
    return Answer(status, {}, json.dumps({"detail": "no", **members}).encode())


def take(steps: Steps[T], answers: Sequence[Answer | Exception]) -> tuple[T, list[Ask], list[float]]:
    """Take steps; what they come to, what was asked, and how long they paused."""
    asked: list[Ask] = []
    paused: list[float] = []
    left = list(answers)
    step = next(steps)
    while True:
        try:
            if isinstance(step, Wait):
                paused.append(step.seconds)
                step = steps.send(None)
                continue
            assert isinstance(step, Ask)
            asked.append(step)
            answer = left.pop(0)
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as end:
            assert not left
            return end.value, asked, paused


def test_a_batch_is_sent_until_it_is_answered_always_alike() -> None:
    lost, later = BoxUnavailable("lost"), Answer(503, {"retry-after": "7"}, b"")
    sent, asked, paused = take(delivered(BATCH, Patience(1_000)), [lost, later, Answer(502, {}, b"<html>"), stored(3)])
    assert sent == Sent(3)
    assert asked == [request(BATCH)] * 4
    assert asked[0].headers["Sender-Id"] == "s"
    assert asked[0].headers["Batch-Number"] == "7"
    assert paused[1] == 7, "what the box asks for, where that is longer"
    assert 0 < paused[0] <= 0.25 < paused[2] <= 1


def test_a_repeated_batch_counts_as_stored() -> None:
    answer = Answer(202, {}, b'{"accepted":0,"repeated":true}')
    assert take(delivered(BATCH, Patience(0)), [answer])[0] == Sent(3)


@pytest.mark.parametrize("content", [b"", b"[]", b"hello", b'{"accepted":2}', b'{"ok":true}'])
def test_success_that_is_none(content: bytes) -> None:
    with pytest.raises(RequestRefused, match="no Whimbrel"):
        take(delivered(BATCH, Patience(0)), [Answer(202, {}, content)])


def test_refused_records_leave_the_batch_and_it_keeps_its_number() -> None:
    sent, asked, _ = take(delivered(BATCH, Patience(0)), [refused(400, index=1), refused(403, index=1), stored(1)])
    assert [one.record for one in sent.refused] == [{"n": 1}, {"n": 2}]
    assert sent.accepted == 1
    assert {one.headers["Batch-Number"] for one in asked} == {"7"}
    assert [json.loads(one.body) for one in asked][-1] == [{"n": 0}]


def test_a_batch_that_is_refused_whole() -> None:
    sent, _, _ = take(delivered(BATCH, Patience(0)), [refused(413, type="urn:x")])
    assert (sent.accepted, [one.type for one in sent.refused]) == (0, ["urn:x"] * 3)


@pytest.mark.parametrize("answer", [refused(401), refused(403), refused(404), refused(500), refused(503)])
def test_what_is_not_of_the_records_is_raised_with_what_is_left(answer: Answer) -> None:
    with pytest.raises((RequestRefused, BoxUnavailable)) as raised:
        take(delivered(BATCH, Patience(0)), [refused(400, index=0, reason="bad"), answer])
    assert raised.value.undelivered == (BATCH.without(0),)
    assert [one.reason for one in raised.value.sent.refused] == ["bad"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefused),
        (401, KeyRefused),
        (403, KeyRefused),
        (404, NotFound),
        (408, BoxUnavailable),
        (413, TooLarge),
        (429, RateLimited),
        (500, BoxUnavailable),
        (503, BoxUnavailable),
    ],
)
def test_what_a_status_stands_for(status: int, kind: type[Exception]) -> None:
    error = error_of(refused(status, type="urn:t", title="T"), "do it")
    assert type(error) is kind
    assert (error.type, error.title, error.detail, error.status) == ("urn:t", "T", "no", status)
    assert str(error) == f"cannot do it: the box answered {status}: no"


def test_numbers_rise_and_begin_anew_behind_what_was_given_up() -> None:
    ids = iter("abc")
    direct = Direct(0, lambda: next(ids))
    items = [b"{}"] * (BATCH_RECORDS + 1)
    _, asked, _ = take(direct.send(items), [stored(BATCH_RECORDS), stored(1)])
    with pytest.raises(BoxUnavailable) as raised:
        take(direct.send(items), [BoxUnavailable("away")])
    _, again, _ = take(direct.send([b"{}"]), [stored(1)])
    _, later, _ = take(direct.resend(raised.value.undelivered), [stored(BATCH_RECORDS), stored(1)])
    named = [(one.headers["Sender-Id"], one.headers["Batch-Number"]) for one in (*asked, *again, *later)]
    assert named == [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("b", "2")]


@settings(deadline=None)
@given(failures=st.integers(1, 60), chance=st.floats(0, 1), least_s=st.floats(0, 100))
def test_pauses_grow_to_a_bound_and_are_never_shorter_than_asked(failures: int, chance: float, least_s: float) -> None:
    pauses = Pauses(lambda: chance)
    found = [pauses.next_s(least_s) for _ in range(failures)]
    assert found == sorted(found)
    assert all(least_s <= one <= max(LONGEST_PAUSE_S, least_s) for one in found)
    pauses.succeeded()
    assert pauses.next_s() <= 0.25


def test_patience_ends_before_a_pause_that_would_be_too_long() -> None:
    now_s = 0.0
    patience = Patience(10, lambda: now_s)
    assert patience.pause_s(BoxUnavailable("away")) is not None
    assert patience.pause_s(BoxUnavailable("away", retry_after_s=11)) is None
    now_s = 10
    assert patience.pause_s(BoxUnavailable("away")) is None


@settings(deadline=None)
@given(st.lists(st.integers(2, BATCH_BYTES * 2), max_size=12), st.integers(0, 3_000))
def test_batches_hold_all_records_in_order_within_bounds(large: list[int], small: int) -> None:
    items = [b"1" * size for size in large] + [b"%d" % number for number in range(small)]
    batches = batches_of(items)
    assert b",".join(batch.body[1:-1] for batch in batches) == b",".join(items)
    assert sum(batch.record_count for batch in batches) == len(items)
    for batch in batches:
        assert 0 < batch.record_count <= BATCH_RECORDS
        assert len(batch.body) <= BATCH_BYTES + 2 or batch.record_count == 1


def test_long_bodies_are_compressed_always_alike() -> None:
    batch = joined([b'{"device_id":"d"}'] * 100)._replace(sender_id="s", number=1)
    ask = request(batch)
    assert ask.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(ask.body) == batch.body
    assert request(batch) == ask
    assert "Content-Encoding" not in request(BATCH).headers


def test_times_and_numbers_of_others() -> None:
    at = datetime(2026, 11, 24, 12, 25, 0, 5, timezone(timedelta(hours=2)))
    record = {"time": at, "day": date(2026, 1, 2), "speed": np.float64(1.5), "count": np.int32(3), "name": "ä"}
    assert json.loads(encoded(record)) == {
        "time": "2026-11-24T10:25:00.000005Z",
        "day": "2026-01-02",
        "speed": 1.5,
        "count": 3,
        "name": "ä",
    }
    given = {"device_id": ["a", "b"], "bbox": (1, 2.5), "distinct": True, "start": at, "end": None, "limit": 3}
    assert parameters(given) == [
        ("device_id", "a"),
        ("device_id", "b"),
        ("bbox", "1,2.5"),
        ("distinct", "true"),
        ("start", "2026-11-24T10:25:00.000005Z"),
        ("limit", "3"),
    ]
    assert parameters({"start": datetime(2026, 1, 1, tzinfo=UTC)}) == [("start", "2026-01-01T00:00:00Z")]


def test_a_gathering_is_due_by_number_and_by_time() -> None:
    gathering = Gathering(3, 2.0)
    assert gathering.due_in_s(0) is None
    gathering.add(b"1", 10)
    gathering.add(b"2", 11)
    assert gathering.due_in_s(11) == 1
    gathering.add(b"3", 11)
    gathering.add(b"4", 11)
    assert gathering.due_in_s(11) == 0
    assert gathering.take() == [b"1", b"2", b"3"]
    assert gathering.due_in_s(11) == 1
    gathering.want()
    assert gathering.due_in_s(11) == 0
    assert gathering.take() == [b"4"]
    assert gathering.due_in_s(11) is None


def test_a_stream_without_its_end_is_not_whole() -> None:
    with pytest.raises(AnswerBrokenOff):
        arrow(b"")
