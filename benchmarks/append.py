"""The rate at which records are acknowledged, beside that of the bare function `append` with the same groups.

    python -m benchmarks.append [--quick] [--json FILE]

Frames of 1,000 records, 10 consecutive ones of each device, go to the collector over 4 connections; then the same
batches go straight to the box's Redis as calls of the function, packed before the clock starts, one call under way, as
many frames in a call as the collector's own calls had. Both in turns, on the same box, which saves all the while.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis
import msgspec

from benchmarks import answers, messages, report
from benchmarks.boxes import box, shards, wait_saved
from benchmarks.cpu import Meter
from benchmarks.ingest import FRAMES, QUICK, Size, Source, middle, warm_up
from benchmarks.messages import A_MESSAGE
from benchmarks.report import Result
from benchmarks.sending import Connection, Load, Message, send
from telemetry.codec.record_parser import read
from telemetry.config.loader import load
from telemetry.hot_store.client import url
from telemetry.hot_store.credentials import Login
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Sent
from telemetry.system.clock import arrival
from tests.box import Box

TARGET = 0.6
FIRST_DAY = 100
NOW = arrival(1_800_000_000_000_000, 0, 86_400, "kmh", 2**20)


class _Packing:
    """Takes the place of a client and keeps the bytes of each call instead of sending it."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def fcall(self, *words: str | int | bytes) -> tuple[list[int], int, int]:
        command: Any = ("FCALL", *words)
        self.calls.append(hiredis.pack_command(command))
        return [], 0, 0


def calls(shard: Shard, batches: Sequence[Sequence[Sent]], sender: str, per_call: int) -> list[Message]:
    """Calls of `append` for these batches, each one of a sender who numbers them."""
    packing: Any = _Packing()
    bare = Shard(packing, shard.shard, shard.store_id, shard.shards)
    named = [Batch(pack(batch), sender, b"", number) for number, batch in enumerate(batches, 1)]
    groups = [named[at : at + per_call] for at in range(0, len(named), per_call)]
    for group in groups:
        append_batches(bare, group, Limits())
    return [Message(data, len(group) * A_MESSAGE) for data, group in zip(packing.calls, groups, strict=True)]


def records_of(body: bytes) -> list[Sent]:
    """The records of a frame as the collector reads them."""
    return [read(value, "tcp", "msgpack", NOW) for value in msgspec.msgpack.decode(body)]


def group_size(shard: Shard, records: int, calls_before: int) -> int:
    """How many frames the collector put into a call, on average."""
    return max(1, round(records / A_MESSAGE / max(calls_made(shard) - calls_before, 1)))


def calls_made(shard: Shard) -> int:
    """How many functions this Redis was asked for."""
    found = shard.client.info("commandstats").get("cmdstat_fcall", {})
    return int(found.get("calls", 0))


def measure(box: Box, size: Size) -> Iterator[Result]:
    """In turns over the collector and straight."""
    some = messages.batches(size.records)
    bodies, source = FRAMES.bodies(some), Source(box, FRAMES, some, "append")
    settings = load(environ=box.environ)
    socket = url(settings).removeprefix("unix://")
    login = Message(hiredis.pack_command(("AUTH", *Login(settings, "collector").get_credentials())), 0)
    taken: list[Load] = []
    bare: list[Load] = []
    taken_costs, bare_costs, per_call = [], [], [1]
    with shards(box) as [shard]:
        for number in range(size.rounds):
            connections, before, meter = source.connections(FIRST_DAY + number), calls_made(shard), Meter(box)
            taken.append(send(connections))
            taken_costs.append(meter.cost(taken[-1].records))
            per_call.append(group_size(shard, taken[-1].records, before))
            wait_saved(box)
            batches = [records_of(messages.on_day(body, FIRST_DAY + size.rounds + number)) for body in bodies]
            found = calls(shard, batches, f"bare-{number}", per_call[-1])
            meter = Meter(box)
            bare.append(send([Connection(socket, [login, *found], answers.Appended())]))
            bare_costs.append(meter.cost(bare[-1].records))
            wait_saved(box)
    ratio = statistics.median(one.per_s / other.per_s for one, other in zip(taken, bare, strict=True))
    yield Result("append_ratio", ratio, "of the bare rate", TARGET, is_floor=True)
    yield Result("append_rate", statistics.median(one.per_s for one in taken), "records/s")
    yield from middle(taken_costs).results("append")
    yield Result("append_bare_rate", statistics.median(one.per_s for one in bare), "records/s")
    yield Result("append_bare_redis", middle(bare_costs).by_program["redis"], "µs a record")
    yield Result("append_group", A_MESSAGE * statistics.median(per_call[1:]), "records a call")


def run(quick: bool) -> Iterator[Result]:
    """In a box of its own."""
    with box() as found:
        warm_up(found)
        yield from measure(found, QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
