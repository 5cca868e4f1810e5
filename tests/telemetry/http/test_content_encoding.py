"""Compressed bodies: whole, cut, broken, joined, and bombs."""

from __future__ import annotations

import contextlib
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from telemetry.http.content_encoding import DECODERS, MAX_PARTS, inflate
from telemetry.model.errors import EncodingFault, TooLarge

MIB = 2**20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
}
each = pytest.mark.parametrize(("encoding", "pack"), PACKERS.values(), ids=PACKERS)


def test_each_encoding_is_tested() -> None:
    assert {encoding for encoding, _ in PACKERS.values()} == set(DECODERS)


@each
@given(data=st.binary(max_size=5_000))
def test_what_went_in_comes_out(encoding: str, pack: Callable[[bytes], bytes], data: bytes) -> None:
    assert inflate(pack(data), encoding, len(data)) == data


@each
def test_a_body_of_many_pieces(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    data = random.Random(1).randbytes(MIB) + bytes(MIB)
    assert inflate(pack(data), encoding, 2 * MIB) == data


@each
@given(data=st.binary(min_size=1, max_size=5_000))
def test_one_byte_more_than_may_be(encoding: str, pack: Callable[[bytes], bytes], data: bytes) -> None:
    with pytest.raises(TooLarge, match=f"a body may have at most {len(data) - 1} bytes after decompression"):
        inflate(pack(data), encoding, len(data) - 1)


@each
def test_data_cut_anywhere(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"some records, and some more records")
    for length in range(len(packed)):
        with pytest.raises(EncodingFault, match=f"{encoding} data truncated"):
            inflate(packed[:length], encoding, MIB)


@each
@given(noise=st.binary(max_size=200))
def test_noise_is_a_fault_or_data(encoding: str, pack: Callable[[bytes], bytes], noise: bytes) -> None:
    for data in (noise, pack(b"x" * 100)[:20] + noise, pack(b"x") + noise):
        with contextlib.suppress(EncodingFault, TooLarge):
            assert len(inflate(data, encoding, 1_000)) <= 1_000


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"[]", "gzip", "not gzip: incorrect header check"),
        (b"\x78\x9c\xff\xff", "deflate", "not deflate: invalid block type"),
        (b"\x00" * 6, "deflate", "not deflate: invalid stored block lengths"),
        (b"[]" * 10, "zstd", "not zstd: Unknown frame descriptor"),
        (gzip.compress(b"x", mtime=0)[:-8] + bytes(8), "gzip", "not gzip: incorrect data check"),
    ],
)
def test_data_of_another_kind(data: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(EncodingFault, match=reason):
        inflate(data, encoding, MIB)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_parts_after_one_another(name: str) -> None:
    encoding, pack = PACKERS[name]
    assert inflate(pack(b"a") + pack(b"") + pack(b"b"), encoding, 2) == b"ab"
    assert inflate(pack(b"") * MAX_PARTS, encoding, 2) == b""
    with pytest.raises(EncodingFault, match="more than 1000 concatenated compressed parts"):
        inflate(pack(b"") * (MAX_PARTS + 1), encoding, 2)


@each
def test_a_bomb_is_not_inflated(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 * MIB))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        inflate(bomb, encoding, MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB


def test_a_zstd_frame_may_not_ask_for_a_large_window() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = packer.compress(b"x") + packer.flush()
    with pytest.raises(EncodingFault, match="Frame requires too much memory"):
        inflate(frame, "zstd", 8 * MIB)
    assert inflate(frame, "zstd", 128 * MIB) == b"x"
