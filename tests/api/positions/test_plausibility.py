"""The rule of implausible positions: single tracks, and properties of any track."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.positions.plausibility import NEAREST, Limits, Position, left_out

S = 1_000_000
LIMITS = Limits()
KM = 1 / 111.19508
"""A kilometre as degrees of latitude."""


def track(places: str, every_s: float = 60) -> list[Position]:
    """One position for each letter: places of one letter are 1 km apart, those of others more than 5,000 km."""
    at = {"a": (0, 10), "b": (60, 10), "c": (-60, 120), "d": (0, -120)}
    found = []
    for number, letter in enumerate(places):
        latitude, longitude = at[letter]
        found.append(Position(round(number * every_s * S), latitude + number * KM, longitude))
    return found


@pytest.mark.parametrize(
    ("places", "kept"),
    [
        ("aaaaaa", "......"),
        ("aaabaaa", "...x..."),
        ("aaabbaaa", "...xx..."),
        ("aaabcdaaa", "...xxx..."),
        ("aaaabbbbaaaa", "............"),
        ("aabacaa", "..x.x.."),
        ("aabaabaa", "..x..x.."),
        ("abaab", ".x..x"),
        ("aba", ".x."),
        ("baaa", "x..."),
        ("bcaaa", "xx..."),
        ("aaab", "...x"),
        ("aaabbb", "......"),
        ("aaaabbb", "....xxx"),
        ("aaaaabbbbb", ".........."),
        ("ab", ".."),
        ("abab", ".xx."),
        ("", ""),
        ("a", "."),
    ],
)
def test_what_is_left_out(places: str, kept: str) -> None:
    found = left_out(track(places), LIMITS)
    assert "".join("x" if place in found else "." for place in range(len(places))) == kept


def test_a_device_that_was_off_during_a_transport_is_back_at_once() -> None:
    away = [Position(one.us + 20 * 3_600 * S, one.latitude + 60, 100) for one in track("a")]
    assert left_out([*track("aaaa"), *away], LIMITS) == set()


def test_two_records_of_a_moment_may_be_some_hundred_metres_apart() -> None:
    near, far = (Position(0, 0.33 * KM, 10), Position(0, 0.34 * KM, 10))
    assert left_out([Position(0, 0, 10), Position(0, 0, 10), near], LIMITS) == set()
    assert left_out([Position(0, 0, 10), Position(0, 0, 10), far], LIMITS) == {2}


def test_an_airliner_is_plausible() -> None:
    """1,100 km/h, over the 180th meridian."""
    way = [Position(n * 10 * S, 53, (178 + n * 0.045 + 180) % 360 - 180) for n in range(200)]
    assert left_out(way, LIMITS) == set()


# Any track --------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from([1, 10, 60, 600, 7_200, 86_400]), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)),
    min_size=2,
    max_size=30,
)


def walked(steps: list[tuple[int, float, float]]) -> list[Position]:
    """A track near the equator of at most 1,200 km/h, within 500 km of its beginning."""
    found = [Position(0, 0.0, 10.0)]
    for s, north, east in steps:
        last, most = found[-1], min(1_200 / 3_600 * s, 100) * KM / 1.5
        latitude, longitude = last.latitude + north * most, last.longitude + east * most
        if abs(latitude) > 4 or abs(longitude - 10) > 4:
            latitude, longitude = last.latitude, last.longitude
        found.append(Position(last.us + s * S, latitude, longitude))
    return found


@given(STEPS)
def test_nothing_of_a_track_without_jumps_is_left_out(steps: list[tuple[int, float, float]]) -> None:
    assert left_out(walked(steps), LIMITS) == set()


@given(STEPS, st.data())
def test_one_outlier_is_left_out_and_nothing_else(steps: list[tuple[int, float, float]], data: st.DataObject) -> None:
    """Beside a position, on the other side of the earth, anywhere in the track."""
    good = walked(steps)
    place = data.draw(st.integers(1, len(good)), label="place")
    near = good[place - 1]
    outlier = Position(near.us + data.draw(st.integers(0, S)), -40.0, -150.0)
    is_between = place == len(good) or outlier.us <= good[place].us
    if not is_between or (len(good) - place < 1 and near.us - good[-2].us > LIMITS.reach_us):
        return
    is_alone = place > 1 and near.us - good[place - 2].us > LIMITS.reach_us
    is_last = place == len(good) or good[place].us - outlier.us > LIMITS.reach_us
    if (place == 1 or is_alone) and is_last:
        return  # two positions that contradict each other, with no third: both stay
    assert left_out([*good[:place], outlier, *good[place:]], LIMITS) == {place}


ANY = st.lists(st.tuples(st.sampled_from([0, 1, 60, 3_600, 40_000, 90_000]), st.sampled_from("aabbc")), max_size=40)


@settings(max_examples=300)
@given(ANY, st.integers(0, 40))
def test_what_is_left_out_depends_on_few_positions(steps: list[tuple[int, str]], place: int) -> None:
    """What is cut off more than `NEAREST` positions away changes nothing."""
    us, found = 0, []
    for s, letter in steps:
        us += s * S
        found.append(track(letter)[0]._replace(us=us))
    whole = left_out(found, LIMITS)
    first, end = max(place - NEAREST, 0), place + NEAREST + 1
    part = {first + one for one in left_out(found[first:end], LIMITS)}
    assert (place in part) == (place in whole)
