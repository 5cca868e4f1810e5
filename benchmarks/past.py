"""Where the fleet was at a moment, of an archive of 30 days of a million records, a twentieth of its devices vanished.

    python -m benchmarks.past [--quick] [--json FILE]

Of 1,000 devices 50 sent on the first day only, 29 days ago. One keep-alive connection, one question after the other,
each about another moment of the last day; `<id>_first` is the first question after a start of the query program, which
remembers nothing of the files. The archive is written beforehand, past the collector: about 600 MB.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import answers, archives, messages, report
from benchmarks.boxes import archive_of, box, wait_saved
from benchmarks.cpu import Meter, program
from benchmarks.messages import DEVICE_IDS, DEVICES
from benchmarks.report import Result
from benchmarks.sending import Connection, send
from tests.box import Box

PAST_MS, PATIENCE_S = 200.0, 300.0


class Size(NamedTuple):
    """Records of a device a day, days, devices that vanished after the first, questions in a round, rounds."""

    a_device: int = archives.A_DAY
    days: int = 30
    vanished: int = 50
    questions: int = 10
    rounds: int = 3


QUICK = Size(100, 4, 50, 3, 1)


class Asked(NamedTuple):
    """Devices that a question names, all where it names none; how many of them have been seen."""

    devices: Sequence[str]
    seen: int

    def target(self, at: str) -> str:
        """The address of a question about them."""
        named = [("device_id", device) for device in self.devices]
        return "/v1/latest?" + urlencode([("at", at), ("limit", 1_000), *named])


def vanished(size: Size) -> list[str]:
    """Devices that sent on the first day only: any of the fleet."""
    return sorted(Random(2).sample(DEVICE_IDS, size.vanished))


def kinds(size: Size) -> dict[str, Asked]:
    """Id of a figure → what is asked."""
    gone = vanished(size)
    present = sorted(set(DEVICE_IDS) - set(gone))
    return {
        "past_fleet": Asked((), DEVICES),
        "past_vanished": Asked(gone, size.vanished),
        "past_five": Asked([*present[:2], *gone[:3]], 5),
        "past_one": Asked(present[:1], 1),
        "past_unknown": Asked([*present[:2], "nosuch-1", "sim-000500x", "zzz"], 2),
    }


def moments(dice: Random, size: Size, count: int) -> list[str]:
    """Moments of the last day, from its second hour on."""
    day = messages.day(size.days - 1).isoformat()
    return [f"{day}T{dice.randrange(1, 24):02}:{dice.randrange(60):02}:{dice.randrange(60):02}Z" for _ in range(count)]


def fill(box: Box, day: pa.Table, size: Size) -> None:
    """Write the archive, and have the devices known, each by a record before all others."""
    gone = pa.array(vanished(size))
    archive = archive_of(box)
    archives.add_days(archive, day, 0, 1)
    archives.add_days(archive, day.filter(pc.invert(pc.is_in(day["device_id"], gone))), 1, size.days)
    first = {"timestamp": f"{messages.day(0).isoformat()}T00:00:00Z", "latitude": 1.0, "longitude": 2.0}
    records = [{"device_id": device, **first} for device in DEVICE_IDS]
    with_http = [messages.post(msgspec.json.encode(records), DEVICES)]
    send([Connection(("127.0.0.1", box.http_port), with_http, answers.Http())])
    wait_saved(box)


def check(box: Box, asked: Asked, at: str) -> None:
    """See that as many devices are told as were seen. Raises `RuntimeError`."""
    found = box.http.get(asked.target(at), timeout=PATIENCE_S).raise_for_status().json()["records"]
    if len(found) != asked.seen:
        raise RuntimeError(f"{len(found)} devices, not {asked.seen}")


def restart(box: Box) -> None:
    """Start the query program anew, so that it remembers nothing."""
    [process] = [p for p in psutil.Process(box.pid).children(recursive=True) if program(p.cmdline()) == "query"]
    process.terminate()
    process.wait(30)
    stop_s = time.monotonic() + 30
    while box.http.get("/v1/records?limit=1").status_code != 200:
        if time.monotonic() > stop_s:
            raise TimeoutError("the query program does not answer")
        time.sleep(0.1)


def measure(box: Box, day: pa.Table, size: Size) -> Iterator[Result]:
    """Write the archive and ask."""
    fill(box, day, size)
    dice = Random(1)
    for name, asked in kinds(size).items():
        restart(box)
        [at] = moments(dice, size, 1)
        start_s = time.perf_counter()
        check(box, asked, at)
        yield Result(f"{name}_first", 1e3 * (time.perf_counter() - start_s), "ms")
        rounds = [
            [messages.get(asked.target(at)) for at in moments(dice, size, size.questions)] for _ in range(size.rounds)
        ]
        meter = Meter(box)
        loads = [send([Connection(("127.0.0.1", box.api_port), some, answers.Http())]) for some in rounds]
        cost = meter.cost(size.rounds * size.questions)
        yield Result(name, statistics.median(load.ms(0.5) for load in loads), "ms", PAST_MS)
        yield from cost.results(name, "µs a question")


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    size = QUICK if quick else Size()
    with box() as found:
        yield from measure(found, archives.one_day(DEVICES, size.a_device), size)


if __name__ == "__main__":
    report.run_alone(__doc__, run)
