"""The crash ledger's schedule: the same for a seed, with every point in it."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.crash_ledger.schedule import (
    BOX,
    KILL,
    POINTS,
    POISON,
    POISONS,
    PROGRAMS,
    REACHED,
    REPLAY,
    REPLAYS,
    STOP,
    SUPERVISOR,
    schedule,
)


def test_a_seed_and_a_length_name_one_schedule() -> None:
    assert schedule(7, 180) == schedule(7, 180)
    assert schedule(7, 180) != schedule(8, 180)
    assert schedule(7, 180) != schedule(7, 181)


@pytest.mark.parametrize("seconds", [30.0, 150.0, 180.0, 900.0])
def test_every_point_and_program_is_in_it(seconds: float) -> None:
    faults = schedule(1, seconds)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert faults[0].at_s >= 0
    assert faults[-1].at_s <= seconds
    rounds = max(1, round(seconds / 180))
    at_points = Counter((fault.action, fault.point) for fault in faults if fault.target == REACHED)
    assert at_points == {(action, point): rounds for action in (KILL, STOP) for point in POINTS}
    killed = {fault.target for fault in faults if fault.action == KILL and not fault.point}
    assert killed == {*PROGRAMS, BOX, SUPERVISOR}
    counts = Counter(fault.action for fault in faults)
    assert (counts[POISON], counts[REPLAY]) == (POISONS * rounds, REPLAYS * rounds)
    assert all(fault.until in POINTS for fault in faults if fault.action == STOP and fault.point)
    assert all((fault.for_s > 0) == (fault.action == STOP) for fault in faults)
