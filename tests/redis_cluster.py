"""A real Redis Cluster on this machine: three masters that share all slots."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster

from cli.redis_server.command import find
from telemetry.archive.table import Archive
from telemetry.hot_store.client import raw_entries
from telemetry.hot_store.shard import Shard
from telemetry.startup.store_setup import set_up
from tests.box import free_ports
from tests.conftest import server_choice

NODES = 3
SLOTS = 16_384
HOST = "127.0.0.1"
READY_S = 20.0


@contextlib.contextmanager
def running_cluster() -> Iterator[RedisCluster]:
    """A client of a cluster that goes away with it, durable as Whimbrel asks for."""
    ports = free_ports(2 * NODES)
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, contextlib.ExitStack() as stack:
        nodes = []
        for port, bus_port in zip(ports[::2], ports[1::2], strict=True):
            process = subprocess.Popen(_command(Path(folder), port, bus_port), stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        _join(nodes, ports)
        yield stack.enter_context(contextlib.closing(RedisCluster(host=HOST, port=ports[0])))


def _command(folder: Path, port: int, bus_port: int) -> list[str]:
    data = folder / str(port)
    data.mkdir()
    listening = ["--port", str(port), "--bind", HOST, "--cluster-enabled", "yes", "--cluster-port", str(bus_port)]
    durable = ["--dir", str(data), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return [str(find(server_choice()).path), *listening, *durable, "--stream-node-max-bytes", "1024"]


def _join(nodes: list[redis.Redis], ports: list[int]) -> None:
    """Share the slots and have the nodes know each other. Raises `TimeoutError` if that doesn't come about."""
    stop_s = time.monotonic() + READY_S
    for number, node in enumerate(nodes):
        while not _is_up(node):
            _wait(stop_s)
        first, behind = SLOTS * number // NODES, SLOTS * (number + 1) // NODES
        _ask(node, "ADDSLOTSRANGE", first, behind - 1)
        _ask(node, "MEET", HOST, ports[0], ports[1])
    while not all(_is_whole(node) for node in nodes):
        _wait(stop_s)


def _is_up(node: redis.Redis) -> bool:
    try:
        return node.ping()
    except redis.ConnectionError:
        return False


def _is_whole(node: redis.Redis) -> bool:
    info = _ask(node, "INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == NODES


def _ask(node: redis.Redis, *words: str | int) -> Any:
    return node.execute_command(f"CLUSTER {words[0]}", *words[1:])  # type: ignore[no-untyped-call]


def _wait(stop_s: float) -> None:
    if time.monotonic() > stop_s:
        raise TimeoutError("the nodes don't become a cluster")
    time.sleep(0.05)


def shards_of(cluster: RedisCluster, archive: Archive, shards: int) -> list[Shard]:
    """The shards of a new store on the cluster, each with a client of the node that has its slot."""
    client: Any = cluster  # used like a single server: each command concerns one slot
    return [_on_its_node(cluster, shard) for shard in set_up(client, archive, shards)]


def _on_its_node(cluster: RedisCluster, shard: Shard) -> Shard:
    node = cluster.get_node_from_key(shard.keys.store)  # type: ignore[no-untyped-call]
    client = cluster.get_redis_connection(node)
    raw_entries(client)
    return Shard(client, shard.shard, shard.store_id, shard.shards)
