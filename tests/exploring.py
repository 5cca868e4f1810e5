"""Breadth-first search through all reachable states of a model.

A model is a start, the moves from each state, and the fault of a state. States are compared by equality, so a
model may define which of them differ only by names (`canonical`).
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

S = TypeVar("S")

Move: TypeAlias = tuple[str, str, S]
"""The actor, its action, and the state after it."""


class Model(NamedTuple, Generic[S]):
    """The model to explore. `fault` names the fault of a state; `is_at_rest` is true for a final state.

    `relabelled` gives a canonical state the names that it had as the outcome of a move, for the way to a fault.
    """

    start: S
    moves: Callable[[S], Iterable[Move[S]]]
    fault: Callable[[S], str | None]
    is_at_rest: Callable[[S], bool]
    canonical: Callable[[S], S]
    relabelled: Callable[[S, S], S] = lambda after, canonical: canonical


class Result(NamedTuple):
    """Results of an exploration.

    `bad` counts states by verdict (nothing is explored beyond them), and `shortest` has for each verdict
    a shortest way there. `steps` counts what was seen to happen, and `at_rest` the states in which
    everything is done: both show that a clean result is not an empty one. `stuck` counts states from which
    no state at rest can be reached; it is -1 if it was not requested.
    """

    states: int
    bad: dict[str, int]
    shortest: dict[str, list[str]]
    steps: Counter[str]
    at_rest: int
    stuck: int = -1


def explore(model: Model[S], stop_at_first_bad: bool = False, count_stuck: bool = False) -> Result:
    """Try everything."""
    collecting = gc.isenabled()
    gc.disable()  # millions of tuples and no cycle among them: looking for one takes a sixth of the time
    try:
        return _explore(model, stop_at_first_bad, count_stuck)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model[S], stop_at_first_bad: bool, count_stuck: bool) -> Result:
    came_from: dict[S, S | None] = {model.start: None}
    before: dict[S, list[S]] = {}
    result = Result(0, {}, {}, Counter(), 0)
    at_rest: list[S] = []
    queue = deque([model.start])
    while queue and not (stop_at_first_bad and result.bad):
        state = queue.popleft()
        if model.is_at_rest(state):
            at_rest.append(state)
        for _, what, moved in model.moves(state):
            result.steps[what] += 1
            after = model.canonical(moved)
            if count_stuck:
                before.setdefault(after, []).append(state)
            if after in came_from:
                continue
            came_from[after] = state
            if verdict := model.fault(after):
                result.bad[verdict] = result.bad.get(verdict, 0) + 1
                if verdict not in result.shortest:
                    result.shortest[verdict] = _way_to(after, came_from, model)
            else:
                queue.append(after)
    stuck = len(came_from) - len(_leading_to(at_rest, before)) if count_stuck else -1
    return result._replace(states=len(came_from), at_rest=len(at_rest), stuck=stuck)


def _leading_to(goals: Iterable[S], before: dict[S, list[S]]) -> set[S]:
    """All states from which one of `goals` can be reached."""
    found = set(goals)
    waiting = list(found)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in found:
                found.add(state)
                waiting.append(state)
    return found


def _way_to(state: S, came_from: dict[S, S | None], model: Model[S]) -> list[str]:
    """The moves from the start to a state, with the actors distinguished in all of them."""
    states = [state]
    while (earlier := came_from[states[-1]]) is not None:
        states.append(earlier)
    now = states.pop()
    way = []
    while states:
        goal = states.pop()
        who, what, after = next(move for move in model.moves(now) if model.canonical(move[2]) == goal)
        way.append(f"{who}: {what}")
        now = model.relabelled(after, goal)
    return way
