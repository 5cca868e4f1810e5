"""Latest of one device: alone, beside what bare Redis takes for the same value, and while much else goes on.

    python -m benchmarks.latest [--quick] [--json FILE]

Idle: one keep-alive connection, one question after the other, in turns with the same from a client that accepts
compressed answers (`latest_gzip`); and 16 connections for the most questions a second. Busy:
1,000 questions a second over 4 connections, each timed from when it was due, while 20,000 records a second arrive in
frames of 1,000 and one question a second asks for the whole fleet: the last hour of each device where there is
`/v1/summary`, else a page of 5,000 records.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from itertools import count, islice, repeat
from typing import NamedTuple

from benchmarks import answers, messages, report
from benchmarks.boxes import box
from benchmarks.cpu import Cost, Meter, median
from benchmarks.messages import A_MESSAGE
from benchmarks.report import Result
from benchmarks.sending import Connection, Load, Message, send
from telemetry.config.loader import load
from telemetry.hot_store.client import connect
from telemetry.hot_store.keys import Keys
from tests.box import Box

DEVICE = "sim-000007"
QUESTION = messages.get(f"/v1/devices/{DEVICE}/latest")
QUESTION_GZIP = QUESTION._replace(data=QUESTION.data.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip, zstd\r\n\r\n"))
IDLE_MS, IDLE_P99_MS, BUSY_MS, BUSY_P99_MS = 0.2, 1.0, 0.5, 2.0
MANY_CONNECTIONS, BUSY_CONNECTIONS = 16, 4
QUESTIONS_PER_S, RECORDS_PER_S = 1_000, 20_000
FLEET_EVERY_S = 1.0
PAGE = "/v1/records?limit=5000"
SUMMARY = "/v1/summary?start=2026-01-01T00:00:00Z&end=2026-01-01T01:00:00Z&every=1h&fields=count,speed_kmh_mean"


class Size(NamedTuple):
    """Questions in an idle round, rounds, and seconds of busy ones."""

    questions: int = 5_000
    rounds: int = 5
    seconds: float = 10.0


QUICK = Size(1_000, 3, 3.0)


def ask(box: Box, connections: int, questions: int, question: Message = QUESTION) -> Load:
    """One question after the other over each connection."""
    address = "127.0.0.1", box.api_port
    share = questions // connections
    return send([Connection(address, repeat(question, share), answers.Http()) for _ in range(connections)])


def metered(box: Box, questions: int, question: Message) -> tuple[Load, Cost]:
    """These questions over one connection, and what each costs."""
    meter = Meter(box)
    load = ask(box, 1, questions, question)
    return load, meter.cost(questions)


def redis_ms(box: Box, questions: int) -> float:
    """What Redis takes for the value behind the question, through its ordinary client."""
    taken = []
    with connect(load(environ=box.environ)) as client:
        for _ in range(questions):
            start_s = time.perf_counter()
            client.hget(Keys(0).latest, DEVICE)
            taken.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(taken)


def fill(box: Box) -> list[bytes]:
    """Have the fleet known; returns bodies of frames."""
    bodies = messages.msgpack_bodies(messages.batches(40 * A_MESSAGE))
    send(_intake(box, bodies, "fill", len(bodies)))
    return bodies


def _intake(box: Box, bodies: list[bytes], sender: str, frames: int | None = None) -> list[Connection]:
    """One connection of a gateway that sends these frames again and again, each time on another day."""
    made = (
        messages.frame(sender, number + 1, messages.on_day(bodies[number % len(bodies)], number // len(bodies)))
        for number in count()
    )
    return [Connection(("127.0.0.1", box.tcp_port), islice(made, frames), answers.Frames(), window=8)]


def idle(box: Box, size: Size) -> Iterator[Result]:
    """Nothing else goes on; the API and bare Redis take turns."""
    ask(box, 1, size.questions // 10)
    loads, gzip_loads = [], []
    for _ in range(size.rounds):
        loads.append(metered(box, size.questions, QUESTION))
        gzip_loads.append(metered(box, size.questions, QUESTION_GZIP))
    bare_ms = [redis_ms(box, size.questions) for _ in range(size.rounds)]
    many = [ask(box, MANY_CONNECTIONS, size.questions) for _ in range(size.rounds)]
    yield Result("latest_idle", statistics.median(load.ms(0.5) for load, _ in loads), "ms", IDLE_MS)
    yield Result("latest_idle_p99", statistics.median(load.ms(0.99) for load, _ in loads), "ms", IDLE_P99_MS)
    yield Result("latest_idle_bare_redis", statistics.median(bare_ms), "ms")
    yield from median(cost for _, cost in loads).results("latest_idle", "µs a question")
    yield Result("latest_gzip", statistics.median(load.ms(0.5) for load, _ in gzip_loads), "ms")
    yield from median(cost for _, cost in gzip_loads).results("latest_gzip", "µs a question")
    yield Result("latest_rate", statistics.median(load.per_s for load in many), "questions/s")


def fleet_question(box: Box) -> str:
    """What asks for the whole fleet."""
    return PAGE if box.http.get(SUMMARY).status_code == 404 else SUMMARY


class Fleet(threading.Thread):
    """Asks for the whole fleet once a second until told to stop."""

    def __init__(self, box: Box, target: str) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.taken_ms: list[float] = []
        self._box = box
        self._target = target

    def run(self) -> None:
        """Ask and ask."""
        while not self.stopped.is_set():
            start_s = time.perf_counter()
            self._box.http.get(self._target).raise_for_status()
            taken_s = time.perf_counter() - start_s
            self.taken_ms.append(1e3 * taken_s)
            self.stopped.wait(max(FLEET_EVERY_S - taken_s, 0))


def busy(box: Box, size: Size, bodies: list[bytes]) -> Iterator[Result]:
    """Much else goes on."""
    fleet = Fleet(box, fleet_question(box))
    intake = multiprocessing.get_context("fork").Process(target=_take, args=(box, bodies, size.seconds + 1))
    intake.start()
    fleet.start()
    try:
        time.sleep(0.5)
        meter, address = Meter(box), ("127.0.0.1", box.api_port)
        connections = [Connection(address, repeat(QUESTION), answers.Http()) for _ in range(BUSY_CONNECTIONS)]
        load = send(connections, QUESTIONS_PER_S, size.seconds)
        cost = meter.cost(load.records)
    finally:
        fleet.stopped.set()
        fleet.join()
        intake.join()
    if intake.exitcode != 0:
        raise RuntimeError("the records could not be sent")
    yield Result("latest_busy", load.ms(0.5), "ms", BUSY_MS)
    yield Result("latest_busy_p99", load.ms(0.99), "ms", BUSY_P99_MS)
    yield Result("latest_busy_rate", load.per_s, "questions/s")
    yield from cost.results("latest_busy", "µs a question, with all else")
    yield Result("latest_busy_fleet", statistics.median(fleet.taken_ms), "ms a fleet question")


def _take(box: Box, bodies: list[bytes], seconds: float) -> None:
    load = send(_intake(box, bodies, "busy"), RECORDS_PER_S, seconds)
    if load.per_s < 0.9 * RECORDS_PER_S:
        print(f"latest_busy: only {load.per_s:.0f} records/s of {RECORDS_PER_S} were taken", flush=True)


def measure(box: Box, size: Size) -> Iterator[Result]:
    """Idle, then busy."""
    bodies = fill(box)
    yield from idle(box, size)
    yield from busy(box, size, bodies)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    with box() as found:
        yield from measure(found, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
