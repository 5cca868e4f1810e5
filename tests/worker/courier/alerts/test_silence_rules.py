"""Who is silent and who is back, and what an outage of the box itself changes about it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.config.settings import SilenceRule
from worker.courier.alerts.silence_rules import Hearing, TimeOuts, Turn, hearing, turns

MINUTE_MS = 60_000
RULES = [
    SilenceRule(device="truck-7", silent_after_s=0),
    SilenceRule(prefix="truck-", silent_after_s=300),
    SilenceRule(prefix="truck-old-", silent_after_s=900),
]
USUAL = TimeOuts(60, RULES)


def test_the_device_then_the_longest_prefix_wins() -> None:
    names = [b"car", b"truck-1", b"truck-old-1", b"truck-7", b"truck-70"]
    assert [USUAL.of(name) for name in names] == [60_000, 300_000, 900_000, 0, 300_000]
    assert USUAL.shortest_ms == 60_000
    assert TimeOuts(0, []).shortest_ms == 0
    assert TimeOuts(0, RULES).shortest_ms == 300_000


def silent_after(last_ms: int, now_ms: int, since_ms: int | None, time_outs: TimeOuts = USUAL) -> list[bytes]:
    return [turn.device for turn in turns([(b"car", last_ms)], {}, time_outs, now_ms, since_ms) if turn.is_silent]


def test_a_device_is_silent_after_its_time_out() -> None:
    assert silent_after(1_000, 61_000, 0) == []
    assert silent_after(1_000, 61_001, 0) == [b"car"]
    assert silent_after(1_000, 10**9, 0, TimeOuts(0, [])) == []


def test_time_in_which_the_box_could_not_hear_does_not_count() -> None:
    assert silent_after(0, 10**9, None) == []
    assert silent_after(0, 10**9, 10**9 - MINUTE_MS) == []
    assert silent_after(0, 10**9 + 1, 10**9 - MINUTE_MS) == [b"car"]


def test_a_device_is_back_when_it_is_heard_whether_or_not_the_box_could_all_the_time() -> None:
    silent = {b"car": 1_000}
    for since_ms in (None, 0):
        assert turns([(b"car", 1_000)], silent, USUAL, 10**9, since_ms) == []
        assert turns([(b"car", 500)], silent, USUAL, 10**9, since_ms) == [], "an older Redis was put back"
        assert turns([(b"car", 9_000)], silent, USUAL, 10**9, since_ms) == [Turn(b"car", False, 9_000, 1_000)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"car", b"truck-1", b"truck-7", b"x"]), st.integers(0, 10**6))),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
)
def test_each_turn_is_told_once(seen: list[tuple[bytes, int]], now_ms: int, since_ms: int | None) -> None:
    latest = dict(seen)
    found = turns(latest.items(), {}, USUAL, now_ms, since_ms)
    assert all(turn.is_silent and 0 < USUAL.of(turn.device) < now_ms - turn.seen_ms for turn in found)
    silent = {turn.device: turn.seen_ms for turn in found}
    assert turns(latest.items(), silent, USUAL, now_ms, since_ms) == []
    heard = {device: ms + 1 for device, ms in latest.items()}
    back = turns(heard.items(), silent, USUAL, now_ms, now_ms)
    assert {turn.device for turn in back if not turn.is_silent} == set(silent)


def test_hearing_begins_anew_after_each_gap() -> None:
    assert hearing(None, 5_000, True, 3_000) == Hearing(5_000, 5_000)
    before = Hearing(1_000, 5_000)
    assert hearing(before, 8_000, True, 3_000) == Hearing(1_000, 8_000)
    assert hearing(before, 8_001, True, 3_000) == Hearing(8_001, 8_001), "the box was off"
    assert hearing(before, 4_999, True, 3_000) == Hearing(4_999, 4_999), "the clock was set back"
    assert hearing(before, 6_000, False, 3_000) == Hearing(None, 6_000)
    assert hearing(Hearing(None, 6_000), 7_000, True, 3_000) == Hearing(7_000, 7_000)


def test_a_fleet_of_200_000_is_looked_at_in_a_moment() -> None:
    seen = [(b"truck-%d" % n, n) for n in range(200_000)]
    assert len(turns(seen, {}, USUAL, 10**9, 0)) == 199_999
