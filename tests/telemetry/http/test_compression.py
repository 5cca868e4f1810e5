"""Content codings: which one a client gets, which responses have one, and what they become."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import threading
import zlib
from typing import Any

import pytest
from backports import zstd
from starlette.types import Message

from telemetry.http import compression
from telemetry.http.compression import COMPRESSOR_BYTES, SLICE_BYTES, THREAD_BYTES, accepted, refuses_identity
from telemetry.http.response import Response
from telemetry.limits.pending_bytes import PIECE_BYTES, Pending
from tests.box import PROJECT
from tests.telemetry.limits.test_pending_bytes import Client

MIN_BYTES = 1_024

TEXT = json.dumps([{"device_id": f"van-{number % 50}", "speed_kmh": number % 90} for number in range(20_000)]).encode()


@pytest.mark.parametrize(
    ("asked", "coding"),
    [
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.9", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, *;q=0.1", "gzip"),
        ("*;q=0", ""),
        ("", ""),
        ("identity", ""),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0.5, gzip;q=0.4", ""),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0", ""),
        ("br, deflate", ""),
        ("gzip;q=0.000", ""),
        ("gzip;q=2", ""),
        ("gzip;q=nan", ""),
        ("gzip;q=x", ""),
        (" gzip ; q=0.3 ,, ", "gzip"),
        ("*;q=0.5, identity;q=0.8", ""),
        ("*;q=0.5, zstd;q=0", "gzip"),
        ("identity, *;q=0", ""),
    ],
)
def test_the_coding_is_the_one_that_the_client_prefers(asked: str, coding: str) -> None:
    assert accepted([(b"accept-encoding", asked.encode())]) == coding


@pytest.mark.parametrize(
    ("asked", "is_refused"),
    [
        ("identity;q=0", True),
        ("gzip, identity; Q=0.0", True),
        ("*;q=0", True),
        ("gzip, *;q=0", True),
        ("identity;q=0.001, *;q=0", False),
        ("identity, *;q=0", False),
        ("identity;q=0.5", False),
        ("gzip;q=0", False),
        ("gzip, *", False),
        ("", False),
    ],
)
def test_a_client_may_refuse_bodies_without_a_coding(asked: str, is_refused: bool) -> None:
    assert refuses_identity([(b"accept-encoding", asked.encode())]) == is_refused


def test_several_headers_are_one_list() -> None:
    assert accepted([(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")]) == "gzip"
    assert accepted([]) == ""


def response(
    asked: str,
    *parts: bytes,
    headers: dict[str, str] | None = None,
    status: int = 200,
    method: str = "GET",
    has_length: bool = True,
    min_bytes: int = MIN_BYTES,
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The head and the parts of the body that a client gets."""
    found, client = list[Message](), Client(Pending(2**24))
    given = {"content-type": "application/json", **(headers or {})}
    if has_length:
        given["content-length"] = str(sum(map(len, parts)))
    scope: dict[str, Any] = {"method": method, "headers": [(b"accept-encoding", asked.encode())]}

    async def send(message: Message) -> None:
        found.append(message)

    async def run() -> None:
        sending = Response(client, scope, send, min_bytes)
        head = [(name.encode(), value.encode()) for name, value in given.items()]
        await sending.send({"type": "http.response.start", "status": status, "headers": head})
        for number, part in enumerate(parts, 1):
            await sending.send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    asyncio.run(run())
    assert client.pending.bytes == 0
    return dict(found[0]["headers"]), [one["body"] for one in found[1:]]


def opened(coding: bytes, data: bytes) -> bytes:
    return gzip.decompress(data) if coding == b"gzip" else zstd.decompress(data)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("parts", [(TEXT,), (TEXT[:5], TEXT[5:PIECE_BYTES], TEXT[PIECE_BYTES:], b"")])
def test_a_body_is_compressed(coding: str, parts: tuple[bytes, ...]) -> None:
    head, body = response(coding, *parts, headers={"etag": '"1"', "vary": "Accept"})
    assert head[b"content-encoding"] == coding.encode()
    assert (head[b"vary"], head[b"etag"]) == (b"Accept, Accept-Encoding", b'W/"1"')
    assert b"content-length" not in head
    assert opened(coding.encode(), b"".join(body)) == TEXT
    assert len(b"".join(body)) < len(TEXT) / 8


def test_one_that_nobody_asks_for_stays_and_says_that_it_may_vary() -> None:
    head, body = response("", TEXT)
    assert b"".join(body) == TEXT
    assert (head[b"vary"], head[b"content-length"]) == (b"Accept-Encoding", b"%d" % len(TEXT))


@pytest.mark.parametrize(
    ("headers", "status", "size"),
    [
        ({}, 200, MIN_BYTES - 1),
        ({"content-type": "text/event-stream; charset=utf-8"}, 200, 5_000),
        ({"content-type": "text/html; charset=utf-8"}, 200, 5_000),
        ({"content-type": "application/vnd.apache.parquet"}, 200, 5_000),
        ({"content-encoding": "gzip"}, 200, 5_000),
        ({"content-range": "bytes 0-4999/9000"}, 206, 5_000),
        ({"cache-control": "no-store, no-transform"}, 200, 5_000),
    ],
)
def test_others_stay_as_they_are(headers: dict[str, str], status: int, size: int) -> None:
    head, body = response("gzip", TEXT[:size], headers=headers, status=status)
    assert b"".join(body) == TEXT[:size]
    assert head[b"content-length"] == b"%d" % size
    assert head.get(b"content-encoding") == headers.get("content-encoding", "").encode() or b"vary" not in head


def test_the_smallest_that_is_compressed() -> None:
    head, body = response("gzip", TEXT[:MIN_BYTES])
    assert head[b"content-encoding"] == b"gzip"
    assert gzip.decompress(b"".join(body)) == TEXT[:MIN_BYTES]


def test_a_short_one_is_compressed_for_a_client_that_refuses_it_otherwise() -> None:
    head, body = response("gzip, identity;q=0", TEXT[:50])
    assert head[b"content-encoding"] == b"gzip"
    assert gzip.decompress(b"".join(body)) == TEXT[:50]
    head, body = response("identity;q=0", TEXT[:50])
    assert (head.get(b"content-encoding"), b"".join(body)) == (None, TEXT[:50])


@pytest.mark.parametrize("asked", ["gzip", "gzip, identity;q=0"])
def test_none_is_compressed_where_that_is_off(asked: str) -> None:
    head, body = response(asked, TEXT, min_bytes=0)
    assert b"content-encoding" not in head
    assert b"".join(body) == TEXT


def test_head_has_the_headers_of_get() -> None:
    head, _ = response("gzip", TEXT, method="HEAD")
    assert head == response("gzip", TEXT)[0]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_each_part_can_be_read_before_the_next_one_comes(coding: str) -> None:
    lines = [b'{"n":%d}\n' % number for number in range(5)]
    head, body = response(coding, *lines, has_length=False)
    assert head[b"content-encoding"] == coding.encode()
    reader: Any = zlib.decompressobj(31) if coding == "gzip" else zstd.ZstdDecompressor()
    assert [reader.decompress(part) for part in body] == lines


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_compressor_counts_until_its_body_ends_or_breaks_off(coding: str, ends: bool) -> None:
    client, counted = Client(Pending(2**24)), list[int]()

    async def send(_message: Message) -> None:
        counted.append(client.pending.bytes)

    async def run() -> None:
        scope: dict[str, Any] = {"method": "GET", "headers": [(b"accept-encoding", coding.encode())]}
        sending = Response(client, scope, send, MIN_BYTES)
        head = [(b"content-type", b"text/csv")]
        await sending.send({"type": "http.response.start", "status": 200, "headers": head})
        await sending.send({"type": "http.response.body", "body": b"a,b", "more_body": True})
        if ends:
            await sending.send({"type": "http.response.body", "body": b"", "more_body": False})
            assert client.pending.bytes == 0
        sending.close()

    asyncio.run(run())
    assert counted == [COMPRESSOR_BYTES, COMPRESSOR_BYTES, 0][: 2 + ends]
    assert client.pending.bytes == 0
    assert not client.pending.holds(client)


def test_nothing_is_compressed_for_a_client_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    client, compressed = Client(Pending(2**24)), list[int]()

    class Noting(compression.Gzip):
        def compress(self, data: bytes | memoryview) -> bytes:
            compressed.append(len(data))
            return super().compress(data)

    async def send(_message: Message) -> None:
        if len(compressed) == 2:
            client.disconnect()

    async def run() -> None:
        scope: dict[str, Any] = {"method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
        sending = Response(client, scope, send, MIN_BYTES)
        head = [(b"content-type", b"text/csv")]
        await sending.send({"type": "http.response.start", "status": 200, "headers": head})
        await sending.send({"type": "http.response.body", "body": TEXT, "more_body": True})
        await sending.send({"type": "http.response.body", "body": TEXT, "more_body": False})

    monkeypatch.setitem(compression.COMPRESSORS, "gzip", Noting)
    asyncio.run(run())
    assert compressed == [SLICE_BYTES, SLICE_BYTES]
    assert client.pending.bytes == 0


def test_a_response_whose_compressor_has_no_room_is_refused() -> None:
    found, client = list[Message](), Client(Pending(COMPRESSOR_BYTES - 1))

    async def send(message: Message) -> None:
        found.append(message)

    async def run() -> None:
        sending = Response(client, {"method": "GET", "headers": [(b"accept-encoding", b"gzip")]}, send, MIN_BYTES)
        head = [(b"content-type", b"text/csv")]
        await sending.send({"type": "http.response.start", "status": 200, "headers": head})
        await sending.send({"type": "http.response.body", "body": b"a,b", "more_body": False})

    asyncio.run(run())
    assert [one["type"] for one in found] == ["http.response.start", "http.response.body"]
    assert found[0]["status"] == 503
    assert client.pending.bytes == 0


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_compressor_has_the_memory_that_is_counted(coding: str) -> None:
    code = f"""
import pathlib, random
from telemetry.http.compression import COMPRESSOR_BYTES, COMPRESSORS
def resident():
    return 4096 * int(pathlib.Path('/proc/self/statm').read_text().split()[1])
text, kept, before = random.Random(1).randbytes(2**15).hex().encode() * 4, [], resident()
for _ in range(200):
    kept.append(COMPRESSORS['{coding}']())
    kept[-1].compress(text)
print((resident() - before) / 200 / COMPRESSOR_BYTES)
"""
    share = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=PROJECT).stdout)
    assert 0.25 < share < 0.75


def test_large_pieces_leave_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    used = list[tuple[int, bool]]()

    class Noting(compression.Gzip):
        def compress(self, data: bytes | memoryview) -> bytes:
            used.append((len(data), threading.current_thread() is threading.main_thread()))
            return super().compress(data)

    monkeypatch.setitem(compression.COMPRESSORS, "gzip", Noting)
    response("gzip", TEXT[:10], TEXT, TEXT[:10])
    assert max(size for size, _ in used) == SLICE_BYTES
    assert all(is_main == (size < THREAD_BYTES) for size, is_main in used)
    assert {is_main for _, is_main in used} == {True, False}
