"""The attack: its mutations, and a short run against a whole box."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.attack import corpus
from benchmarks.attack.attackers import Outcome, status_of
from benchmarks.attack.honest import Sender
from benchmarks.attack.mutation import MAX_BYTES, mutated
from benchmarks.attack.run import Run, wrong


@given(st.binary(max_size=200), st.integers())
def test_mutations_are_bounded_and_the_same_for_a_seed(data: bytes, seed: int) -> None:
    found = mutated(data, random.Random(seed))
    assert len(found) <= MAX_BYTES
    assert found == mutated(data, random.Random(seed))


def test_seeds_cover_each_port() -> None:
    assert sum(map(len, corpus.requests().values())) > 500
    assert {"teltonika", "gt06", "auto"} <= corpus.frames().keys()
    assert all(corpus.frames().values())
    assert b"Authorization: Bearer k\r\n" in corpus.requests()["posts"][0].packed("k")


def test_a_status_is_read_from_an_answer() -> None:
    assert status_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n") == 431
    assert status_of(b"") == status_of(b"HTTP") == status_of(b"{}\n") == 0


def test_what_should_not_be_is_named() -> None:
    late = Sender("late", lambda _: True, lambda: None)
    late.waits_s = [0.1, 7.0]
    silent = Sender("silent", lambda _: True, lambda: None)
    found = wrong(Outcome(findings=["a 500"]), [late, silent], {"api": 2_000.0}, ["worker"], 1, 0, "Traceback (most")
    assert [sentence.split()[0] for sentence in found] == ["a", "late", "silent", "api", "worker", "1", "a"]


@pytest.mark.slow
def test_a_short_attack_finds_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=7, seconds=6)
    found = run.carry_out()
    assert found["wrong"] == [], "".join(run.box.output[-40:])
    assert found["attacks"] > 100
    assert all(sender["count"] > 0 for sender in found["honest"].values())
