"""Compaction, retention and sweep lose, double and take away nothing, whatever happens, and need each guard for it.

`compaction_model.py` says what is modelled. All that is asked of it here is what it finds, and that it looks at
something: a model in which too little can happen finds nothing bad either.
"""

from __future__ import annotations

import pytest

from tests.compactor.compaction_model import COMPACT, SAVE, SWEEP, SWITCHES, Box, explore
from tests.exploring import Result

COMPACTOR = Box(compactors=1)
SAVER = Box(files=1, appends=1, savers=1)
QUERIED = Box(compactors=1, reader=True, expires=True)
TOGETHER = Box(files=1, appends=1, savers=1, compactors=1, reader=True)
RESTORED = Box(files=1, appends=1, savers=1, restore=True)

DELETED, BROKEN = "a listed file is deleted", "a query finds a file deleted"

GUARDS = {
    "transaction": (COMPACTOR, DELETED),
    "giving up": (Box(compactors=2, expires=True), "given up and back"),
    "unique": (COMPACTOR, DELETED),
    "grace": (QUERIED, BROKEN),
    "limit": (QUERIED, BROKEN),
    "fence": (COMPACTOR, DELETED),
    "early": (QUERIED, BROKEN),
    "again": (TOGETHER, BROKEN),
    "under way": (SAVER, DELETED),
    "intents first": (TOGETHER, BROKEN),
    "save lasts": (Box(files=1, appends=1, savers=1, cuts=1), "lost"),
    "swept lasts": (Box(compactors=1, cuts=1), DELETED),
    "together": (RESTORED, "lost"),
}
"""What goes wrong without each, in a box as small as shows it."""

BOXES = {
    "two compactors": Box(compactors=2),
    "two compactors and a query": Box(compactors=2, reader=True),
    "two compactors of a day that expires": Box(compactors=2, expires=True),
    "two saves": Box(files=1, appends=1, savers=2),
    "a save, a compactor, a query, and the day expires": TOGETHER._replace(expires=True),
    "a save, a compactor and two power cuts": Box(files=1, appends=1, savers=1, compactors=1, cuts=2),
}
LARGE = {
    "two saves and a compactor": (Box(files=1, appends=1, savers=2, compactors=1), 81_156),
    "two records, one after the other": (Box(files=1, appends=2, savers=1, compactors=1), 144_737),
}
"""And how many states they have."""

RESTORES = {
    "two saves, one after the other": RESTORED._replace(appends=2),
    "a save, a compactor, and the day expires": RESTORED._replace(compactors=1, expires=True),
}

OUTCOMES = {
    "append",
    "the day expires",
    "time passes",
    "cut",
    "copy",
    "restore",
    "ask",
    "read",
    "save: intend",
    "save: found",
    "save: redo",
    "save: write",
    "save: open",
    "save: done by another",
    "save: stop",
    "save: there",
    "save: gone",
    "save: commit",
    "save: refused",
    "save: last",
    "save: finish",
    "save: finished by another",
    "plan a merge",
    "plan to give up",
    "merge",
    "merge: cannot read",
    "replace: there",
    "replace: gone",
    "replace",
    "replace: refused",
    "give up",
    "give up: refused",
    "compactor: last",
    "sweep: find",
    "sweep: fence",
    "sweep: intents",
    "sweep: apart",
    "sweep: list",
    "sweep: last",
    "sweep: delete",
    "sweep: done",
}
CRASHES = {
    *(f"crash at {step}" for step in (*SAVE, *COMPACT) if step not in ("look", "plan")),
    *(f"crash at sweep {step}" for step in SWEEP if step != "note"),
}
"""Whoever is at his first step holds nothing yet, but for the sweep, which remembers."""


@pytest.fixture(scope="module")
def found() -> dict[str, Result]:
    """Everything that can happen in each box."""
    return {name: explore(box, count_stuck=True) for name, box in BOXES.items()}


@pytest.fixture(scope="module")
def restored() -> dict[str, Result]:
    """Everything that can happen where the archive is put back to an older copy."""
    return {name: explore(box) for name, box in RESTORES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOXES)
def test_nothing_bad_happens(name: str, found: dict[str, Result]) -> None:
    assert found[name].bad == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOXES)
def test_from_every_state_all_can_be_saved_merged_and_swept(name: str, found: dict[str, Result]) -> None:
    """So files of attempts that failed do go away in the end, whatever failed before."""
    assert found[name].at_rest > 0
    assert found[name].stuck == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_nothing_bad_happens_in_a_larger_box() -> None:
    for box, states in LARGE.values():
        result = explore(box)
        assert result.bad == {}
        assert result.states == states


@pytest.mark.slow
def test_an_older_archive_that_was_restored_costs_no_record(restored: dict[str, Result]) -> None:
    """Saves stop, and the sweep keeps the files that only the newer archive listed."""
    assert [result.bad for result in restored.values()] == [{}, {}]
    assert {"save: stop", "sweep: apart"} <= {step for result in restored.values() for step in result.steps}


@pytest.mark.slow
def test_everything_the_protocol_foresees_happens(found: dict[str, Result], restored: dict[str, Result]) -> None:
    assert {step for result in (*found.values(), *restored.values()) for step in result.steps} == OUTCOMES | CRASHES


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_is_needed(guard: str) -> None:
    box, verdict = GUARDS[guard]
    without = explore(box, frozenset({guard}), stop_at_first_bad=True)
    assert without.bad.keys() == {verdict}


def test_without_taking_ended_saves_files_some_would_stay_for_ever() -> None:
    assert explore(COMPACTOR, count_stuck=True).stuck == 0
    assert explore(COMPACTOR, frozenset({"ended"}), count_stuck=True).stuck > 0


@pytest.mark.parametrize("switch", ["there", "readable"])
@pytest.mark.parametrize("box", [Box(compactors=2), SAVER, TOGETHER])
def test_a_file_that_is_gone_is_refused_anyhow(switch: str, box: Box) -> None:
    """To see it first is for people: the error names the file."""
    assert explore(box, frozenset({switch})).bad == {}


def test_every_switch_is_tried() -> None:
    assert {*GUARDS, "ended", "there", "readable"} == SWITCHES.keys()


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot explore without"):
        explore(COMPACTOR, frozenset({"fsync"}))


def test_a_bad_state_comes_with_the_way_to_it() -> None:
    """Without its fence, the sweep takes the file of a compactor that only slept."""
    without = explore(COMPACTOR, frozenset({"fence"}), stop_at_first_bad=True)
    way = without.shortest[DELETED]
    assert way[:2] == ["compactor 0: plan a merge", "compactor 0: merge"]
    assert {"compactor 0: replace", "sweep: sweep: delete"} <= set(way[-3:])
