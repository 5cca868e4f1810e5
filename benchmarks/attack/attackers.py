"""Attackers: threads of a process of their own, each with one way to a port, and what came of what they sent.

    python -m benchmarks.attack.attackers PLAN OUTCOME      files: a `Plan`, JSON, and where the `Outcome` is written

A process apart, so that attackers and honest senders do not share an interpreter. They send from 127.0.0.2 to
127.0.0.9: what limits one address must not limit the honest senders on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.attack import corpus
from benchmarks.attack.mutation import mutated

HOST = corpus.HOST
SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 10))
NICENESS = 5
"""An attacker has a machine of its own; here it shares the box's cores."""

TIMEOUT_S = 0.3
ANSWER_BYTES = 2**20
MUTATED = 0.7
"""The part of the messages that are mutated; the others go as they are."""

MAX_FINDINGS = 20
MAX_FINDING_BYTES = 4_000
STALLED = 200
"""Connections that one staller holds open at once."""

THREADS = 3
"""Attackers of each HTTP port."""

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
UNEXPECTED = (500, 502)
"""Statuses that no input may cause."""


class Plan(msgspec.Struct, frozen=True):
    """Whom to attack, with which keys, and for how long. `ports` is that of each tracker's protocol."""

    seed: int
    seconds: float
    api_port: int
    http_port: int
    tcp_port: int
    ports: dict[str, int]
    udp_ports: dict[str, int]
    keys: list[str]


class Outcome(msgspec.Struct):
    """What was sent by each attacker, how often each status was answered, and what no input may cause."""

    sent: dict[str, int] = {}
    statuses: dict[str, int] = {}
    findings: list[str] = []


class Attack:
    """The state that all attackers share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stop_s = time.monotonic() + plan.seconds
        self.sent: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.findings: list[str] = []
        self._lock = threading.Lock()

    def is_over(self) -> bool:
        """Whether the time has passed."""
        return time.monotonic() >= self.stop_s

    def answered(self, name: str, data: bytes, answer: bytes) -> None:
        """Count an answer; keep what caused a status that no input may cause."""
        status = status_of(answer)
        with self._lock:
            self.sent[name] += 1
            self.statuses[str(status) if status else "none"] += 1
            if status in UNEXPECTED and len(self.findings) < MAX_FINDINGS:
                self.findings.append(f"{name}: {status} to {data[:MAX_FINDING_BYTES]!r}")


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 if it is none."""
    words = answer[:16].split(b" ")
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1][:3].isdigit()
    return int(words[1][:3]) if is_http else 0


@contextlib.contextmanager
def connection(port: int, rng: random.Random) -> Iterator[socket.socket]:
    """A connection from one of the attackers' addresses, reset at its end so that its port is free again."""
    with socket.socket() as found:
        found.settimeout(TIMEOUT_S)
        found.bind((rng.choice(SOURCES), 0))
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        found.connect((HOST, port))
        yield found


def exchange(port: int, data: bytes, rng: random.Random, is_all: bool = False) -> bytes:
    """The first piece of what comes back within `TIMEOUT_S`; nothing if the connection ends or stays silent.

    With `is_all` the box is told that nothing follows, so that it need not wait for the rest of a message.
    """
    with contextlib.suppress(OSError), connection(port, rng) as sock:
        sock.sendall(data)
        if is_all:
            sock.shutdown(socket.SHUT_WR)
        return sock.recv(ANSWER_BYTES)
    return b""


def maybe(data: bytes, rng: random.Random) -> bytes:
    """A seed, mostly mutated."""
    return mutated(data, rng) if rng.random() < MUTATED else data


def http(attack: Attack, rng: random.Random, port: int, name: str) -> None:
    """Requests with a mutated target or body, or mutated as a whole, with a good key, a wrong one or none."""
    seeds, raw = list(corpus.requests().values()), corpus.raw_requests()
    while not attack.is_over():
        key = rng.choice(["", "wk_aaaaaaaa_wrong", *attack.plan.keys])
        request = rng.choice(rng.choice(seeds))
        part = rng.random()
        if part < 0.1:
            data = maybe(rng.choice(raw), rng)
        elif part < 0.3:
            data = mutated(request.packed(key), rng)
        elif part < 0.6:
            target = mutated(request.target, rng).replace(b" ", b"%20").replace(b"\n", b"%0a")
            data = request._replace(target=target).packed(key)
        else:
            data = request._replace(body=maybe(request.body, rng)).packed(key)
        attack.answered(name, data, exchange(port, data, rng))


def stream(attack: Attack, rng: random.Random, port: int, name: str, seeds: Sequence[bytes], is_keyed: bool) -> None:
    """Messages or frames of one protocol, several on a connection."""
    while not attack.is_over():
        some = [maybe(rng.choice(seeds), rng) for _ in range(rng.randint(1, 8))]
        if is_keyed and rng.random() < 0.8:
            key = rng.choice(attack.plan.keys)
            some.insert(0, json.dumps({"token": key}).encode() + b"\n")
        data = b"".join(some)
        attack.answered(name, data, exchange(port, data, rng, is_all=True))


def datagrams(attack: Attack, rng: random.Random, port: int, name: str, seeds: Sequence[bytes]) -> None:
    """Datagrams of one protocol; nobody waits for their answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((rng.choice(SOURCES), 0))
        while not attack.is_over():
            data = maybe(rng.choice(seeds), rng)[:60_000]
            with contextlib.suppress(OSError):
                sock.sendto(data, (HOST, port))
            attack.answered(name, data, b"")
            time.sleep(0.002)


def stalled(attack: Attack, rng: random.Random) -> None:
    """Connections that begin a request, a message or a stream of answers, and then do nothing."""
    plan = attack.plan
    key = plan.keys[0].encode()
    begun = (
        (plan.http_port, b"POST /v1/records HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8000000\r\n"),
        (plan.http_port, b"POST /v1/records HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000000\r\n\r\n["),
        (plan.api_port, b"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + key + b"\r\n\r\n"),
        (plan.api_port, b"GET /v1/export HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + key + b"\r\n\r\n"),
        (plan.tcp_port, b'{"device_id": "mallory"'),
        (plan.tcp_port, b""),
    )
    while not attack.is_over():
        with contextlib.ExitStack() as held:
            for _ in range(STALLED):
                port, data = rng.choice(begun)
                with contextlib.suppress(OSError):
                    held.enter_context(connection(port, rng)).sendall(data)
                attack.sent["stalled"] += 1
            end_s = min(attack.stop_s, time.monotonic() + rng.uniform(1, 10))
            time.sleep(max(0.0, end_s - time.monotonic()))


def attackers(attack: Attack) -> dict[str, Callable[[random.Random], None]]:
    """Name of each attacker, and what its thread does."""
    plan = attack.plan
    found: dict[str, Callable[[random.Random], None]] = {
        **{f"api {number}": lambda rng: http(attack, rng, plan.api_port, "api") for number in range(THREADS)},
        **{f"http {number}": lambda rng: http(attack, rng, plan.http_port, "http") for number in range(THREADS)},
        "tcp": lambda rng: stream(attack, rng, plan.tcp_port, "tcp", corpus.messages(), is_keyed=True),
        "stalled": lambda rng: stalled(attack, rng),
    }
    frames = corpus.frames()
    for name, port in plan.ports.items():
        found[name] = _tracker(attack, stream, port, name, frames[name])
    for name, port in plan.udp_ports.items():
        found[f"{name} udp"] = _tracker(attack, datagrams, port, f"{name} udp", frames[name])
    return found


def _tracker(
    attack: Attack, send: Callable[..., None], port: int, name: str, seeds: Sequence[bytes]
) -> Callable[[random.Random], None]:
    more: dict[str, Any] = {"is_keyed": False} if send is stream else {}
    return lambda rng: send(attack, rng, port, name, seeds, **more)


def run(plan: Plan) -> Outcome:
    """Attack until the time is over."""
    attack = Attack(plan)
    threads = [
        threading.Thread(target=act, args=(random.Random(f"{plan.seed} {name}"),), name=name, daemon=True)
        for name, act in attackers(attack).items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(plan.seconds + 30)
    return Outcome(dict(attack.sent), dict(attack.statuses), attack.findings)


if __name__ == "__main__":
    os.nice(NICENESS)
    plan_file, outcome_file = map(Path, sys.argv[1:])
    outcome_file.write_bytes(msgspec.json.encode(run(msgspec.json.decode(plan_file.read_bytes(), type=Plan))))
