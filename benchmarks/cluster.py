"""What a record costs Redis on a Redis Cluster of three nodes beside one server: CPU of all its nodes for `append`.

    python -m benchmarks.cluster [--quick] [--json FILE]

The same groups of 9,000 records, 10 consecutive ones of each device, are spread over six shards as the collector
spreads them, and appended one call after the other: to one server, and to the node that has the shard's slot.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import psutil
import redis

from benchmarks import messages, report
from benchmarks.append import records_of
from benchmarks.ingest import QUICK, Size
from benchmarks.messages import A_MESSAGE
from benchmarks.report import Result
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Sent
from telemetry.startup.store_setup import set_up
from tests.conftest import running_redis
from tests.redis_cluster import running_cluster, shards_of

SHARDS = 6
FRAMES_A_GROUP = 9

Call = tuple[int, Batch]
"""A shard's number and its part of a group."""


def spread(records: Sequence[Sent]) -> list[Call]:
    """A group's records by shard."""
    parts: dict[int, list[Sent]] = defaultdict(list)
    for record in records:
        parts[shard_of(record.device_id, SHARDS)].append(record)
    return [(shard, Batch(pack(part))) for shard, part in parts.items()]


def groups(size: Size) -> list[Call]:
    """All calls, packed before the clock starts."""
    records = [records_of(body) for body in messages.msgpack_bodies(messages.batches(size.records))]
    joined = [records[at : at + FRAMES_A_GROUP] for at in range(0, len(records), FRAMES_A_GROUP)]
    return [call for group in joined for call in spread(list(chain.from_iterable(group)))]


def cpu_s(clients: Sequence[redis.Redis]) -> float:
    """What the servers have used."""
    pids = [int(client.info("server")["process_id"]) for client in clients]
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def append_us(shards: Sequence[Shard], clients: Sequence[redis.Redis], calls: Sequence[Call], size: Size) -> float:
    """µs of the servers' CPU a record, the median of all rounds."""
    found = []
    for _ in range(size.rounds):
        before_s = cpu_s(clients)
        for shard, batch in calls:
            append_batches(shards[shard], [batch], Limits())
        found.append(1e6 * (cpu_s(clients) - before_s) / (size.records // A_MESSAGE * A_MESSAGE))
    return statistics.median(found)


def measure(size: Size) -> Iterator[Result]:
    """One server, then the cluster."""
    calls = groups(size)
    with tempfile.TemporaryDirectory() as folder, running_redis() as server, server.client() as client:
        one_us = append_us(set_up(client, Archive(Path(folder)), SHARDS), [client], calls, size)
        yield Result("cluster_one_server", one_us, "µs a record")
    with tempfile.TemporaryDirectory() as folder, running_cluster() as cluster:
        shards = shards_of(cluster, Archive(Path(folder)), SHARDS)
        many_us = append_us(shards, list({shard.client for shard in shards}), calls, size)
        yield Result("cluster_three_nodes", many_us, "µs a record")
    yield Result("cluster", many_us / one_us, "times that of one server")


def run(quick: bool) -> Iterator[Result]:
    """With servers of its own."""
    return measure(QUICK if quick else Size())


if __name__ == "__main__":
    report.run_alone(__doc__, run)
