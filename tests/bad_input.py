"""Invalid input as data: bodies, messages, queries and whole requests, each with its allowed responses.

Tests run each table over every port and route that takes such a thing (tests/test_bad_input.py).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgpack
from backports import zstd

MIB = 2**20
JSON, NDJSON, MSGPACK, FORM = (
    "application/json",
    "application/x-ndjson",
    "application/msgpack",
    "application/x-www-form-urlencoded",
)


class Body(NamedTuple):
    """A body of a request. `may_be` are the statuses that it may be answered with."""

    name: str
    data: bytes
    kind: str = JSON
    encoding: str = ""
    may_be: tuple[int, ...] = (400,)


# Texts that are JSON, almost JSON, or JSON that is no record -----------------------------------------

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \r\n\t ",
    "a byte order mark": b'\xef\xbb\xbf{"device_id":"d"}',
    "UTF-16": '{"device_id":"d"}'.encode("utf-16"),
    "cut in a name": b'{"devi',
    "cut in a string": b'{"device_id":"d',
    "cut in an escape": b'{"device_id":"\\u12',
    "cut behind a value": b'{"device_id":"d"',
    "cut in an array": b'[{"device_id":"d"},',
    "two values": b'{"device_id":"d"}{"device_id":"d"}',
    "a comma too many": b'{"device_id":"d",}',
    "single quotes": b"{'device_id':'d'}",
    "a comment": b'{"device_id":"d" /* */}',
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a string": b'"device"',
    "an array of arrays": b'[[{"device_id":"d"}]]',
    "an array with null": b'[{"device_id":"d"},null]',
    "no device": b'{"location":"x"}',
    "NaN": b'{"device_id":"d","speed":NaN}',
    "Infinity": b'{"device_id":"d","speed":-Infinity}',
    "NaN as text": b'{"device_id":"d","latitude":"NaN"}',
    "a number beyond a double": b'{"device_id":"d","speed":1e400}',
    "an integer of 5,000 digits": b'{"device_id":"d","speed":' + b"9" * 5_000 + b"}",
    "a latitude of 2^64": b'{"device_id":"d","latitude":18446744073709551616}',
    "a leading zero": b'{"device_id":"d","speed":007}',
    "a time of 10^30": b'{"device_id":"d","timestamp":1' + b"0" * 30 + b"}",
    "a time before 2000": b'{"device_id":"d","timestamp":"1970-01-01T00:00:00Z"}',
    "a time in 2038": b'{"device_id":"d","timestamp":"2038-01-19T03:14:08Z"}',
    "a time that is none": b'{"device_id":"d","timestamp":"2026-02-30T25:61:61Z"}',
    "a time as an object": b'{"device_id":"d","timestamp":{}}',
    "a device as an object": b'{"device_id":{"$ne":null}}',
    "a device as an array": b'{"device_id":["d"]}',
    "a device as true": b'{"device_id":true}',
    "a device as a fraction": b'{"device_id":1.5}',
    "an empty device": b'{"device_id":""}',
    "a device of 256 characters": b'{"device_id":"' + b"d" * 256 + b'"}',
    "a device of 1 MiB": b'{"device_id":"' + b"d" * MIB + b'"}',
    "a lone surrogate as device": b'{"device_id":"\\ud800"}',
    "a lone surrogate as location": b'{"device_id":"d","location":"\\udfff"}',
    "a lone surrogate as name": b'{"device_id":"d","\\ud800":1}',
    "a lone surrogate in attributes": b'{"device_id":"d","attributes":{"a":["\\ud800"]}}',
    "bytes that are not UTF-8": b'{"device_id":"\xff\xfe"}',
    "an overlong UTF-8 slash": b'{"device_id":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"device_id":"\xed\xa0\x80"}',
    "a line break in a string": b'{"device_id":"d\n"}',
    "a NUL in a string": b'{"device_id":"d\x00"}',
    "an escaped NUL in a device": b'{"device_id":"d\\u0000"}',
    "an escaped NUL in a location": b'{"device_id":"d","location":"\\u0000"}',
    "attributes as text": b'{"device_id":"d","attributes":"{}"}',
    "500 levels": b'{"device_id":"d","attributes":' + b'{"a":' * 500 + b"1" + b"}" * 501,
    "100,000 levels": b"[" * 100_000,
    "100,000 levels of objects": b'{"a":' * 100_000,
    "noise": bytes(range(256)) * 4,
}

ODD_BUT_GOOD: dict[str, bytes] = {
    "a name twice": b'{"device_id":"odd","device_id":"odd"}',
    "a slash and a dot": b'{"device_id":"odd/../odd"}',
    "a surrogate pair": b'{"device_id":"odd\\ud83d\\ude00"}',
    "an escaped line break": b'{"device_id":"odd\\r\\nX: y"}',
    "a quote": b'{"device_id":"odd\'; --"}',
    "2^64 in an attribute": b'{"device_id":"odd","big":18446744073709551616}',
    "a string of nearly 1 MiB": b'{"device_id":"odd","location":"' + b"x" * (MIB - 200) + b'"}',
    "a name of nearly 1 MiB": b'{"device_id":"odd","' + b"x" * (MIB - 200) + b'":1}',
    "300,000 empty arrays": b'{"device_id":"odd","a":[' + b"[]," * 300_000 + b"[]]}",
    "-0": b'{"device_id":"odd","latitude":-0.0,"longitude":-0}',
}
"""Valid records that look like attacks: Redis and the archive must return them unchanged."""


# msgpack ---------------------------------------------------------------------------------------------

GOOD: bytes = msgpack.packb({"device_id": "d"})

PACKED: dict[str, bytes] = {
    "a byte that begins nothing": b"\xc1",
    "an array of 2^32 - 1": b"\xdd\xff\xff\xff\xff",
    "a map of 2^32 - 1": b"\xdf\xff\xff\xff\xff",
    "a string of 2^32 - 1": b"\x81\xa9device_id\xdb\xff\xff\xff\xff",
    "bytes of 2^32 - 1": b"\x81\xa9device_id\xc6\xff\xff\xff\xff",
    "an extension of 2^32 - 1": b"\x81\xa9device_id\xc9\xff\xff\xff\xff\x01",
    "100,000 levels": b"\x91" * 100_000,
    "100,000 levels of maps": b"\x81\xa1a" * 100_000,
    "1 MiB of empty arrays": b"\xdd" + (MIB - 5).to_bytes(4, "big") + b"\x90" * (MIB - 5),
    "a name that is a number": msgpack.packb({"device_id": "d", 5: 1}),
    "a name that is a map": b"\x82\xa9device_id\xa1d\x80\x01",
    "a name that is not UTF-8": b"\x82\xa9device_id\xa1d\xa1\xff\x01",
    "a device that is not UTF-8": b"\x81\xa9device_id\xa1\xff",
    "a device of 2^63": msgpack.packb({"device_id": {"a": 2**63}}),
    "NaN": msgpack.packb({"device_id": "d", "speed": float("nan")}),
    "infinity": msgpack.packb({"device_id": "d", "latitude": float("-inf")}),
    "NaN in attributes": msgpack.packb({"device_id": "d", "attributes": {"a": float("nan")}}),
    "an extension": msgpack.packb({"device_id": "d", "latitude": msgpack.ExtType(5, b"x" * 9)}),
    "a moment far away": msgpack.packb({"device_id": "d", "timestamp": msgpack.Timestamp(2**34 * 1_000, 0)}),
    "a moment before 1970": msgpack.packb({"device_id": "d", "timestamp": msgpack.Timestamp(-(2**40), 0)}),
    "nil": b"\xc0",
    "a number": b"\x05",
    "cut short": GOOD[:-1],
    "JSON": b'{"device_id":"d"}',
    "noise": bytes(range(255, -1, -1)) * 4,
}

# Compressed ------------------------------------------------------------------------------------------


def bomb(size_mib: int) -> bytes:
    """Blanks, gzipped."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * MIB) for _ in range(size_mib)) + packer.flush()


ONE = b'{"device_id":"d"}'

BOMB = bomb(200)

COMPRESSED: list[Body] = [
    Body("gzip: 200 MiB of blanks", BOMB, encoding="gzip", may_be=(413,)),
    Body("gzip in gzip", gzip.compress(BOMB), encoding="gzip"),
    Body("zstd: 2 GiB of blanks", zstd.compress(b" " * MIB) * 2_000, encoding="zstd", may_be=(400, 413)),
    Body("zstd: a window of 2 GiB", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", encoding="zstd"),
    Body("gzip cut short", gzip.compress(ONE)[:-4], encoding="gzip"),
    Body("gzip with a wrong checksum", gzip.compress(ONE)[:-8] + b"\0" * 8, encoding="gzip"),
    Body("gzip followed by noise", gzip.compress(ONE) + b"noise", encoding="gzip"),
    Body("100,000 empty gzip members", gzip.compress(b"") * 100_000, encoding="gzip"),
    Body("deflate that is text", ONE, encoding="deflate"),
    Body("an encoding that is not known", ONE, encoding="br", may_be=(415,)),
    Body("an encoding on an encoding", gzip.compress(gzip.compress(ONE)), encoding="gzip, gzip", may_be=(415,)),
]


# Bodies ----------------------------------------------------------------------------------------------


def bodies() -> Iterator[Body]:
    """Every body for `POST /v1/records`."""
    for name, text in TEXTS.items():
        yield Body(f"JSON: {name}", text)
        yield Body(f"NDJSON: {name}", text, NDJSON, may_be=(202,) if name in ("nothing", "blank") else (400,))
        yield Body(f"compressed: {name}", gzip.compress(text), encoding="gzip")
    for name, data in PACKED.items():
        yield Body(f"msgpack: {name}", data, MSGPACK)
    yield from COMPRESSED
    yield Body("too large", b" " * (9 * MIB), may_be=(413,))
    yield Body("too many records", b"[" + b"{}," * 100_000 + b"{}]", may_be=(400, 413))
    yield Body("another kind", ONE, "image/png", may_be=(415,))
    yield Body("a kind that is noise", ONE, "\x80;;==,", may_be=(415,))


OLDER_TEXTS: dict[str, bytes] = {
    name: b'{"device_id":"d","location":"x","speed":1,%s}' % field
    for name, field in {
        "a lone surrogate": b'"device_id":"\\ud800"',
        "a lone surrogate as location": b'"location":"a\\udc00"',
        "a NUL": b'"location":"\\u0000"',
        "a speed of 400 digits": b'"speed":' + b"9" * 400,
        "a speed beyond a double": b'"speed":1e999',
        "NaN": b'"speed":NaN',
        "NaN as text": b'"speed":"NaN"',
        "a speed of 2^1024 as text": b'"speed":"1e309"',
        "a time of 400 digits": b'"timestamp":' + b"9" * 400,
        "a time in the year 9999": b'"timestamp":"9999-12-31T23:59:59+23:59"',
        "a time in the year 0": b'"timestamp":"0000-01-01T00:00:00Z"',
        "a device of 10,000 characters": b'"device_id":"' + b"d" * 10_000 + b'"',
        "a location of 10,000 characters": b'"location":"' + b"d" * 10_000 + b'"',
        "900 levels": b'"speed":' + b"[" * 900 + b"]" * 900,
    }.items()
}
"""Of a name twice the last one counts."""


def older_bodies() -> Iterator[Body]:
    """Every body for `POST /tracking/data/`."""
    for name, text in {**TEXTS, **OLDER_TEXTS}.items():
        yield Body(f"JSON: {name}", text)
        yield Body(f"form: {name}", text, FORM)
    yield Body("form: a percent sign", b"device_id=%&location=%ff%00&speed=%zz", FORM)
    yield Body("form: 100,000 fields", b"a=1&" * 100_000, FORM)
    yield Body("form in parts without a boundary", b"--x\r\n\r\n", "multipart/form-data")
    yield Body("form in parts that never end", b"--x\r\nA: b\r\n\r\n" + b"y" * 1_000, "multipart/form-data; boundary=x")
    yield Body("form in parts: a header of 1 MiB", b"--x\r\nA: " + b"b" * MIB, "multipart/form-data; boundary=x")
    yield Body("too large", b" " * (9 * MIB), may_be=(413,))
    yield Body("another kind", ONE, "image/png", may_be=(415,))


# Questions -------------------------------------------------------------------------------------------

NASTY = (
    "%00",
    "%ff%fe",
    "%ed%a0%80",
    "%",
    "%zz",
    "%f0%9f%98%80",
    "'%20OR%201=1--",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%0d%0aX:%20y",
    "-1",
    "99999999999999999999999999",
    "1e309",
    "NaN",
    "2026-02-30",
    "0000-00-00",
    "9999-12-31T23:59:60.9999999999Z",
    "+292277026596-12-04",
    "x" * 5_000,
    "[[[[",
    "{}",
    "*",
    "",
)

PARAMETERS: dict[str, tuple[str, ...]] = {
    "/v1/records": ("device_id", "start", "end", "order", "limit", "cursor", "unknown"),
    "/v1/export": ("device_id", "start", "end", "format", "unknown"),
    "/v1/latest": ("device_id", "limit", "cursor", "unknown"),
    "/tracking/data/list/": ("start_date", "end_date", "device_id", "page", "format", "unknown"),
    "/tcp_tracking/data/list/": ("start_date", "end_date", "device_id", "page", "format"),
    "/tracking/swagger/": ("format",),
    "/status": ("format",),
    "/readyz": ("unknown",),
    "/openapi.json": ("unknown",),
    "/docs": ("unknown",),
}

PLACES = ("/v1/devices/{}/latest", "/tracking/data/latest/{}/", "/tcp_tracking/data/latest/{}/", "/static/{}", "/{}")


def questions() -> Iterator[str]:
    """Every address, with each nasty value in each of its places."""
    for path, names in PARAMETERS.items():
        for value in NASTY:
            yield from (f"{path}?{name}={value}" for name in names)
        yield f"{path}?" + "&".join(f"device_id={n}" for n in range(1_500))
        yield f"{path}?&&==&=&;;"
    for place in PLACES:
        yield from (place.format(value) for value in NASTY)
    yield "/" + "a/" * 4_000
    yield "//////"
    yield "/v1/../../etc/passwd"


# Whole requests --------------------------------------------------------------------------------------

POST = b"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

SMUGGLING: dict[str, bytes] = {
    "a length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n[]" + SMUGGLED,
    "two lengths in one": POST + b"Content-Length: 2, 40\r\n\r\n[]" + SMUGGLED,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n[]" + SMUGGLED,
    "a negative length": POST + b"Content-Length: -2\r\n\r\n[]" + SMUGGLED,
    "a length in hexadecimal": POST + b"Content-Length: 0x2\r\n\r\n[]" + SMUGGLED,
    "a length beyond 2^64": POST + b"Content-Length: 18446744073709551618\r\n\r\n[]" + SMUGGLED,
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n[]" + SMUGGLED,
    "a blank before the name": POST + b" Content-Length: 2\r\n\r\n[]" + SMUGGLED,
    "chunks by another name": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks before another": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks with a tabulator": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk's length with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n[]\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk's length in 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n[]\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk's length beyond 2^64": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n[]\r\n" + SMUGGLED,
    "a chunk longer than its length": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n" + SMUGGLED,
    "line feeds alone": POST.replace(b"\r\n", b"\n") + b"Content-Length : 2\n\n[]" + SMUGGLED,
    "a bare carriage return": POST + b"X: y\rContent-Length: 2\r\n\r\n[]" + SMUGGLED,
    "a NUL in a header": POST + b"X: y\x00z\r\nContent-Length: 2\r\n\r\n[]" + SMUGGLED,
    "a folded header": POST + b"X: y\r\n Content-Length: 2\r\n\r\n[]" + SMUGGLED,
}
"""Requests about whose end two programs may disagree. None may be taken for two."""


# TCP -------------------------------------------------------------------------------------------------


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def batch(*, version: object = 1, sender: object = "s", number: object = 1, records: object = ()) -> bytes:
    packed: bytes = msgpack.packb([version, sender, number, records])
    return framed(packed)


FRAMES: dict[str, bytes] = {
    "of no bytes": framed(b""),
    "of 16 MiB": b"\x00\xff\xff\xff",
    "that is no array": framed(GOOD),
    "that is an array of 2^32 - 1": framed(b"\xdd\xff\xff\xff\xff"),
    "of another version": batch(version=2),
    "of a version that is true": batch(version=True),
    "without a number": batch(number=None),
    "with the number 2^64 - 1": batch(number=2**64 - 1),
    "with a negative number": batch(number=-1),
    "of a sender that is a map": batch(sender={}),
    "of a sender of 65 characters": batch(sender="s" * 65),
    "of records that are a map": batch(records={}),
    "of a record that is nil": batch(records=[None]),
    "100,000 levels deep": framed(b"\x91" * 100_000),
    "cut short": batch()[:-1],
    "with further bytes": framed(batch()[4:] + b"\xc0"),
}


def messages() -> dict[str, bytes]:
    """Every message for the TCP port; a JSON text as a line."""
    return {
        **{f"JSON: {name}": text + b"\n" for name, text in TEXTS.items()},
        **{f"older JSON: {name}": text for name, text in {**TEXTS, **OLDER_TEXTS}.items()},
        **{f"msgpack: {name}": data for name, data in PACKED.items()},
        **{f"frame: {name}": data for name, data in FRAMES.items()},
        "too long": b'{"device_id":"' + b"x" * (2 * MIB),
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "HTTP": POST + b"Content-Length: 2\r\n\r\n[]",
        "line breaks": b"\r\n" * 10_000,
    }


def odd() -> dict[str, tuple[str, bytes]]:
    """The records of `ODD_BUT_GOOD`: device and text."""
    return {name: (json.loads(text)["device_id"], text) for name, text in ODD_BUT_GOOD.items()}
