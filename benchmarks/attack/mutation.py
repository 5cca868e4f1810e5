"""Mutations of bytes: a seed in, something like it out. Pure: the same generator gives the same bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_BYTES = 256 * 2**10
"""Longest result. Larger bodies are the business of `tests/security/test_bombs.py`."""

MAX_MUTATIONS = 4

TOKENS: tuple[bytes, ...] = (
    b"\x00",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"9" * 400,
    b"-1",
    b"1e999",
    b"NaN",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"[" * 1_000,
    b"(" * 1_000,
    b"}",
    b"'",
    b"' OR 1=1 --",
    b"..",
    b"/../../etc/passwd",
    b"%00",
    b"%ff",
    b"%2e%2e%2f",
    b"&",
    b"=",
    b",",
    b";",
    b"$",
    b"*",
    b"#",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n",
    b"Host: attacker.example\r\n",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"=cmd|' /C calc'!A0",
    b"<script>alert(1)</script>",
    b"2038-01-19T03:14:08Z",
    b"0001-01-01T00:00:00Z",
    b"18446744073709551616",
    b"\xdd\xff\xff\xff\xff",
    b"\x82\xa9device_id",
)

Mutation = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit turned over."""
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """A range left out."""
    start, stop = _range(data, rng)
    return data[:start] + data[stop:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """The end left out."""
    return data[: rng.randrange(len(data) + 1)]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A range several times, up to a thousand."""
    start, stop = _range(data, rng)
    return data[:start] + data[start:stop] * rng.choice((2, 3, 10, 100, 1_000)) + data[stop:]


def insert(data: bytes, rng: random.Random) -> bytes:
    """A token that parsers stumble over."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A range replaced by such a token."""
    start, stop = _range(data, rng)
    return data[:start] + rng.choice(TOKENS) + data[stop:]


def noise(data: bytes, rng: random.Random) -> bytes:
    """A range replaced by random bytes of the same length."""
    start, stop = _range(data, rng)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


MUTATIONS: Sequence[Mutation] = (flip, flip, cut, truncate, repeat, insert, insert, overwrite, overwrite, noise)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A seed after one to `MAX_MUTATIONS` mutations, `MAX_BYTES` at most."""
    for _ in range(rng.randint(1, MAX_MUTATIONS)):
        data = rng.choice(MUTATIONS)(data, rng)[:MAX_BYTES]
    return data


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 64)))
