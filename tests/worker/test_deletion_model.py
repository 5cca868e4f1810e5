"""A deletion leaves nothing of what came before it, takes nothing of what came after, and needs each of its rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker.deletion_model import SWITCHES, explore

NEEDED: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "settle": ((), {}, "stays"),
    "read": ((), {}, "stays"),
    "tokens": (("importer",), {"appends": 1}, "stays"),
    "day": (("compactor",), {"appends": 3}, "doubled"),
    "merge": (("compactor",), {}, "stays"),
    "again": ((), {"forgets": 2}, "stays"),
    "mark": (("finder",), {}, "back in latest"),
    "deleted": (("finder",), {}, "back in latest"),
}
"""Beside whom each rule is needed, and what else happens without it."""

BESIDE: list[tuple[tuple[str, ...], dict[str, Any], set[str]]] = [
    ((), {"appends": 3, "forgets": 2}, {"complete: not yet", "settle", "recover"}),
    (("saver",), {}, {"commit: refused", "finish: gone", "intend: refused"}),
    (("compactor",), {"appends": 3, "forgets": 2}, {"erase: refused", "merge: refused", "merged"}),
    (("finder", "compactor"), {"forgets": 2}, {"find: offer", "merged"}),
]


@pytest.mark.parametrize(("who", "more", "steps"), BESIDE)
def test_nothing_stays_and_nothing_is_lost(who: tuple[str, ...], more: dict[str, Any], steps: set[str]) -> None:
    found = explore(*who, **more)
    assert found.bad == {}
    assert found.at_rest > 0
    assert found.stuck == 0, "every deletion can end, and everything be saved"
    assert found.steps.keys() >= steps | {"append", "forget", "erase", "complete", "crash"}


@pytest.mark.slow
@pytest.mark.thorough
def test_beside_an_import() -> None:
    found = explore("importer", appends=1)
    assert found.bad == {}
    assert found.states == 162_240
    assert found.stuck == 0
    assert found.steps.keys() >= {"import", "import: refused", "intend: no token", "tell", "ask", "offer"}


@pytest.mark.parametrize("rule", NEEDED)
def test_each_rule_is_needed(rule: str) -> None:
    who, more, fault = NEEDED[rule]
    assert explore(*who, without=frozenset({rule}), stop_at_first_bad=True, **more).bad.keys() == {fault}


def test_every_switch_is_tried() -> None:
    assert NEEDED.keys() == SWITCHES.keys()


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no such thing"):
        explore(without=frozenset({"fsync"}))
