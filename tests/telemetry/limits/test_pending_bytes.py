"""The account of bytes that wait for clients: texts are counted once, and the longest stalled client goes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.limits.pending_bytes import CLIENT, PIECE_BYTES, Pending, hold, pieces
from telemetry.model.errors import BusyError


class Client:
    """A connection that notes that it was closed."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.is_closed = False

    @property
    def is_gone(self) -> bool:
        return self.is_closed

    def disconnect(self) -> None:
        self.is_closed = True


def clients(pending: Pending, count: int) -> list[Client]:
    return [Client(pending) for _ in range(count)]


def test_a_text_that_is_shared_counts_once() -> None:
    pending = Pending(100)
    first, second = clients(pending, 2)
    text = b"x" * 60
    with pending.hold(first, (text, text, b"y" * 10)):
        assert pending.bytes == 70
        with pending.hold(second, (text,)):
            assert pending.bytes == 70
            assert pending.holds(second)
        assert pending.bytes == 70
    assert pending.bytes == 0
    assert not pending.holds(first)


def test_bytes_of_a_responses_own_count_each_time() -> None:
    pending = Pending(100)
    first, second = clients(pending, 2)
    with pending.hold(first, (), 40), pending.hold(second, (), 40):
        assert pending.bytes == 80
        pending.stall(first, 10)
        with pending.hold(second, (), 20):
            assert first.is_closed
            assert pending.bytes == 60
    assert pending.bytes == 0


def test_a_hold_of_nothing_leaves_nothing() -> None:
    pending = Pending(100)
    [client] = clients(pending, 1)
    with pending.hold(client, ()):
        pass
    assert not pending.holds(client)


def test_the_longest_stalled_client_is_closed_first() -> None:
    pending = Pending(100)
    first, second, third = clients(pending, 3)
    pending.stall(first, 40)
    pending.stall(second, 40)
    pending.resume(first)
    pending.stall(first, 40)
    pending.stall(third, 30)
    assert [one.is_closed for one in (first, second, third)] == [False, True, False]
    assert pending.bytes == 70


def test_what_a_closed_client_holds_counts_no_longer() -> None:
    pending = Pending(100)
    slow, other = clients(pending, 2)
    with pending.hold(slow, (b"x" * 60,)):
        pending.stall(slow, 20)
        with pending.hold(other, (b"y" * 90,)):
            assert slow.is_closed
            assert pending.bytes == 90
    assert pending.bytes == 0


def test_what_has_no_room_is_not_begun() -> None:
    pending = Pending(100)
    first, second = clients(pending, 2)
    with pending.hold(first, (b"x" * 60,)):
        with pytest.raises(BusyError, match=r"api\.pending_bytes"), pending.hold(second, (b"y" * 60,)):
            pass
        assert pending.bytes == 60
        assert not pending.make_room(41)
        assert pending.make_room(40)
    assert not first.is_closed


def test_a_request_without_an_account_is_not_counted() -> None:
    with hold({}, (b"x",)):
        pass
    pending = Pending(100)
    with hold({CLIENT: Client(pending)}, (b"x",)):
        assert pending.bytes == 1


@given(st.lists(st.sampled_from([0, 1, 7, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])))
def test_pieces_are_the_texts(sizes: list[int]) -> None:
    texts = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]
    found = list(pieces(texts))
    assert b"".join(found) == b"".join(texts)
    assert all(len(piece) == PIECE_BYTES for piece in found[:-1])
    assert all(0 < len(piece) <= PIECE_BYTES for piece in found)
