"""Records of made-up vehicles (`whimbrel simulate --seed 1`: 8 fields) as the messages of each protocol.

All bytes are made before a clock starts. The same records serve again and again, each time on another day: dates have
one length, so a replacement of bytes is all that takes.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice
from random import Random
from typing import NamedTuple

import msgspec

from benchmarks.sending import Message
from cli.sending.vehicle_simulation import Plan, traffic

START = date(2026, 1, 1)
DEVICES = 1_000
DEVICE_IDS = tuple(f"sim-{n + 1:06}" for n in range(DEVICES))
INTERVAL_MS = 10_000
A_MESSAGE = 1_000
SEED = 1

_encode = msgspec.msgpack.Encoder().encode
_ARRAY16, _UINT32, _MAP_OF_FRAME = b"\xdc", b"\xce", b"\x94\x01"


class Batch(NamedTuple):
    """The records of one message, on `START`: as JSON lines without their ends."""

    lines: list[bytes]


def lines(devices: int = DEVICES, interval_ms: int = INTERVAL_MS) -> Iterator[str]:
    """Records in the order of time, without end."""
    start_us = int(datetime.combine(START, datetime.min.time(), UTC).timestamp()) * 1_000_000
    slots = traffic(Plan(devices, start_us, interval_ms), Random(SEED).random)
    return chain.from_iterable(slot.lines for slot in slots)


def runs(a_device: int, devices: int = DEVICES, interval_ms: int = INTERVAL_MS) -> Iterator[list[str]]:
    """Records of one device after the other, so many at once as it would send that was out of reach for a while."""
    held: dict[str, list[str]] = defaultdict(list)
    for line in lines(devices, interval_ms):
        found = held[line[14 : line.index('"', 14)]]
        found.append(line)
        if len(found) == a_device:
            yield found
            held[found[0][14 : line.index('"', 14)]] = []


def batches(records: int, a_device: int = 10, devices: int = DEVICES, interval_ms: int = INTERVAL_MS) -> list[Batch]:
    """Batches of 1,000 records, `a_device` consecutive ones of each device."""
    gc.disable()  # millions of small texts, none of them garbage
    found = []
    source = runs(a_device, devices, interval_ms)
    for _ in range(records // A_MESSAGE):
        part = islice(source, A_MESSAGE // a_device)
        found.append(Batch([line.encode() for line in chain.from_iterable(part)]))
    gc.enable()
    return found


# As messages -----------------------------------------------------------------------------------------


def msgpack_bodies(some: Sequence[Batch]) -> list[bytes]:
    """The arrays of records that frames hold."""
    return [
        _ARRAY16 + len(batch.lines).to_bytes(2, "big") + b"".join(_encode(_decode(line)) for line in batch.lines)
        for batch in some
    ]


def frame(sender: str, number: int, body: bytes) -> Message:
    """The frame of 1,000 records."""
    head = _MAP_OF_FRAME + _encode(sender) + _UINT32 + number.to_bytes(4, "big")
    return Message((len(head) + len(body)).to_bytes(4, "big") + head + body, A_MESSAGE)


def json_lines(some: Sequence[Batch]) -> list[bytes]:
    """NDJSON, one record a line."""
    return [b"".join(line + b"\n" for line in batch.lines) for batch in some]


def json_arrays(some: Sequence[Batch]) -> list[bytes]:
    """JSON arrays."""
    return [b"[" + b",".join(batch.lines) + b"]" for batch in some]


def post(body: bytes, records: int, path: str = "/v1/records") -> Message:
    """The request that sends JSON."""
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n\r\n"
    return Message(head.encode() + body, records)


def get(target: str) -> Message:
    """A question."""
    return Message(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def day(number: int) -> date:
    """The day of the `number`-th use of the same records."""
    return START + timedelta(days=number)


def on_day(body: bytes, number: int) -> bytes:
    """The same records, `number` days later."""
    return body.replace(_date_text(0), _date_text(number))


def _date_text(number: int) -> bytes:
    return f"{day(number).isoformat()}T".encode()


_decode = msgspec.json.Decoder().decode
