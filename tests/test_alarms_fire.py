"""Each alarm of docs/operations/alerts.yml fires for a real fault of a whole box that a real Prometheus scrapes.

The rules are the shipped ones on a faster clock (tests/prometheus.py); tests/test_alerts.py covers their durations and
what keeps each quiet. Faults that can last at the same time form a stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import string
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import msgpack
import psutil
import pytest

from collector.ingest.watermarks import memory_percent
from telemetry.config.loader import load
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import attach
from tests.box import PROJECT, Box, free_ports
from tests.certificates import Authority
from tests.collector.brokers import broker, needs_mosquitto
from tests.fake_clock import FakeClock
from tests.prometheus import SCRAPE_S, Prometheus, needs_prometheus
from tests.promtool import alarms
from tests.scrape import Scrape
from tests.senders import Beside, wait_until
from tests.small_disk import SmallDisk, small_disk
from tests.worker.courier.receiver import HANG_UP, Receiver

pytestmark = [pytest.mark.slow, pytest.mark.thorough, needs_prometheus, needs_mosquitto]

HOST = "127.0.0.1"
DISK_MIB = 320
MIN_FREE = 64 * 2**20
REDIS_BYTES = 24 * 2**20
LIMIT = 20
"""Maximum senders, Idempotency-Keys and connections of one address."""

DEVICES = 60
PENDING_BYTES = 2**20
POSITION = b"*HQ,4106012736,V1,120000,A,4100.4920,N,02858.7040,E,019.44,270,010326,FFFFFBFF#"
RATE = 400
"""Maximum records per second from one address."""

WAIT_S = 90
JUMP_S = 1_200
"""Step of the box's clock: older than UnsavedOld, ForwardBehind and `backup.max_age_s` allow."""

SLOW = 10
"""Senders whose records wait for Redis: more than one in a hundred."""

EXPORTS = 12
"""Export slots and places in their queue."""

SETTINGS = {
    "data__min_free_bytes": str(MIN_FREE),
    "redis__max_memory_bytes": str(REDIS_BYTES),
    "persist__flush_seconds": "1",
    "persist__quarantine_max_bytes": "2000",
    "archive__max_open_files": "4",
    "archive__retention_max_bytes": "500000",
    "backup__max_age_s": str(JUMP_S - 300),
    "collector__max_devices": str(DEVICES),
    "collector__max_senders": str(LIMIT),
    "collector__max_idempotency_keys": str(LIMIT),
    "collector__max_connections_per_address": str(LIMIT),
    "collector__max_pending_bytes": str(PENDING_BYTES),
    "limits__owner_share_percent": "100",
    "limits__address_records_per_s": str(RATE),
    "api__max_share_percent": "100",
    "courier__longest_wait_s": "1",
    "courier__silence_look_seconds": "1",
    "courier__max_pending_events": "10",
}


def noise(characters: int) -> str:
    """Text that does not compress to less than three quarters."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=characters))


class Stand:
    """The box and its environment. `undo` ends a stage's faults."""

    def __init__(self, folder: Path, disk: SmallDisk, around: contextlib.ExitStack) -> None:
        self.disk = disk
        self.around = around
        self.undo = contextlib.ExitStack()
        self.authority = Authority(folder).issue()
        self.receiver = Receiver()
        around.callback(self.receiver.close)
        self.udp_port, broker_port = free_ports(2)
        self.broker = around.enter_context(contextlib.ExitStack())
        self.broker.enter_context(broker(folder, broker_port))
        self.clock = FakeClock(folder)
        self.box = Box(
            disk.path,
            tls__certificate=str(self.authority.certificate),
            tls__key=str(self.authority.key),
            collector__listen=json.dumps([{"protocol": "h02", "port": self.udp_port, "transport": "udp"}]),
            collector__mqtt=json.dumps([{"host": HOST, "port": broker_port, "topics": ["fleet/{device_id}"]}]),
            forward=json.dumps(
                [
                    {"name": "patient", "url": self.receiver.url},
                    {"name": "brief", "url": self.receiver.url, "max_lag_bytes": 30_000},
                ]
            ),
            alert=json.dumps([{"name": "desk", "url": self.receiver.url, "silent_after_s": 3}]),
        )
        self.box.environ |= {f"WHIMBREL__{name.upper()}": value for name, value in SETTINGS.items()}
        self.box.environ |= self.clock.environ
        around.enter_context(self.box)
        self.http = around.enter_context(self.client(self.box.api_port))
        self.first_page = Scrape()
        wait_until(self._is_reported)
        target = f"{HOST}:{self.box.api_port}"
        self.prometheus = around.enter_context(Prometheus(folder, target, self.authority.ca_file))
        self.traffic = around.enter_context(Traffic(self))

    def _is_reported(self) -> bool:
        self.first_page = Scrape.of(self.http.get("/metrics").text)
        return set(self.first_page.get("whimbrel_up", {}).values()) == {1}

    def client(self, port: int) -> httpx.Client:
        return httpx.Client(base_url=f"https://{HOST}:{port}", verify=self.authority.client(), timeout=30)

    def post(self, *records: Mapping[str, object], **headers: str) -> None:
        """Send records and have them acknowledged."""
        answer = self.http.post("/v1/records", json=records, headers=headers)
        assert answer.status_code == 202, answer.text

    def await_accepted(self) -> None:
        """Wait until a record of the traffic is acknowledged."""
        accepted = self.traffic.accepted
        wait_until(lambda: self.traffic.accepted > accepted)

    def pid(self, program: str) -> int:
        """Newest process of a program, as the log has it."""
        started = rf" supervisor: {program} started, process (\d+)"
        found = [one[1] for line in list(self.box.output) if (one := re.search(started, line))]
        return int(found[-1])

    def suspend(self, pid: int) -> None:
        """Stop a process until the stage ends."""
        os.kill(pid, signal.SIGSTOP)
        self.undo.callback(os.kill, pid, signal.SIGCONT)

    def files(self) -> list[Path]:
        """Data files of the archive."""
        return list((self.box.data / "archive").glob("date=*/*.parquet"))


class Traffic(Beside):
    """Devices that send a record each over HTTP, and a reader, several times a second, whatever the box answers."""

    def __init__(self, stand: Stand) -> None:
        super().__init__()
        self._stand = stand
        self.accepted = 0

    def _run(self) -> None:
        box = self._stand.box
        with self._stand.client(box.http_port) as devices, self._stand.client(box.api_port) as reader:
            while not self._stopped.wait(0.2):
                with contextlib.suppress(httpx.HTTPError):
                    answer = devices.post("/v1/records", json=[{"device_id": name} for name in "abc"], timeout=5)
                    self.accepted += answer.status_code == 202
                    reader.get("/v1/records?limit=1", timeout=5)


# Faults ----------------------------------------------------------------------------------------------


def receivers_are_away(stand: Stand) -> None:
    """Records wait for one, and events of silent devices for the other."""
    stand.receiver.answer = lambda _: (HANG_UP, {})


def clock_runs_ahead(stand: Stand) -> None:
    wait_until(lambda: stand.prometheus.value('whimbrel_forward_is_stuck{name="patient"}') == 1)
    stand.clock.set(stand.clock.ahead_s + JUMP_S)


def broker_ends(stand: Stand) -> None:
    stand.broker.close()


def certificate_is_not_renewed(stand: Stand) -> None:
    stand.authority.issue(days=10)
    os.kill(stand.box.pid, signal.SIGHUP)


def entries_are_corrupt(stand: Stand) -> None:
    with connect(load(environ=stand.box.environ)) as client:
        [shard] = attach(client, 1)
        for number in range(5):
            client.xadd(shard.keys.stream("a"), {"i": b"%d" % number, "r": b"\xc1" * 1_000})
            client.incr(shard.keys.unsaved)


def fleet_grows(stand: Stand) -> None:
    stand.post(*[{"device_id": f"fleet {number}"} for number in range(DEVICES - 5)])


def senders_stay_connected(stand: Stand) -> None:
    """Each sends a batch; the last one sends a message that does not end."""
    tls = stand.authority.client()
    for number in range(LIMIT - 1):
        connection = stand.around.enter_context(device(stand, tls))
        frame = bytes(msgpack.packb([1, f"sender {number}", 1, [{"device_id": "a"}]]))
        connection.sendall(struct.pack(">I", len(frame)) + frame)
        assert connection.recv(4_096)
    connection.sendall(struct.pack(">I", PENDING_BYTES - 1_000) + bytes(int(0.9 * PENDING_BYTES)))


def device(stand: Stand, tls: ssl.SSLContext) -> ssl.SSLSocket:
    return tls.wrap_socket(socket.create_connection((HOST, stand.box.tcp_port), 10), server_hostname=HOST)


def requests_have_keys(stand: Stand) -> None:
    for number in range(LIMIT - 1):
        stand.post({"device_id": "a"}, **{"Idempotency-Key": f"request {number}"})


def sender_talks_nonsense(stand: Stand) -> None:
    for _ in range(100):
        assert stand.http.post("/v1/records", content=b"{").status_code == 400


def datagrams_flood_in(stand: Stand) -> None:
    """In small batches: datagrams that the kernel drops, because the collector has no CPU, are not counted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.bind(("127.0.0.9", 0))

        def are_dropped() -> bool:
            for _ in range(50):
                for _ in range(RATE // 4):
                    flood.sendto(POSITION, (HOST, stand.udp_port))
                time.sleep(0.01)
            return Scrape.of(stand.http.get("/metrics").text).value("whimbrel_datagrams_dropped_total") > 0

        wait_until(are_dropped)


def files_may_hardly_be_opened(stand: Stand) -> None:
    courier = psutil.Process(stand.pid("courier"))
    _, hard = courier.rlimit(psutil.RLIMIT_NOFILE)
    courier.rlimit(psutil.RLIMIT_NOFILE, (courier.num_fds() + 1, hard))
    stand.undo.callback(courier.rlimit, psutil.RLIMIT_NOFILE, (hard, hard))


def files_are_lost(stand: Stand) -> None:
    """Files of today disappear: queries and compaction fail."""
    wait_until(lambda: len(stand.files()) > 3)
    elsewhere = Path(tempfile.mkdtemp(dir=stand.disk.path))
    for file in stand.files():
        file.rename(elsewhere / file.name)
        stand.undo.callback(shutil.move, elsewhere / file.name, file)


def archive_grows(stand: Stand) -> None:
    stand.post(*[{"device_id": "a", "note": noise(50_000)} for _ in range(20)])


def disk_fills_up(stand: Stand) -> None:
    stand.disk.leave(MIN_FREE + 96 * 2**20)
    stand.undo.callback(stand.disk.release)


def worker_hangs(stand: Stand) -> None:
    """Records accumulate in Redis to its high watermark. While they are unsaved, the clock is set again."""
    stand.suspend(stand.pid("worker"))
    stand.await_accepted()
    for _ in range(200):
        record = {"device_id": "a", "note": noise(100_000)}
        if stand.http.post("/v1/records", json=[record] * 4).status_code == 503:
            break
    stay_full(stand)
    stand.clock.set(stand.clock.ahead_s + JUMP_S)


def stay_full(stand: Stand) -> None:
    """Fill Redis above its high watermark until the stage ends: the posts' connections, whose memory counted too, have
    closed."""
    settings, filler = load(environ=stand.box.environ), "whimbrel:filler"
    client = stand.undo.enter_context(connect(settings))
    stand.undo.callback(client.delete, filler)
    while memory_percent(client) < settings.redis.full_percent + 2:
        client.append(filler, bytes(2**18))


def exports_are_not_read(stand: Stand) -> None:
    for _ in range(EXPORTS):
        client = stand.undo.enter_context(socket.create_connection((HOST, stand.box.api_port)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        export = stand.undo.enter_context(stand.authority.client().wrap_socket(client, server_hostname=HOST))
        export.sendall(f"GET /v1/export?format=ndjson HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())


def redis_is_silent(stand: Stand) -> None:
    pid = stand.pid("redis")
    with ThreadPoolExecutor(SLOW) as senders:
        os.kill(pid, signal.SIGSTOP)
        try:
            slow = [senders.submit(stand.post, {"device_id": "a"}) for _ in range(SLOW)]
            time.sleep(3 * SCRAPE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        for one in slow:
            one.result()


def disk_is_nearly_full(stand: Stand) -> None:
    stand.disk.leave(MIN_FREE - 2**20)
    stand.undo.callback(stand.disk.release)


def archive_is_read_only(stand: Stand) -> None:
    for path in (stand.box.data / "archive" / "_delta_log", stand.box.data / "audit"):
        mount("--bind", str(path), str(path))
        stand.undo.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
        mount("-o", "remount,bind,ro", str(path))
    assert stand.http.delete("/v1/devices/a").status_code == 503
    failures = "sum(whimbrel_save_failures_total)"
    before = stand.prometheus.value(failures)
    stand.post({"device_id": "a"})  # while the disk has room: it is unsaved for the whole stage
    wait_until(lambda: stand.prometheus.value(failures) > before)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def programs_are_killed(stand: Stand) -> None:
    """As for want of memory: each time soon after the last start."""
    courier, redis = 'whimbrel_start_time_seconds{program="courier"}', "whimbrel_redis_start_time_seconds"
    for _ in range(3):
        starts = {name: stand.prometheus.value(name) for name in (courier, redis)}
        for program in ("courier", "redis"):
            os.kill(stand.pid(program), signal.SIGKILL)
        wait_until(lambda: all(stand.prometheus.value(name) > start for name, start in starts.items()))  # noqa: B023


def api_hangs(stand: Stand) -> None:
    stand.suspend(stand.pid("api"))


class Fault(NamedTuple):
    """How a fault begins, and the alarms that it sets off."""

    begin: Callable[[Stand], None]
    alarms: str


STAGES: dict[str, tuple[Fault, ...]] = {
    "Redis is silent": (Fault(redis_is_silent, "RedisDown AckSlow"),),
    "the box saves": (
        Fault(certificate_is_not_renewed, "CertificateExpires"),
        Fault(archive_grows, "ArchiveHigh"),
        Fault(fleet_grows, "DevicesHigh"),
        Fault(files_are_lost, "JobsFail ErrorsLogged OpenDayFilesHigh ServerErrors"),
        Fault(receivers_are_away, "ForwardStuck ForwardBytesHigh ForwardDrops AlertStuck AlertEventsHigh"),
        Fault(clock_runs_ahead, "ForwardBehind BackupOld"),
        Fault(broker_ends, "BrokerUnheard"),
        Fault(disk_fills_up, "DiskFillsUp"),
        Fault(entries_are_corrupt, "QuarantineGrows QuarantineDrops"),
        Fault(senders_stay_connected, "SendersHigh ConnectionsHigh PendingHigh"),
        Fault(requests_have_keys, "IdempotencyKeysHigh"),
        Fault(sender_talks_nonsense, "NonsenseReceived"),
        Fault(datagrams_flood_in, "DatagramsDropped"),
        Fault(files_may_hardly_be_opened, "OpenFilesHigh"),
    ),
    "nothing is saved": (
        Fault(worker_hangs, "JobsPileUp UnsavedOld RedisMemoryHigh RedisMemoryFull ProgramDown RefusesBusy"),
        Fault(exports_are_not_read, "QueriesHigh"),
    ),
    "nothing can be committed": (
        Fault(archive_is_read_only, "SavesFail AuditFails NotReady"),
        Fault(disk_is_nearly_full, "DiskFull"),
        Fault(programs_are_killed, "ProgramRestarts RedisWritesFail"),
    ),
    "the API hangs": (Fault(api_hangs, "ApiDown"),),
}


def names(faults: tuple[Fault, ...]) -> list[str]:
    return [f"Whimbrel{name}" for fault in faults for name in fault.alarms.split()]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """One box for all stages."""
    with (
        tempfile.TemporaryDirectory(prefix="alarms-") as folder,
        small_disk(Path(folder) / "disk", DISK_MIB) as disk,
        contextlib.ExitStack() as around,
    ):
        yield Stand(Path(folder), disk, around)


def test_every_counter_of_the_documentation_is_on_the_first_page(stand: Stand) -> None:
    page = (PROJECT / "docs" / "operations" / "metrics.md").read_text(encoding="utf-8")
    counters = re.findall(r"^\| `(\w+)` \| counter \|", page, re.M)
    assert len(counters) > 30
    assert [name for name in counters if not stand.first_page.get(name)] == []


def test_no_alarm_fires_while_nothing_is_wrong(stand: Stand) -> None:
    wait_until(lambda: stand.prometheus.value("whimbrel_archive_records") > 20)
    wait_until(lambda: stand.prometheus.value("whimbrel_ready") == 1)  # the look at a box's start comes too early
    time.sleep(SCRAPE_S)
    assert stand.prometheus.firing() == set()


@pytest.mark.parametrize("stage", STAGES)
def test_each_alarm_fires_from_its_fault(stage: str, stand: Stand) -> None:
    expected = set(names(STAGES[stage]))
    wait_until(lambda: not expected & stand.prometheus.firing())  # an earlier fault may have set one off, too
    stand.await_accepted()
    began_s = time.monotonic()
    with stand.undo:
        for fault in STAGES[stage]:
            fault.begin(stand)
        stop_s = time.monotonic() + WAIT_S
        while (missing := expected - stand.prometheus.fired_since(began_s)) and time.monotonic() < stop_s:
            time.sleep(0.3)
    assert missing == set()


def test_every_alarm_has_a_fault() -> None:
    assert sorted(name for faults in STAGES.values() for name in names(faults)) == sorted(one.name for one in alarms())
