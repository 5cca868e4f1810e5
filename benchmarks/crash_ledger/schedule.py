"""What is done to which program, and when: a pure function of the seed and the length.

Three parts. First the box as it is shipped, its programs killed one after another. Then a second worker beside its own,
while every step of saving and compacting is reached by a program that is killed there, and by one that is stopped there
for some seconds and then runs on, long overtaken by the other. Last the sweep, which acts only after a while without
a crash: its steps, and the other programs, in between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

KILL, STOP, BEGIN, TIDY, POISON, REPLAY = "kill", "stop", "begin", "tidy", "poison", "replay"
"""SIGKILL; SIGSTOP, and SIGCONT after a while; start the second worker; ask for retention and sweep; put an entry there
that no save can read; replay those in quarantine."""

SAVE_STEPS = (
    *("look", "recover", "intend", "read", "still", "quarantine", "write", "sync", "open", "commit", "make last"),
    *("finish", "finish 0", "finish 1", "done"),
)
COMPACT_STEPS = ("plan", "merge", "sync", "commit", "make last", "done")
SWEEP_STEPS = ("fence", "look again", "delete")
STORM_POINTS = tuple([f"save {step}" for step in SAVE_STEPS] + [f"compact {step}" for step in COMPACT_STEPS])
SWEEP_POINTS = tuple(f"sweep {step}" for step in SWEEP_STEPS)
POINTS = STORM_POINTS + SWEEP_POINTS
"""Each is told before its step is taken, so the next one also stands for "after it"."""

MIDDLES = {
    "save": ("write", "sync", "open", "commit", "make last", "finish"),
    "compact": ("merge", "sync", "commit", "make last"),
}
"""Where another program is in the middle of its own when one that stood still runs on."""

BOX, SUPERVISOR, REDIS, WORKER, REACHED = "box", "supervisor", "redis", "worker", "reached"
ONE_COLLECTOR = "one collector"
"""Of the two processes that share its ports; as `collector` both are hit, and the one that starts them."""

FRONTS = ("collector", ONE_COLLECTOR, "api", "query")
PROGRAMS = (REDIS, WORKER, "scheduler", *FRONTS)

POISONS, REPLAYS = 120, 3
"""In each round: nearly every save meets one, so that one of them is killed there also on a busy machine."""

ROUND_S = 180.0
"""In so long everything is done once."""


class Fault(NamedTuple):
    """`action` on `target` at `at_s`; with a `point` on the first program that reaches it from then on.

    The target `reached` is that program itself; others are hit while it stands there, and it goes on. A program stops
    at a point for at least `for_s`, and then until another one that has overtaken it stands at `until`.
    """

    at_s: float
    action: str
    target: str
    point: str = ""
    for_s: float = 0.0
    until: str = ""

    def __str__(self) -> str:
        length = f" for {self.for_s:.1f} s" if self.for_s else ""
        place = f" at {self.point}" if self.point else ""
        until = f" until another is at {self.until}" if self.until else ""
        return f"{self.at_s:7.2f} s  {self.action} {self.target}{length}{place}{until}"


class Part(NamedTuple):
    """What is done between two moments, in an order and at times that are drawn."""

    start: float
    end: float
    faults: Sequence[Fault]


def schedule(seed: int, seconds: float) -> list[Fault]:
    """All faults in the order of time."""
    rng = random.Random(seed)
    rounds = max(1, round(seconds / ROUND_S))
    found = [Fault(0.18 * seconds, BEGIN, "second worker")]
    for part in (
        Part(0.02, 0.18, [*_alone(rng)] * rounds),
        Part(0.18, 0.78, [fault for _ in range(rounds) for fault in _storm(rng)]),
        Part(0.78, 1.0, [fault for _ in range(rounds) for fault in _sweeping(rng)]),
    ):
        found += _spread(rng, part, seconds)
    found += [Fault(at_s, TIDY, "archive") for at_s in _ticks(0.76 * seconds, seconds)]
    poisons = [Fault(0.0, POISON, "stream")] * POISONS + [Fault(0.0, REPLAY, "quarantine")] * REPLAYS
    found += _spread(random.Random(f"{seed} poison"), Part(0.02, 0.95, poisons * rounds), seconds)
    return sorted(found)


def _alone(rng: random.Random) -> list[Fault]:
    return [*(_kill(program) for program in PROGRAMS), _kill(BOX), *(_stop(rng, program) for program in FRONTS)]


def _storm(rng: random.Random) -> Iterator[Fault]:
    for point in STORM_POINTS:
        yield _kill(REACHED, point)
        yield _stop(rng, REACHED, point)
    for point in ("save intend", "save still", "save finish 0", "save done"):
        yield _kill(REDIS, point)
    for point in ("save commit", "compact make last"):
        yield _kill(BOX, point)
    for _ in range(3):
        yield _stop(rng, REDIS)
    yield _kill(SUPERVISOR)
    for program in FRONTS:
        yield _kill(program)
        yield _stop(rng, program)


def _sweeping(rng: random.Random) -> Iterator[Fault]:
    for point in SWEEP_POINTS:
        yield _kill(REACHED, point)
        yield _stop(rng, REACHED, point)
    for program in ("scheduler", *FRONTS):
        yield _kill(program)


def _kill(target: str, point: str = "") -> Fault:
    return Fault(0.0, KILL, target, point)


def _stop(rng: random.Random, target: str, point: str = "") -> Fault:
    if not point:
        return Fault(0.0, STOP, target, for_s=round(rng.uniform(1.5, 3.0), 2))
    protocol = "compact" if point.startswith("compact") else "save"
    until = f"{protocol} {rng.choice(MIDDLES[protocol])}"
    return Fault(0.0, STOP, target, point, round(rng.uniform(0.5, 1.5), 2), until)


def _spread(rng: random.Random, part: Part, seconds: float) -> Iterator[Fault]:
    """The faults in a drawn order, one somewhere in each of equal parts of the time."""
    drawn = rng.sample(part.faults, len(part.faults))
    step_s = (part.end - part.start) * seconds / len(drawn)
    for number, fault in enumerate(drawn):
        yield fault._replace(at_s=round(part.start * seconds + (number + rng.random()) * step_s, 2))


def _ticks(start_s: float, end_s: float) -> list[float]:
    return [round(start_s + number * 0.5, 2) for number in range(int((end_s - start_s) / 0.5))]
