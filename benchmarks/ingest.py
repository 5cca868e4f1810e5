"""CPU of all processes for a record, from the socket to committed and merged Parquet, that of the sender left out.

    python -m benchmarks.ingest [--quick] [--json FILE]

Batches of 1,000 records over 4 connections, as fast as the box takes them: msgpack frames over TCP (16 of a connection
unanswered), NDJSON over TCP (one record and one answer a line), and JSON arrays over HTTP. A round ends when the box's
own worker has saved all and merged the day into one file. The records of each round are those of a day of their own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import answers, messages, report
from benchmarks.boxes import box, saved, wait_merged, wait_saved
from benchmarks.cpu import Cost, Meter
from benchmarks.messages import A_MESSAGE
from benchmarks.report import Result
from benchmarks.sending import Answers, Connection, Load, Message, send
from cli.sending.tcp_sender import WINDOW
from tests.box import Box

CONNECTIONS = 4
FRAME_WINDOW = WINDOW
"""As many as `whimbrel send` has unanswered."""

LINE_WINDOW = 2

TARGET_US, STRETCHED_US, JSON_US = 7.0, 12.0, 9.0


class Size(NamedTuple):
    """Records in a round, and rounds."""

    records: int = 400_000
    rounds: int = 5


QUICK = Size(40_000, 3)


class Way(NamedTuple):
    """A protocol: bodies of batches, the message of a sender, number and body, what is answered, and how many wait."""

    bodies: Callable[[Sequence[messages.Batch]], list[bytes]]
    message: Callable[[str, int, bytes], Message]
    answers: Callable[[], Answers]
    window: int
    is_http: bool = False

    def port(self, box: Box) -> int:
        """Where the box speaks it."""
        return box.http_port if self.is_http else box.tcp_port


FRAMES = Way(messages.msgpack_bodies, messages.frame, answers.Frames, FRAME_WINDOW)
LINES = Way(
    messages.json_lines, lambda _name, _number, body: Message(body, A_MESSAGE, A_MESSAGE), answers.Lines, LINE_WINDOW
)
ARRAYS = Way(
    messages.json_arrays, lambda _name, _number, body: messages.post(body, A_MESSAGE), answers.Http, 1, is_http=True
)


class Round(NamedTuple):
    """What one round came to; `merging_us` is what of its cost came after all was saved."""

    load: Load
    cost: Cost
    merging_us: float


class Source:
    """Batches that are sent again and again, each time on another day and with numbers of their own."""

    def __init__(
        self, box: Box, way: Way, some: Sequence[messages.Batch], sender: str, connections: int = CONNECTIONS
    ) -> None:
        self._box = box
        self._way = way
        self.bodies = way.bodies(some)
        self._sender = sender
        self._connections = connections
        self._number = 0

    def connections(self, on_day: int) -> list[Connection]:
        """Connections with messages that are made now."""
        bodies = [messages.on_day(body, on_day) for body in self.bodies]
        self._number += len(bodies)
        first = self._number - len(bodies) + 1
        address = "127.0.0.1", self._way.port(self._box)
        found = []
        for n in range(self._connections):
            part = [
                self._way.message(f"{self._sender}-{n}", first + at, bodies[at])
                for at in range(n, len(bodies), self._connections)
            ]
            found.append(Connection(address, part, self._way.answers(), self._way.window))
        return found


def carry(box: Box, source: Source, on_day: int, records: int) -> Round:
    """Send a source's records and wait until they are merged."""
    connections, before = source.connections(on_day), saved(box)
    meter = Meter(box)
    load = send(connections)
    wait_saved(box)
    saving = meter.cost(load.records)
    wait_merged(box)
    cost = meter.cost(load.records)
    if (found := saved(box) - before) != records or load.records != records:
        raise RuntimeError(f"{load.records} of {records} records were taken, and {found} are in the archive")
    return Round(load, cost, cost.total - saving.total)


def middle(costs: Sequence[Cost]) -> Cost:
    """The round with the median total, so that its parts add up."""
    return sorted(costs, key=lambda cost: cost.total)[len(costs) // 2]


def rows(name: str, rounds: Sequence[Round], target_us: float | None = None) -> list[Result]:
    """The lines of a kind of batches."""
    cost = middle([one.cost for one in rounds])
    per_s = statistics.median(one.load.per_s for one in rounds)
    sender_us = statistics.median(1e6 * one.load.sender_cpu_s / one.load.records for one in rounds)
    return [
        Result(name, cost.total, "µs a record", target_us),
        *cost.results(name),
        Result(f"{name}_merging", statistics.median(one.merging_us for one in rounds), "µs a record"),
        Result(f"{name}_rate", per_s, "records/s"),
        Result(f"{name}_sender", sender_us, "µs a record"),
    ]


def kind(box: Box, way: Way, a_device: int, size: Size, first_day: int) -> list[Round]:
    """All rounds of one kind."""
    some = messages.batches(size.records, a_device)
    source = Source(box, way, some, f"bench-{first_day}")
    return [carry(box, source, first_day + n, len(some) * A_MESSAGE) for n in range(size.rounds)]


def warm_up(box: Box) -> None:
    """A first round of two thousand records that counts for nothing: programs load code when they first need it."""
    kind(box, FRAMES, 10, Size(2 * A_MESSAGE, 2), -7)


KINDS: dict[str, tuple[Way, int, float | None]] = {
    "cpu_msgpack": (FRAMES, 10, TARGET_US),
    "cpu_msgpack_1_a_device": (FRAMES, 1, STRETCHED_US),
    "cpu_msgpack_100_a_device": (FRAMES, 100, None),
    "cpu_json_tcp": (LINES, 10, None),
    "cpu_json_http": (ARRAYS, 10, None),
}


def measure(box: Box, size: Size) -> Iterator[Result]:
    """One kind after the other, each on days of its own."""
    json_us = []
    warm_up(box)
    for number, (name, (way, a_device, target_us)) in enumerate(KINDS.items()):
        found = rows(name, kind(box, way, a_device, size, number * size.rounds), target_us)
        json_us += [found[0].value] if way is not FRAMES else []
        yield from found
    yield Result("cpu_json", max(json_us), "µs a record", JSON_US)


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    with box() as found:
        yield from measure(found, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
