"""Content codings of responses: negotiation, and bodies compressed piece by piece.

Each piece is flushed as soon as it is compressed, so that a client can read a slow response as it arrives. Large pieces
are compressed in threads: zlib and zstd release the interpreter meanwhile, and no other request waits.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from starlette.types import Message, Scope

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

THREAD_BYTES = 2**13
"""Shorter pieces are compressed in the event loop's thread: another thread costs more than they do."""

SLICE_BYTES = 2**18
"""A large body is compressed in slices of this size; the client has to read one before the next is compressed."""

GZIP_LEVEL = 4
ZSTD_LEVEL = 1
"""Quick levels: most clients ask for gzip without a setting, also where the network costs them nothing. Figures:
docs/decisions/0043."""

ZSTD_WINDOW_LOG = 15
"""Window of 32 KiB, as gzip's: a larger one takes more memory, and a response of records becomes no shorter by it."""

CODINGS = ("zstd", "gzip")
"""The codings of responses, the preferred one first."""

COMPRESSIBLE = (
    b"application/json",
    b"application/problem+json",
    b"application/x-ndjson",
    b"application/geo+json",
    b"application/gpx+xml",
    b"application/vnd.google-earth.kml+xml",
    b"application/openapi+json",
    b"application/openmetrics-text",
    b"application/vnd.apache.arrow.stream",
    b"text/csv",
    b"text/plain",
)
"""Media types of bodies that are compressed. HTML is not among them: another site can open a page with text of its own
in the address, and could infer secrets of the page from its compressed size (BREACH). `text/event-stream` is not among
them, because each event is short and sent at once; Parquet and spreadsheets are compressed already."""

Headers = list[tuple[bytes, bytes]]


class Compressor(Protocol):
    """Compresses one body."""

    def compress(self, data: bytes | memoryview) -> bytes:
        """Compress a piece. The receiver can decode the result before it has any later piece."""
        ...

    def end(self, data: bytes | memoryview) -> bytes:
        """Compress the last piece and end the body."""
        ...


class Gzip:
    """The gzip coding (RFC 1952)."""

    def __init__(self, level: int = GZIP_LEVEL) -> None:
        self._stream = zlib.compressobj(level, wbits=zlib.MAX_WBITS | 16)

    def compress(self, data: bytes | memoryview) -> bytes:
        """Compress a piece."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self, data: bytes | memoryview) -> bytes:
        """Compress the last piece."""
        return self._stream.compress(data) + self._stream.flush()


class Zstd:
    """The zstd coding. A decoder needs to accept windows of at most 8 MiB (RFC 9659)."""

    def __init__(self, level: int = ZSTD_LEVEL, window_log: int = ZSTD_WINDOW_LOG) -> None:
        parameters = zstd.CompressionParameter
        options: dict[int, int] = {parameters.compression_level: level, parameters.window_log: window_log}
        self._stream = zstd.ZstdCompressor(options=options)

    def compress(self, data: bytes | memoryview) -> bytes:
        """Compress a piece."""
        return self._stream.compress(data, mode=zstd.ZstdCompressor.FLUSH_BLOCK)

    def end(self, data: bytes | memoryview) -> bytes:
        """Compress the last piece."""
        return self._stream.compress(data, mode=zstd.ZstdCompressor.FLUSH_FRAME)


COMPRESSORS: dict[str, Callable[[], Compressor]] = {"zstd": Zstd, "gzip": Gzip}

COMPRESSOR_BYTES = 2**19
"""Memory that a compressor is counted with. gzip's takes 260 KiB and zstd's 200; freed ones leave gaps in the heap."""

_THREADS = ThreadPoolExecutor(2, "compress")


async def in_thread(work: Callable[[], bytes]) -> bytes:
    """Run a function in one of the threads that compress, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)


def accepted(headers: Headers) -> str:
    """The coding for a client with these request headers, one of `CODINGS`; "" = the body is sent as it is.

    Follows RFC 9110 12.5.3: a coding of weight 0 is refused, and `*` stands for all codings that are not named. The
    highest weight wins, and the preferred coding among equal ones. `identity` wins only with a higher weight.
    """
    value = _accept_encoding(headers)
    if not value:
        return ""
    weights = _weights(value)
    others = weights.get("*", 0.0)
    weight, coding = max((weights.get(one, others), -at) for at, one in enumerate(CODINGS))
    if weight <= 0 or weight < weights.get("identity", 0.0):
        return ""
    return CODINGS[-coding]


def refuses_identity(headers: Headers) -> bool:
    """Whether a client refuses a body without a coding: by `identity;q=0`, or by `*;q=0` without any `identity`."""
    for name, value in headers:
        if name == b"accept-encoding" and b"0" in value:
            weights = _weights(_accept_encoding(headers))
            return weights.get("identity", weights.get("*", 1.0)) == 0
    return False


def _accept_encoding(headers: Headers) -> bytes:
    found = [value for name, value in headers if name == b"accept-encoding"]
    return b"".join(b",".join(found).lower().split()) if found else b""


def _weights(value: bytes) -> dict[str, float]:
    return dict(map(_weight, value.decode("latin-1").split(",")))


def _weight(item: str) -> tuple[str, float]:
    """A coding and its weight, 0 to 1; 0 if the weight is not valid."""
    coding, _, parameter = item.partition(";")
    name, _, text = parameter.partition("=")
    coding = {"x-gzip": "gzip"}.get(coding, coding)
    if name != "q":
        return coding, 1.0
    try:
        weight = float(text)
    except ValueError:
        return coding, 0.0
    return coding, weight if 0 <= weight <= 1 else 0.0


def may_compress(message: Message) -> bool:
    """Whether the response that a message begins may be compressed for any client, whatever its size."""
    if message["status"] in (204, 206, 304):
        return False
    headers = dict(message.get("headers", ()))
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() not in COMPRESSIBLE:
        return False
    if b"content-encoding" in headers or b"content-range" in headers:
        return False
    return b"no-transform" not in headers.get(b"cache-control", b"")


def varying(message: Message) -> Message:
    """The beginning of a response, with `Vary` for caches: its coding depends on the request."""
    headers: Headers = list(message["headers"])
    names = [value for name, value in headers if name == b"vary"]
    if any(b"accept-encoding" in value.lower() for value in names):
        return message
    headers = [(name, value) for name, value in headers if name != b"vary"]
    return {**message, "headers": [*headers, (b"vary", b", ".join([*names, b"Accept-Encoding"]))]}


def coded(message: Message, coding: str) -> Message:
    """The beginning of a compressed response: its length is not known yet, and its `ETag` becomes weak."""
    headers: Headers = [
        (name, b"W/" + value if name == b"etag" and not value.startswith(b"W/") else value)
        for name, value in message["headers"]
        if name not in (b"content-length", b"accept-ranges")
    ]
    return {**message, "headers": [*headers, (b"content-encoding", coding.encode())]}


class Body:
    """The compressed body of one response."""

    def __init__(self, coding: str) -> None:
        self._compressor = COMPRESSORS[coding]()

    async def compress(self, data: bytes | memoryview, is_last: bool) -> bytes:
        """Compress one part of the body."""
        work = self._compressor.end if is_last else self._compressor.compress
        return work(data) if len(data) < THREAD_BYTES else await in_thread(partial(work, data))


def begin(scope: Scope, message: Message, min_bytes: int) -> tuple[Message, Body | None]:
    """The beginning of a response as it is sent, and the compressor of its body; None = the body is sent as it is.

    A body of less than `min_bytes` is compressed only for a client that refuses it otherwise; 0 = none is compressed.
    A response to HEAD has the head of the response to GET, and no body.
    """
    if not min_bytes or (_is_short(message, min_bytes) and not refuses_identity(scope["headers"])):
        return message, None
    if not may_compress(message):
        return message, None
    message, coding = varying(message), accepted(scope["headers"])
    if not coding:
        return message, None
    return coded(message, coding), None if scope["method"] == "HEAD" else Body(coding)


def _is_short(message: Message, min_bytes: int) -> bool:
    for name, value in message.get("headers", ()):
        if name == b"content-length":
            return int(value) < min_bytes
    return False
