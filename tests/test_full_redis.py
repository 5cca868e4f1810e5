"""A whole box whose Redis cannot accept records: senders and operators are notified, and it recovers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from telemetry.hot_store import shard as hot
from tests.box import Box
from tests.conftest import RedisServer, running_redis
from tests.senders import Sender, altitudes, post, reasons, tcp_answer, wait_until

pytestmark = pytest.mark.slow

LOADS_SLOWLY = ("--key-load-delay", "100")
"""µs for each command of its AOF: after every 1,024, it serves clients."""

COMMANDS = 150_000


class Stand(NamedTuple):
    """A running box on a server that tests may spoil."""

    box: Box
    server: RedisServer
    client: redis.Redis


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One box for all faults: each must leave it as it was."""
    folder = tmp_path_factory.mktemp("box")
    with (
        running_redis() as server,
        Box(folder, redis__url=server.url, persist__flush_seconds="1", data__min_free_bytes="0") as box,
        server.client() as client,
    ):
        yield Stand(box, server, client)
        assert box.stop() == 0


class Fault(NamedTuple):
    """Start and end of a fault, and the messages for senders, in /readyz and from `whimbrel doctor`."""

    begin: Callable[[Stand], object]
    end: Callable[[Stand], object]
    senders: str
    readyz: str
    doctor: str


def above_the_mark(stand: Stand) -> None:
    stand.client.config_set("maxmemory", int(stand.client.info("memory")["used_memory"] / 0.85))


def snapshots_fail(stand: Stand) -> None:
    """A server of others, say, that writes RDB files, too, to a place where it can't."""
    (stand.server.folder / "dump.rdb").mkdir()
    stand.client.config_set("save", "1 1")
    stand.client.set("others", 1)
    wait_until(lambda: stand.client.info("persistence")["rdb_last_bgsave_status"] == "err")


def snapshots_work(stand: Stand) -> None:
    (stand.server.folder / "dump.rdb").rmdir()
    stand.client.bgsave()
    wait_until(lambda: stand.client.info("persistence")["rdb_last_bgsave_status"] == "ok")
    stand.client.config_set("save", "")


def load_slowly(stand: Stand) -> None:
    others = stand.client.pipeline(transaction=False)
    for number in range(COMMANDS):
        others.set("others", number)
    others.execute()
    stand.server.kill()
    threading.Thread(target=stand.server.start, args=LOADS_SLOWLY).start()
    wait_until(lambda: is_loading(stand))


def is_loading(stand: Stand) -> bool:
    try:
        stand.client.ping()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        return False
    raise AssertionError("it is loaded already")


FAULTS = {
    "above its memory mark": Fault(
        above_the_mark,
        lambda stand: stand.client.config_set("maxmemory", 0),
        "above its memory mark",
        "% of its memory limit: not accepting records",
        "collectors refuse",
    ),
    "at its memory limit": Fault(
        lambda stand: stand.client.config_set("maxmemory", 1_000),
        lambda stand: stand.client.config_set("maxmemory", 0),
        "memory",
        "% of its memory limit: not accepting records",
        "collectors refuse",
    ),
    "away": Fault(
        lambda stand: stand.server.kill(),
        lambda stand: stand.server.start(),
        "cannot reach Redis",
        "cannot reach Redis",
        "cannot reach Redis",
    ),
    "loading": Fault(
        load_slowly,
        lambda stand: stand.client.config_set("key-load-delay", 0),
        "loading",
        "loading",
        "",  # as when it is away, but each answer takes its time
    ),
    "a replica": Fault(
        lambda stand: stand.client.replicaof("127.0.0.1", "1"),
        lambda stand: stand.client.replicaof("NO", "ONE"),
        "read only replica",
        "not accepting records: cannot use Redis: You can't write against a read only replica",
        "collectors refuse: cannot use Redis: You can't write against a read only replica",
    ),
    "not allowed to write": Fault(
        lambda stand: stand.client.acl_setuser("default", enabled=True, categories=["-@write"], commands=["-fcall"]),
        lambda stand: stand.client.acl_setuser("default", enabled=True, categories=["+@all"]),
        "no permissions",
        "not accepting records: cannot use Redis: User default has no permissions",
        "collectors refuse: cannot use Redis: User default has no permissions",
    ),
    "refusing, since it can't write a snapshot": Fault(
        snapshots_fail,
        snapshots_work,
        "MISCONF",
        "not accepting records: cannot use Redis: MISCONF",
        "collectors refuse: cannot use Redis: MISCONF",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_refused_in_words_and_passes_by_itself(name: str, stand: Stand, tmp_path: Path) -> None:
    box, fault = stand.box, FAULTS[name]
    with Sender(box, device=name) as sender:
        wait_until(lambda: len(sender.acknowledged) > 50)
        fault.begin(stand)
        refused = sender.refused
        wait_until(lambda: sender.refused > refused)
        answer = post(box, 0)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert fault.senders in answer.json()["detail"]
        answered = tcp_answer(box)
        assert answered["retry"] is True
        assert fault.senders in str(answered["error"])
        wait_until(lambda: any(fault.readyz in reason for reason in reasons(box)), 10)
        if fault.doctor:
            done = box.whimbrel("doctor")
            assert done.returncode == 1
            failures = [line for line in done.stdout.splitlines() if line.startswith("failure  Redis")]
            assert any(fault.doctor in line for line in failures), done.stdout
        fault.end(stand)
        before = len(sender.acknowledged)
        wait_until(lambda: len(sender.acknowledged) > before + 50)
        wait_until(lambda: reasons(box) == [])
    assert sender.others == set()
    found = altitudes(box, tmp_path / "all.csv", name)
    assert len(found) == len(set(found)), "none is there twice"
    assert sender.acknowledged <= set(found)
    [shard] = hot.attach(stand.client, 1)
    wait_until(lambda: shard.unsaved() == 0)
