"""What a key costs: latest, and one record a request, of an open box, by a key, and by a token of a fleet's device.

    python -m benchmarks.guarded [--quick] [--json FILE]

Two boxes run side by side and take turns, one open, one with `auth.required`: so a machine that does other things, too,
slows all alike. Compare the CPU of the program that looks at the key; rates beside it hang on what else goes on.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import NamedTuple

from benchmarks import answers, messages, report
from benchmarks.boxes import box
from benchmarks.cpu import Meter
from benchmarks.report import Result
from benchmarks.sending import Connection, Message, send
from telemetry.model.api_keys import device_token
from tests.box import Box

DEVICE = "sim-000007"
RECORD = b'{"device_id": "%s", "latitude": 53.44, "longitude": -2.93, "speed": 48.5}' % DEVICE.encode()
CONNECTIONS = 16
KNOWN_S = 3.0
"""Longer than any program takes to hear of a new key."""


class Size(NamedTuple):
    """Requests in a round, and rounds."""

    requests: int = 20_000
    rounds: int = 5


QUICK = Size(2_000, 3)


class Way(NamedTuple):
    """A kind of request, which box's port it goes to, and the program that takes it."""

    name: str
    message: Message
    port: int
    program: str


def keyed(message: Message, key: str) -> Message:
    """The same request with a key."""
    line, _, rest = message.data.partition(b"\r\n")
    return message._replace(data=b"%s\r\nAuthorization: Bearer %s\r\n%s" % (line, key.encode(), rest))


def ways(found: Box) -> tuple[Way, Way]:
    """The two requests that are most frequent."""
    question = messages.get(f"/v1/devices/{DEVICE}/latest")
    return (
        Way("latest", question, found.api_port, "api"),
        Way("single", messages.post(RECORD, 1), found.http_port, "collector"),
    )


def create(found: Box, *arguments: str) -> str:
    """A new key, as the command prints it."""
    done = found.whimbrel("keys", "create", *arguments)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, "whimbrel keys create", done.stdout, done.stderr)
    return done.stdout.splitlines()[-1]


def cpu_us(found: Box, way: Way, message: Message, requests: int) -> float:
    """CPU of the program that looks at the key, µs a request."""
    address, share = ("127.0.0.1", way.port), requests // CONNECTIONS
    meter = Meter(found)
    send([Connection(address, islice(cycle([message]), share), answers.Http()) for _ in range(CONNECTIONS)])
    return meter.cost(share * CONNECTIONS).by_program[way.program]


def measure(is_open: Box, guarded: Box, size: Size) -> Iterator[Result]:
    """All of it, by turns."""
    key = create(guarded, "--scope", "ingest", "--scope", "read")
    token = device_token(create(guarded, "--scope", "ingest", "--scope", "read", "--fleet"), DEVICE)
    time.sleep(KNOWN_S)
    for found, text in ((is_open, ""), (guarded, key)):
        way = ways(found)[1]
        cpu_us(found, way, keyed(way.message, text) if text else way.message, 10 * CONNECTIONS)
    for place in range(2):
        asked = {"open": (is_open, ""), "key": (guarded, key), "token": (guarded, token)}
        taken: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(size.rounds):
            for name, (found, text) in asked.items():
                way = ways(found)[place]
                taken[name].append(cpu_us(found, way, keyed(way.message, text) if text else way.message, size.requests))
        for name, each in taken.items():
            yield Result(f"{way.name}_{name}", statistics.median(each), f"µs of CPU of the {way.program} a request")


def run(quick: bool) -> Iterator[Result]:
    """In two boxes of their own."""
    with box() as is_open, box(auth__required="true") as guarded:
        yield from measure(is_open, guarded, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
