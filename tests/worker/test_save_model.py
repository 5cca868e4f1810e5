"""The save protocol never loses or doubles a record, whatever happens, and needs each of its guards for it.

`save_model.py` says what is modelled. All that is asked of it here is what it finds, and that it looks at
something: a model in which too little can happen finds nothing bad either.
"""

from __future__ import annotations

import pytest

from tests.exploring import Result
from tests.worker.save_model import STEPS, SWITCHES, explore

GUARDS = {
    "intend": (1, 0),
    "unique": (1, 0),
    "handle": (1, 0),
    "finish": (2, 0),
    "progress": (1, 0),
    "token": (2, 0),
    "still": (2, 0),  # it takes a second record for an intent whose range reaches over one that is saved
}
"""As few records a device as show what each guard is for."""

READER_RULES = {"snapshot": "reader doubled", "last": "reader gap", "connection": "reader doubled"}

REMEMBERING = {"run": "reader ghost", "save": "reader doubled", "deletion": "reader ghost", "counter": "reader gap"}
"""What a reader that remembers tails shows without each rule."""

OUTCOMES = {
    "append",
    "copy",
    "restore",
    "look: none",
    "look: an intent",
    "recover: redo",
    "recover: finish",
    "recover: stop",
    "together",
    "together: stop",
    "choose",
    "intend",
    "intend: refused",
    "read",
    "read: as planned",
    "still",
    "still: gone",
    "write",
    "open",
    "open: finish",
    "open: stop",
    "commit",
    "commit: refused",
    "finish",
    "finish: gone",
    "trim",
    "trim: the last",
    "trim: refused",
}
CRASHES = {f"crash at {step}" for step in STEPS if step != "look"}  # a worker at `look` holds nothing yet
PAGES = {"ask", "tail", "table"}


@pytest.fixture(scope="module")
def one_each() -> Result:
    """Everything that can happen when each of two devices sends one record."""
    return explore((1, 1))


def test_one_record_each_is_saved_once(one_each: Result) -> None:
    assert one_each.bad == {}


def test_everything_the_protocol_foresees_happens(one_each: Result) -> None:
    assert set(one_each.steps) == OUTCOMES | CRASHES


def test_saves_come_to_an_end(one_each: Result) -> None:
    """There are states in which all is sent, committed and trimmed, and no intent is left."""
    assert one_each.at_rest > 0


def test_two_records_of_a_device_are_saved_once() -> None:
    found = explore((2, 0))
    assert found.bad == {}
    assert found.at_rest > 0
    assert set(found.steps) == OUTCOMES | CRASHES


def test_three_records_are_saved_once(is_thorough: bool) -> None:
    """Without a restore but when asked to be thorough: with one there are 559,740 states, as good."""
    found = explore((2, 1), restore=is_thorough)
    assert found.bad == {}
    assert found.states == (559_740 if is_thorough else 13_107)
    assert found.at_rest > 0
    assert set(found.steps) == (OUTCOMES | CRASHES) - (set() if is_thorough else {"copy", "restore"})


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_is_needed(guard: str) -> None:
    found = explore(GUARDS[guard], without=frozenset({guard}), stop_at_first_bad=True)
    assert found.bad
    assert found.bad.keys() <= {"lost", "doubled"}


def test_a_save_is_safe_without_seeing_first_that_redis_and_table_belong_together() -> None:
    """That look is for people: the worker stops earlier and can say why."""
    assert explore((1, 1), without=frozenset({"together"})).bad == {}


@pytest.mark.slow
def test_pages_are_whole_while_workers_save() -> None:
    """Without a restore, since with both there are too many states. With three records there are 925,727, as good."""
    found = explore((1, 1), restore=False, reader=True)
    assert found.bad == {}
    assert found.at_rest > 0
    assert found.steps.keys() >= PAGES | {"trim: the last"}


def test_a_page_is_whole_while_redis_is_restored() -> None:
    found = explore((1, 0), reader=True)
    assert found.bad == {}
    assert found.steps.keys() >= PAGES | {"restore"}


@pytest.mark.parametrize("rule", READER_RULES)
def test_each_rule_of_reading_is_needed(rule: str) -> None:
    found = explore((1, 0), reader=True, restore=rule == "connection", without=frozenset({rule}))
    assert found.bad.keys() == {READER_RULES[rule]}


@pytest.mark.slow
def test_pages_of_a_remembered_tail_are_whole_while_workers_save(is_thorough: bool) -> None:
    """Of one device that sends twice; when asked to be thorough, of two that send once, too."""
    for appends in [(2, 0), (1, 1)][: 1 + is_thorough]:
        found = explore(appends, restore=False, reader=True, remembers=True)
        assert found.bad == {}
        assert found.at_rest > 0
        assert found.steps.keys() >= PAGES | {"trim: the last"}


@pytest.mark.slow
def test_a_page_of_a_remembered_tail_is_whole_while_redis_is_restored() -> None:
    found = explore((1, 0), reader=True, remembers=True)
    assert found.bad == {}
    assert found.steps.keys() >= PAGES | {"restore"}


def test_a_page_of_a_remembered_tail_has_nothing_of_a_device_that_is_deleted(is_thorough: bool) -> None:
    """With two records there are 604,391 states, as good."""
    found = explore((1 + is_thorough, 0), restore=False, reader=True, remembers=True, deletes=True)
    assert found.bad == {}
    assert found.states == (604_391 if is_thorough else 25_787)
    assert found.steps.keys() >= PAGES | {"delete", "trim: the last"}


@pytest.mark.parametrize("rule", REMEMBERING)
def test_each_rule_of_remembering_is_needed(rule: str) -> None:
    more = {"restore": rule == "run", "deletes": rule == "deletion", "reader": True, "remembers": True}
    found = explore((1, 0), **more, without=frozenset({rule}), stop_at_first_bad=True)
    assert found.bad.keys() == {REMEMBERING[rule]}


def test_every_switch_is_tried() -> None:
    assert {*GUARDS, *READER_RULES, *REMEMBERING, "together"} == SWITCHES.keys()


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot explore without"):
        explore((1, 0), without=frozenset({"fsync"}))


def test_a_bad_state_comes_with_the_way_to_it() -> None:
    """Without guard 3, two workers save the same intent, and the second one's file doubles the record."""
    found = explore((1, 0), restore=False, without=frozenset({"handle"}), stop_at_first_bad=True)
    way = found.shortest["doubled"]
    assert way[:2] == ["device 0: append", "worker 0: look: none"]
    assert way[-2:] == ["worker 0: commit", "worker 1: commit"]
