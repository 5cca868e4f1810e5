"""One run: a whole box with keys, attackers in a process of their own, honest senders, and what became of both."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from tqdm import tqdm

from benchmarks.attack.attackers import Outcome, Plan
from benchmarks.attack.corpus import frames
from benchmarks.attack.honest import Sender, over_http, over_tcp, reader
from benchmarks.cpu import peak_mb, program
from cli.services.systemd import MEMORY_MAX
from tests.box import PROJECT, Box, free_ports

ACK_WITHIN_S = 5.0
"""The longest that an honest client may wait for its acknowledgement, on a machine that the attackers share."""

RECORDS_WITHIN_S = 20.0
"""The same for a reader of records, whose queries wait for their turn among those of the attackers."""

UDP = ("gt06", "h02")
READERS = ("latest", "records")
SETTINGS = {
    "auth__required": "true",
    "sql__enabled": "true",
    "persist__flush_seconds": "2",
    "archive__quiet_seconds": "10",
    "collector__request_timeout_s": "10",
    "redis__max_memory_bytes": str(2**31),
}
UNITS = {"compactor": "scheduler"}
"""Programs whose unit has another name."""

UNIT_BYTES = {"M": 2**20, "G": 2**30}
AFTER_S = 60
"""How long the attackers' process may take to end."""


class Run:
    """A box under attack."""

    def __init__(self, folder: Path, seed: int, seconds: float) -> None:
        self._folder, self._seed, self._seconds = folder, seed, seconds
        names = [*frames(), *UDP]
        ports = free_ports(len(names))
        self._ports = dict(zip(names[: -len(UDP)], ports, strict=False))
        self._udp_ports = dict(zip(UDP, ports[-len(UDP) :], strict=True))
        listen = [{"protocol": name, "port": port, "allow_anonymous": True} for name, port in self._ports.items()]
        listen += [
            {"protocol": name, "port": port, "transport": "udp", "allow_anonymous": True}
            for name, port in self._udp_ports.items()
        ]
        self._key = ""
        self.box = Box(folder, (), PROJECT, **SETTINGS, collector__listen=json.dumps(listen))

    def carry_out(self) -> dict[str, Any]:
        """Attack, and report. `wrong` names what should not be; it is empty after a good run."""
        with self.box as box:
            before = pids(box)
            senders = self._senders()
            outcome = self._attacked(senders)
            peaks = {name: max(map(peak_mb, some), default=0.0) for name, some in pids(box).items()}
            restarted = [name for name, some in before.items() if not some <= pids(box).get(name, set())]
            lost, doubled = self._compared(senders)
        log = "".join(box.output)
        found = {
            "seed": self._seed,
            "seconds": self._seconds,
            "attacks": sum(outcome.sent.values()),
            "sent": dict(sorted(outcome.sent.items())),
            "statuses": dict(sorted(outcome.statuses.items())),
            "honest": {sender.name: waits(sender) for sender in senders},
            "peak_mb": {name: round(peak) for name, peak in sorted(peaks.items())},
        }
        return found | {"wrong": wrong(outcome, senders, peaks, restarted, lost, doubled, log)}

    def _senders(self) -> list[Sender]:
        box = self.box
        self._key = key = box.new_key("--scope", "ingest", "--scope", "read", "--prefix", "honest-")
        first = over_http("http", box.http_port, key)
        senders = [first, over_http("http-api", box.api_port, key), over_tcp("tcp", box.tcp_port, key)]
        paths = (f"/v1/devices/{first.device_id}/latest", f"/v1/records?device_id={first.device_id}&limit=10")
        readers = [reader(name, box.api_port, key, path) for name, path in zip(READERS, paths, strict=True)]
        return senders + readers

    def _attacked(self, senders: Sequence[Sender]) -> Outcome:
        """What the attackers' process reports; honest senders are at work from its start to its end."""
        plan, report = self._folder / "plan.json", self._folder / "outcome.json"
        plan.write_bytes(msgspec.json.encode(self._plan()))
        command = [sys.executable, "-m", "benchmarks.attack.attackers", str(plan), str(report)]
        with subprocess.Popen(command, cwd=PROJECT) as process:
            try:
                for sender in senders:
                    sender.start()
                self._watch(senders)
                process.wait(AFTER_S)
            finally:
                process.kill()
        for sender in senders:
            sender.stop()
        return msgspec.json.decode(report.read_bytes(), type=Outcome)

    def _plan(self) -> Plan:
        box = self.box
        keys = [
            box.new_key("--scope", "read", "--scope", "sql"),
            box.new_key("--scope", "ingest", "--device", "mallory"),
            box.new_key("--scope", "ingest"),  # so that what is stored, saved and read is mutated, too
        ]
        ports = (box.api_port, box.http_port, box.tcp_port)
        return Plan(self._seed, self._seconds, *ports, self._ports, self._udp_ports, keys)

    def _watch(self, senders: Sequence[Sender]) -> None:
        """Show how it goes until the time is over."""
        start_s = time.monotonic()
        with tqdm(total=round(self._seconds), unit=" s", leave=False, disable=None) as bar:
            while (passed_s := time.monotonic() - start_s) < self._seconds:
                bar.update(round(passed_s) - bar.n)
                longest_s = max((max(sender.waits_s, default=0.0) for sender in senders), default=0.0)
                bar.set_postfix_str(f"longest wait {longest_s:.2f} s")
                time.sleep(0.5)

    def _compared(self, senders: Sequence[Sender]) -> tuple[int, int]:
        """How many acknowledged records are lost, and how many that were named are doubled."""
        lost = doubled = 0
        for sender in senders:
            if sender.name in READERS:
                continue
            counts = Counter(self._numbers(sender.device_id))
            lost += sum(counts[number] == 0 for number in range(len(sender.waits_s)))
            if sender.name != "tcp":
                doubled += sum(count > 1 for count in counts.values())
        return lost, doubled

    def _numbers(self, device_id: str) -> list[int]:
        """The numbers of the device's stored records; none if the box does not export them."""
        answer = self.box.http.get(
            "/v1/export",
            params={"device_id": device_id, "format": "ndjson"},
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=120,
        )
        return [json.loads(line)["altitude_m"] for line in answer.text.splitlines()] if answer.is_success else []


def pids(box: Box) -> dict[str, set[int]]:
    """Program to its processes."""
    found: dict[str, set[int]] = {}
    for process in psutil.Process(box.pid).children(recursive=True):
        try:
            found.setdefault(program(process.cmdline()), set()).add(process.pid)
        except psutil.Error:
            continue
    return found


def waits(sender: Sender) -> dict[str, float]:
    """Seconds that a sender waited, and how often it had to send again."""
    sorted_s = sorted(sender.waits_s)
    if not sorted_s:
        return {"count": 0}
    return {
        "count": len(sorted_s),
        "retries": sender.retries,
        "p50_s": round(statistics.median(sorted_s), 4),
        "p99_s": round(sorted_s[int(len(sorted_s) * 0.99)], 4),
        "max_s": round(sorted_s[-1], 3),
    }


def wrong(
    outcome: Outcome,
    senders: Sequence[Sender],
    peaks: dict[str, float],
    restarted: Sequence[str],
    lost: int,
    doubled: int,
    log: str,
) -> list[str]:
    """What should not be, a sentence each."""
    found = list(outcome.findings)
    for sender in senders:
        if not sender.waits_s:
            found.append(f"{sender.name} was never acknowledged")
        elif max(sender.waits_s) > (RECORDS_WITHIN_S if sender.name == "records" else ACK_WITHIN_S):
            found.append(f"{sender.name} waited {max(sender.waits_s):.1f} s for its answer")
    for name, peak in peaks.items():
        limit = MEMORY_MAX.get(UNITS.get(name, name))
        if limit and peak * 1e6 > int(limit[:-1]) * UNIT_BYTES[limit[-1]]:
            found.append(f"{name} took {peak:.0f} MB; its unit allows {limit}")
    found += [f"{name} ended and was started again" for name in restarted]
    found += [
        f"{count} acknowledged records are {what}" for count, what in ((lost, "lost"), (doubled, "doubled")) if count
    ]
    if "Traceback" in log:
        found.append(f"a traceback is in the log: {log[log.index('Traceback') :][:2_000]}")
    return found
