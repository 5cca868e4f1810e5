"""Decompresses request bodies (Content-Encoding) with a size limit that also stops decompression bombs.

Decoders return at most the bytes still allowed, so that memory and time stay limited however much a body would expand.
This file uses no socket and no clock.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from telemetry.model.errors import EncodingFault, TooLarge

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 2**16
"""Compressed bytes fed in one call: a decoder copies all input that it has not used."""

MAX_PARTS = 1_000
"""Maximum number of gzip members or zstd frames; each costs a decoder, and may be 8 bytes without content."""

ZSTD_WINDOW_LOG = 23
"""Decoders of the zstd content encoding need to support windows up to 8 MiB only (RFC 9659)."""

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's wbits


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def inflate(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress `data`. Raises `TooLarge` beyond `max_bytes`, `EncodingFault` if `data` is not valid."""
    try:
        return b"".join(_pieces(data, DECODERS[encoding](data, max_bytes), max_bytes))
    except (zlib.error, zstd.ZstdError) as error:
        raise EncodingFault(f"not {encoding}: {str(error).rpartition(': ')[2]}") from None
    except EOFError:
        raise EncodingFault(f"{encoding} data truncated") from None


def _pieces(data: bytes, make: Callable[[], _Decoder], max_bytes: int) -> list[bytes]:
    pieces: list[bytes] = []
    decoder, parts, left = make(), 1, max_bytes
    for at in range(0, len(data), PIECE_BYTES):
        rest = data[at : at + PIECE_BYTES]
        while rest:
            if decoder.eof:
                decoder, parts = make(), parts + 1
            if parts > MAX_PARTS:
                raise EncodingFault(f"more than {MAX_PARTS} concatenated compressed parts")
            pieces.append(decoder.decompress(rest, left + 1))
            left -= len(pieces[-1])
            if left < 0:
                raise TooLarge(f"a body may have at most {max_bytes} bytes after decompression")
            rest = decoder.unused_data
    if not decoder.eof:
        raise EOFError
    return pieces


def _gzip(_data: bytes, _max_bytes: int) -> Callable[[], _Decoder]:
    return lambda: zlib.decompressobj(_GZIP)


def _deflate(data: bytes, _max_bytes: int) -> Callable[[], _Decoder]:
    """The name stands for zlib's format; some senders use raw deflate instead."""
    is_zlib = len(data) >= 2 and data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
    return lambda: zlib.decompressobj(_ZLIB if is_zlib else _RAW)


def _zstd(_data: bytes, max_bytes: int) -> Callable[[], _Decoder]:
    window_log = min(max(ZSTD_WINDOW_LOG, (max_bytes - 1).bit_length()), 31)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    return lambda: zstd.ZstdDecompressor(options=options)


DECODERS: dict[str, Callable[[bytes, int], Callable[[], _Decoder]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
"""Supported encodings, by name."""
