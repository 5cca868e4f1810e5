"""Room for the unsaved records that questions hold at once."""

from __future__ import annotations

import pytest

from api.snapshot.tail_budget import TailRoom, TailTooLarge


def test_room_is_taken_as_long_as_it_is_kept() -> None:
    room = TailRoom(100)
    first, second = room.take(60), room.take(40)
    assert room.held_bytes == 100
    with pytest.raises(
        TailTooLarge, match=r"cannot read 1 bytes .* hold 100 at once \(api.max_tail_bytes\), and hold 100"
    ):
        room.take(1)
    del first
    room.take(60)
    assert second.size_bytes == 40


def test_more_than_all_room_is_refused() -> None:
    with pytest.raises(TailTooLarge):
        TailRoom(100).take(101)
