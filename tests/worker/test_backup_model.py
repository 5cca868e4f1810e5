"""A backup loses and doubles nothing in any order of its steps and those of saves, and needs each of its rules."""

from __future__ import annotations

import pytest

from tests.worker.backup_model import NEEDED, explore

STEPS = {"begin", "before", "fork", "after", "choose", "restore"}


def test_one_record_each_beside_a_backup(is_thorough: bool) -> None:
    """Of one device but when asked to be thorough: of two there are 526,957 states, as good."""
    found = explore((1, int(is_thorough)))
    assert found.bad == {}
    assert found.states == (526_957 if is_thorough else 14_497)
    assert found.at_rest > 0
    assert found.steps.keys() >= STEPS | {"commit", "trim: the last", "crash at commit"}


@pytest.mark.thorough
def test_two_records_of_a_device_beside_a_backup() -> None:
    found = explore((2, 0))
    assert found.bad == {}
    assert found.at_rest > 0
    assert found.steps["choose: none"] > 0, "saves were faster than the backup"


@pytest.mark.parametrize("rule", sorted(NEEDED))
def test_each_rule_is_needed(rule: str) -> None:
    found = explore((2, 0), without=frozenset({rule}), stop_at_first_bad=True)
    assert found.bad
    assert found.bad.keys() <= {"lost by the backup", "apart"}


def test_that_older_versions_are_kept_spares_tries_alone(is_thorough: bool) -> None:
    assert explore((1 + is_thorough, 0), without=frozenset({"keep"})).bad == {}
