"""The collector program as a device meets it: `python -m collector`, a real Redis, real sockets."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import psutil
import pytest
import redis
from backports import zstd
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from telemetry.startup.store_setup import set_up
from tests.box import plain_http
from tests.collector.conftest import HOST, RECEIVED, numbers, tail
from tests.collector.posting import (
    HEAD,
    MAX_BODY_BYTES,
    TIMEOUT_S,
    WAIT_S,
    Box,
    Program,
    Raw,
    post,
    problem_of,
    running,
)
from tests.conftest import RedisServer, settings_of


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """One program for all tests that don't end it; each test has devices of its own."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        settings = settings_of(server.url, Path(folder))
        with contextlib.ExitStack() as stack:
            stack.callback(server.kill)
            client = stack.enter_context(connect(settings))
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
            yield Box(stack.enter_context(running(settings)), server, client, shard)


@pytest.fixture
def http(box: Box) -> Iterator[httpx.Client]:
    with plain_http(box.program.url, WAIT_S) as found:
        yield found


# Taken -----------------------------------------------------------------------------------------------


def test_a_record_is_visible_as_soon_as_202_arrives(box: Box, http: httpx.Client) -> None:
    for number in range(20):
        answer = post(http, {"device_id": "one", "altitude": number, "lat": 1, "lon": 2})
        assert (answer.status_code, answer.text) == (202, '{"accepted":1}')
        assert answer.headers["content-type"] == "application/json"
        assert box.numbers("one") == list(range(number + 1))
    stored = tail(box.shard, "one")[0]
    assert (stored.record.transport, stored.record.source, stored.record.has_fix) == ("http", "json", True)
    assert abs(stored.record.timestamp_us / 1e6 - time.time()) < WAIT_S


def test_an_array_is_taken_whole_and_in_order(box: Box, http: httpx.Client) -> None:
    answer = post(http, [{"device_id": "many", "altitude": number} for number in range(2_500)])
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2_500})
    assert box.numbers("many") == list(range(2_500))


def test_an_empty_array(http: httpx.Client) -> None:
    answer = post(http, [])
    assert (answer.status_code, answer.json()) == (202, {"accepted": 0})


def test_as_many_records_as_a_request_may_hold(box: Box, http: httpx.Client) -> None:
    body = b"[" + b",".join([b'{"device_id":"full"}'] * 100_000) + b"]"
    assert post(http, body).json() == {"accepted": 100_000}
    assert len(tail(box.shard, "full")) == 100_000


def test_one_record_more_is_refused(box: Box, http: httpx.Client) -> None:
    body = b"[" + b",".join([b'{"device_id":"over"}'] * 100_001) + b"]"
    problem = problem_of(post(http, body), 413, "body-too-large")
    assert problem == {"detail": "a request may hold 100000 records"}
    assert box.numbers("over") == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/vnd.x+json",
        "",
    ],
)
def test_a_body_that_calls_itself_something_else(http: httpx.Client, kind: str) -> None:
    assert post(http, {"device_id": "d"}, Content_Type=kind).status_code == 202


def test_a_chunked_body(box: Box) -> None:
    with plain_http(box.program.url, WAIT_S) as http:
        body = iter([b'[{"device_id":', b'"chunked","altitude":1}', b"]"])
        answer = http.post("/v1/records", content=body)
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert box.numbers("chunked") == [1]


def test_many_at_once(box: Box) -> None:
    def one(number: int) -> None:
        with plain_http(box.program.url, WAIT_S) as http:
            for _ in range(5):
                assert post(http, {"device_id": "crowd", "altitude": number}).status_code == 202

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(box.numbers("crowd")) == sorted(list(range(20)) * 5)


def test_tcp_is_served_by_the_same_program(box: Box) -> None:
    with socket.create_connection((HOST, box.program.tcp_port), timeout=WAIT_S) as sender:
        sender.sendall(b'{"device_id":"wire","altitude":5}\n')
        assert sender.recv(1_000) == RECEIVED
        assert box.numbers("wire") == [5]


def test_alive(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}


# Forms and encodings ---------------------------------------------------------------------------------

NDJSON, MSGPACK = "application/x-ndjson", "application/msgpack"
WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    "application/json": lambda found: json.dumps(found).encode(),
    NDJSON: lambda found: b"\n".join(json.dumps(one).encode() for one in found),
    MSGPACK: lambda found: b"".join(map(msgpack.packb, found)),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


def test_the_same_records_are_stored_in_every_form_and_encoding(box: Box, http: httpx.Client) -> None:
    sent = [{"device_id": "same", "timestamp": 1_700_000_000 + n, "lat": n / 7, "speed": n, "n": [n]} for n in range(9)]
    sets = []
    for kind, write in WRITERS.items():
        for encoding, pack in PACKERS.items():
            answer = post(http, pack(write(sent)), Content_Type=kind, Content_Encoding=encoding)
            assert (answer.status_code, answer.text) == (202, '{"accepted":9}')
            sets.append([stored.record for stored in tail(box.shard, "same")[-9:]])
    assert len(sets) == len(WRITERS) * len(PACKERS)
    assert all(one == sets[0] for one in sets)


@pytest.mark.parametrize("encoding", ["GZip", "x-gzip"])
def test_other_names_of_gzip(http: httpx.Client, encoding: str) -> None:
    assert post(http, gzip.compress(b'{"device_id":"d"}'), Content_Encoding=encoding).status_code == 202


def test_a_line_that_can_not_be_taken_is_named(box: Box, http: httpx.Client) -> None:
    body = b'{"device_id":"lined"}\r\n\n{"device_id":"lined","lat":91}\n'
    assert problem_of(post(http, body, Content_Type=NDJSON), 400, "invalid-record") == {
        "detail": "record 1 (line 3): latitude: must be between -90 and 90",
        "index": 1,
        "line": 3,
        "field": "latitude",
        "value": 91,
        "reason": "must be between -90 and 90",
    }
    problem = problem_of(post(http, body[:-2], Content_Type=NDJSON), 400, "invalid-json")
    assert (problem["line"], problem["detail"]) == (3, "record 1 (line 3): cut short")
    assert box.numbers("lined") == []


def test_msgpack_that_can_not_be_taken_is_named(http: httpx.Client) -> None:
    good = msgpack.packb({"device_id": "d"})
    problem = problem_of(post(http, good + b"\xc1", Content_Type=MSGPACK), 400, "invalid-msgpack")
    assert problem == {"detail": f"a byte that cannot begin a value at byte {len(good)}"}
    problem = problem_of(post(http, good + b"\x81\xa1\xff\x01", Content_Type=MSGPACK), 400, "invalid-msgpack")
    assert (problem["index"], problem["field"]) == (1, None)
    assert problem["reason"] == f"not UTF-8: invalid start byte, in the record at byte {len(good)}"
    body = msgpack.packb([{"device_id": "d", "lat": msgpack.ExtType(9, b"")}])
    problem = problem_of(post(http, body, Content_Type=MSGPACK), 400, "invalid-record")
    assert (problem["index"], problem["field"]) == (0, "latitude")


@given(
    body=st.binary(max_size=60) | st.lists(st.sampled_from([b"{", b"}", b"[", b'"a":1', b"\n", b"\x91"])).map(b"".join),
    kind=st.sampled_from([*WRITERS, "application/json"]),
    encoding=st.sampled_from(list(PACKERS)),
    is_packed=st.booleans(),
    on_error=st.sampled_from(["refuse", "skip"]),
)
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_are_an_error_of_the_box(
    http: httpx.Client, body: bytes, kind: str, encoding: str, is_packed: bool, on_error: str
) -> None:
    content = PACKERS[encoding](body) if is_packed else body
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    answer = http.post("/v1/records", params={"on_error": on_error}, content=content, headers=headers)
    assert answer.status_code in (202, 400), answer.text


# Leaving out what is bad -----------------------------------------------------------------------------


def skip(http: httpx.Client, body: bytes, kind: str = "application/json", **headers: str) -> dict[str, Any]:
    answer = http.post("/v1/records?on_error=skip", content=body, headers={"Content-Type": kind, **headers})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_good_records_are_taken_and_bad_ones_named(box: Box, http: httpx.Client) -> None:
    body = [{"device_id": "some", "altitude": 1}, {"device_id": "some", "lat": 91}, 5, {"device_id": "some", "alt": 2}]
    assert skip(http, json.dumps(body).encode()) == {
        "accepted": 2,
        "refused": 2,
        "errors": [
            {"index": 1, "field": "latitude", "value": 91, "reason": "must be between -90 and 90"},
            {"index": 2, "field": None, "value": 5, "reason": "a record must be an object, not a number"},
        ],
        "errors_omitted": 0,
    }
    assert box.numbers("some") == [1, 2]


def test_a_line_that_is_not_json_is_one_bad_record(box: Box, http: httpx.Client) -> None:
    body = b'{"device_id":"loose","alt":1}\n{"device_id":\n\n{"device_id":"loose","alt":2}'
    assert skip(http, body, NDJSON) == {
        "accepted": 2,
        "refused": 1,
        "errors": [{"index": 1, "line": 2, "field": None, "value": '{"device_id":', "reason": "cut short"}],
        "errors_omitted": 0,
    }
    assert box.numbers("loose") == [1, 2]


def test_many_bad_records_are_counted_and_a_hundred_described(http: httpx.Client) -> None:
    found = skip(http, json.dumps([{}] * 1_000).encode())
    assert (found["accepted"], found["refused"], found["errors_omitted"]) == (0, 1_000, 900)
    assert [one["index"] for one in found["errors"]] == list(range(100))


def test_nothing_bad_and_nothing_at_all(http: httpx.Client) -> None:
    for body, accepted in ((b'{"device_id":"d"}', 1), (b"[]", 0)):
        assert skip(http, body) == {"accepted": accepted, "refused": 0, "errors": [], "errors_omitted": 0}


@pytest.mark.parametrize(("kind", "body"), [("application/json", b"[{}"), (MSGPACK, b"\x92\x80")])
def test_a_body_that_can_not_be_taken_apart_is_refused_all_the_same(http: httpx.Client, kind: str, body: bytes) -> None:
    answer = http.post("/v1/records?on_error=skip", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "cut short"


def test_a_parameter_that_is_unknown_or_has_no_such_value(http: httpx.Client) -> None:
    for query, detail in (
        ("on_eror=skip", "on_eror is unknown; known: on_error"),
        ("on_error=ignore", "on_error must be refuse or skip"),
    ):
        problem = problem_of(http.post(f"/v1/records?{query}", json={"device_id": "d"}), 400, "invalid-parameter")
        assert problem == {"detail": detail, "parameter": query.partition("=")[0]}
    assert http.post("/v1/records?on_error=refuse", json={"device_id": "d"}).status_code == 202


# Refused ---------------------------------------------------------------------------------------------


def test_one_bad_record_refuses_the_whole_request(box: Box, http: httpx.Client) -> None:
    answer = post(http, [{"device_id": "whole"}, {"device_id": "whole", "lat": 91}, {"device_id": ""}])
    assert problem_of(answer, 400, "invalid-record") == {
        "detail": "record 1: latitude: must be between -90 and 90",
        "index": 1,
        "field": "latitude",
        "value": 91,
        "reason": "must be between -90 and 90",
    }
    assert box.numbers("whole") == []
    assert not box.client.zscore(box.shard.keys.devices, "whole")


@pytest.mark.parametrize(
    ("body", "members"),
    [
        ({}, {"index": 0, "field": "device_id", "value": None, "reason": "required"}),
        (5, {"index": 0, "field": None, "value": 5, "reason": "a record must be an object, not a number"}),
        (
            [{"device_id": "d", "speed": "6,5"}],
            {"field": "speed_kmh", "value": "6,5", "reason": "must be a finite number"},
        ),
        ({"device_id": "d", "timestamp": "1999-12-31"}, {"reason": "must be between 2000-01-01 and 2200-01-01"}),
        ({"device_id": "d", "time": 1, "timestamp": 1}, {"reason": "sent twice, the second time as 'timestamp'"}),
        ({"device_id": "x" * 1_000}, {"value": '"' + "x" * 199 + "…"}),
        ({"device_id": "d", "attributes": [1]}, {"value": [1], "reason": "must be an object, not an array"}),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, body: object, members: dict[str, object]) -> None:
    problem = problem_of(post(http, body), 400, "invalid-record")
    assert {name: problem[name] for name in members} == members
    assert problem["index"] == 0
    assert problem["detail"].startswith("record 0: ")


def test_a_time_too_far_ahead_of_the_box(http: httpx.Client) -> None:
    good, bad = ({"device_id": "d", "timestamp": time.time() + hours * 3_600} for hours in (23.9, 24.1))
    assert post(http, good).status_code == 202
    problem = problem_of(post(http, bad), 400, "invalid-record")
    assert (problem["field"], problem["value"]) == ("timestamp", bad["timestamp"])
    assert "ahead of the box's clock" in problem["reason"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "cut short"),
        (b'{"device_id":', "cut short"),
        (b"{device_id:1}", "object keys must be strings at byte 1"),
        (b'{"device_id":1} {', "trailing characters at byte 16"),
        (b'{"device_id":1,"speed":NaN}', "invalid character at byte 23"),
        (b'{"device_id":1,"speed":1e400}', "Number out of range at byte 23"),
        (b'{"device_id":"\xff"}', "not UTF-8: invalid start byte"),
        (b"\xef\xbb\xbf{}", "invalid character at byte 0"),
        (b"[" * 100_000, "nested too deeply at byte 500"),
        (b"[" + b"[]," * 800_000 + b"[]]", "more than 800000 objects and arrays"),
    ],
)
def test_what_is_no_json(http: httpx.Client, body: bytes, detail: str) -> None:
    assert problem_of(post(http, body), 400, "invalid-json") == {"detail": detail}


def test_no_such_address(http: httpx.Client) -> None:
    assert problem_of(http.get("/v1/nothing"), 404, "not-found") == {"detail": "GET /v1/nothing"}


def test_no_such_method(http: httpx.Client) -> None:
    answer = http.get("/v1/records")
    assert problem_of(answer, 405, "wrong-method") == {"detail": "GET /v1/records"}
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data; boundary=x", "application/json-seq"])
def test_a_body_of_another_kind(http: httpx.Client, kind: str) -> None:
    answer = post(http, {"device_id": "d"}, Content_Type=kind)
    forms = "application/json, application/x-ndjson, application/msgpack"
    assert problem_of(answer, 415, "unsupported-type") == {"detail": f"send {forms}, not {kind.partition(';')[0]}"}
    assert answer.headers["accept"] == forms


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd", "gzip, identity", "gzip gzip"])
def test_an_encoding_that_is_not_taken(http: httpx.Client, encoding: str) -> None:
    answer = post(http, {"device_id": "d"}, Content_Encoding=encoding)
    detail = f"send the body as it is, or in one of gzip, x-gzip, deflate, zstd; not {encoding}"
    assert problem_of(answer, 415, "unsupported-encoding") == {"detail": detail}
    assert answer.headers["accept-encoding"] == "gzip, x-gzip, deflate, zstd"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_body_that_is_not_what_its_encoding_says(http: httpx.Client, encoding: str) -> None:
    problem = problem_of(post(http, b'{"device_id":"d"}', Content_Encoding=encoding), 400, "invalid-encoding")
    assert problem["detail"].startswith(f"not {encoding}: ")


def test_a_bomb_costs_neither_memory_nor_the_box(box: Box, http: httpx.Client) -> None:
    packer = zlib.compressobj(9, wbits=31)
    # 8 GB; a piece behind a full flush refers to nothing before it, so it may be repeated
    first, again = (packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + again * 499 + packer.flush()
    assert len(bomb) < MAX_BODY_BYTES
    assert zlib.decompressobj(wbits=31).decompress(first + again * 3) == bytes(2**26)
    process = psutil.Process(box.program.pid)
    before = process.memory_info().rss
    for _ in range(3):
        problem = problem_of(post(http, bomb, Content_Encoding="gzip"), 413, "body-too-large")
        assert problem == {"detail": f"a body may have at most {MAX_BODY_BYTES} bytes after decompression"}
    assert process.memory_info().rss - before < 64 * 2**20


def test_a_body_too_large_by_its_own_account_is_refused_at_once(box: Box) -> None:
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
        assert problem_of(sender.answer(), 413, "body-too-large") == {
            "detail": f"a body may have {MAX_BODY_BYTES} bytes"
        }


def test_a_chunked_body_that_grows_too_large_is_refused(box: Box) -> None:
    chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(9):
                sender.send(chunk)
        assert problem_of(sender.answer(), 413, "body-too-large") == {
            "detail": f"a body may have {MAX_BODY_BYTES} bytes"
        }


def test_a_client_that_sends_a_large_body_hears_why_it_is_refused(http: httpx.Client) -> None:
    problem_of(post(http, b" " * (MAX_BODY_BYTES + 2**20)), 413, "body-too-large")


def test_a_body_of_the_full_size_is_read(http: httpx.Client) -> None:
    body = b'{"device_id":"d"}'.ljust(MAX_BODY_BYTES)
    assert post(http, body).status_code == 202


def test_more_bodies_at_once_than_may_be_held(shard: Shard, settings: Settings) -> None:
    part = b" " * 400_000
    with (
        running(settings, collector__max_pending_bytes="1000000", collector__request_timeout_s="20") as program,
        contextlib.ExitStack() as stack,
    ):
        first, second, third = (stack.enter_context(Raw(program.http_port)) for _ in range(3))
        for sender in (first, second):
            sender.send(HEAD + b"Connection: close\r\nContent-Length: 400002\r\n\r\n" + part)
        time.sleep(0.5)
        third.send(HEAD + b"Content-Length: 400002\r\n\r\n" + part)
        answer = third.answer()
        assert problem_of(answer, 503, "busy") == {"detail": "more bodies are arriving than may"}
        assert answer.headers["retry-after"] == "1"
        for sender in (first, second):
            sender.send(b"[]")
            assert sender.answer().status_code == 202
        with plain_http(program.url, WAIT_S) as http:
            assert post(http, b" " * 2_000_000 + b"[]").status_code == 202


@pytest.mark.slow
def test_a_body_that_takes_too_long(box: Box) -> None:
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + b"Content-Length: 100\r\n\r\n[")
        assert problem_of(sender.answer(), 408, "timed-out") == {
            "detail": f"a request may take at most {TIMEOUT_S} s to arrive"
        }


def test_a_refusal_leaves_the_connection_as_it_was(box: Box, http: httpx.Client) -> None:
    for _ in range(3):
        assert post(http, {}).status_code == 400
        assert post(http, b"nonsense").status_code == 400
        assert post(http, {"device_id": "after"}, Content_Type="image/png").status_code == 415
        assert post(http, {"device_id": "after"}).status_code == 202
    assert len(tail(box.shard, "after")) == 3


# Idempotency-Key -------------------------------------------------------------------------------------


def test_a_request_with_a_key_is_stored_once(box: Box, http: httpx.Client) -> None:
    for _ in range(3):
        answer = post(http, [{"device_id": "key", "altitude": 1}], Idempotency_Key="a key")
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert box.numbers("key") == [1]
    assert post(http, [{"device_id": "key", "altitude": 1}], Idempotency_Key="another").status_code == 202
    assert box.numbers("key") == [1, 1]


def test_a_key_with_another_body(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "reused", "altitude": 1}, Idempotency_Key="reused").status_code == 202
    answer = post(http, {"device_id": "reused", "altitude": 2}, Idempotency_Key="reused")
    assert "another body" in problem_of(answer, 422, "idempotency-key-reused")["detail"]
    assert box.numbers("reused") == [1]


def test_a_refused_request_does_not_use_up_its_key(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "spare", "lat": 91}, Idempotency_Key="spare").status_code == 400
    assert post(http, {"device_id": "spare", "altitude": 9}, Idempotency_Key="spare").status_code == 202
    assert box.numbers("spare") == [9]


def test_the_length_of_a_key(http: httpx.Client) -> None:
    assert post(http, {"device_id": "d"}, Idempotency_Key="x" * 255).status_code == 202
    for key in ("x" * 256, ""):
        problem = problem_of(post(http, {"device_id": "d"}, Idempotency_Key=key), 400, "invalid-parameter")
        assert problem == {
            "detail": "Idempotency-Key must have 1 to 255 characters",
            "parameter": "Idempotency-Key",
        }


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_key_makes_a_retry_safe_that_leaves_records_out(box: Box, http: httpx.Client, encoding: str) -> None:
    device = f"left out {encoding}"
    body = json.dumps([{"device_id": device, "alt": 1}, {"device_id": device, "lat": 91}]).encode()
    key = {"Idempotency-Key": device, "Content-Encoding": encoding}
    answers = []
    for level in (1, 9):  # what is the same body compressed otherwise is the same body
        answers.append(skip(http, gzip.compress(body, level, mtime=level) if encoding == "gzip" else body, **key))
    assert answers[0] == answers[1]
    assert (answers[0]["accepted"], answers[0]["refused"]) == (1, 1)
    assert box.numbers(device) == [1]
    other = http.post("/v1/records?on_error=skip", json=[{"device_id": device}], headers={"Idempotency-Key": device})
    assert "another body" in problem_of(other, 422, "idempotency-key-reused")["detail"]


@pytest.mark.slow
def test_what_was_left_out_as_too_far_ahead_stays_so_for_its_key(shard: Shard, settings: Settings) -> None:
    key_s = 4
    with (
        running(settings, collector__idempotency_seconds=str(key_s)) as program,
        plain_http(program.url, WAIT_S) as http,
    ):
        time.sleep((key_s - 1 - time.time()) % key_s)  # a second before the bound moves
        ahead_s = int(time.time()) + 2 + settings.collector.max_future_seconds
        body = json.dumps([{"device_id": "d", "alt": 1}, {"device_id": "d", "alt": 2, "time": ahead_s}]).encode()
        first = skip(http, body, **{"Idempotency-Key": "ahead"})
        assert (first["accepted"], first["refused"]) == (1, 1)
        time.sleep(2)
        assert skip(http, body, **{"Idempotency-Key": "ahead"}) == first
        assert numbers(tail(shard, "d")) == [1]
        assert skip(http, body)["accepted"] == 2


# Numbered batches ------------------------------------------------------------------------------------


def numbered(http: httpx.Client, sender: str, number: object, body: object, **more: str) -> httpx.Response:
    return post(http, body, Sender_Id=sender, Batch_Number=str(number), **more)


def test_a_numbered_batch_is_stored_once(box: Box, http: httpx.Client) -> None:
    record = {"device_id": "numbered", "altitude": 7}
    assert numbered(http, "s1", 7, [record]).json() == {"accepted": 1}
    for number in (7, 6):
        assert numbered(http, "s1", number, [record]).json() == {"accepted": 0, "repeated": True}
    assert numbered(http, "s1", 9, [record | {"altitude": 9}]).json() == {"accepted": 1}
    assert numbered(http, "s2", 7, [record]).json() == {"accepted": 1}, "another sender"
    assert box.numbers("numbered") == [7, 9, 7]


def test_over_tcp_and_http_a_sender_is_the_same(box: Box, http: httpx.Client) -> None:
    frame = msgpack.packb([1, "both", 5, [{"device_id": "both", "altitude": 5}]])
    with socket.create_connection((HOST, box.program.tcp_port), timeout=WAIT_S) as device:
        device.sendall(len(frame).to_bytes(4, "big") + frame)
        assert device.recv(100)
    assert numbered(http, "both", 5, {"device_id": "both", "altitude": 5}).json()["repeated"]
    assert box.numbers("both") == [5]


def test_what_is_left_of_a_refused_batch_may_have_its_number(box: Box, http: httpx.Client) -> None:
    good, bad = {"device_id": "left", "altitude": 1}, {"device_id": "left", "lat": 91}
    assert problem_of(numbered(http, "left", 1, [good, bad]), 400, "invalid-record")["index"] == 1
    assert numbered(http, "left", 1, [good]).json() == {"accepted": 1}
    assert box.numbers("left") == [1]


def test_an_empty_batch_gives_its_number_up(box: Box, http: httpx.Client) -> None:
    assert numbered(http, "up", 3, []).json() == {"accepted": 0}
    assert numbered(http, "up", 3, [{"device_id": "up"}]).json() == {"accepted": 0, "repeated": True}
    assert box.numbers("up") == []


@pytest.mark.parametrize(
    ("headers", "parameter"),
    [
        ({"Sender-Id": "s"}, "Batch-Number"),
        ({"Batch-Number": "1"}, "Sender-Id"),
        ({"Sender-Id": "s" * 65, "Batch-Number": "1"}, "Sender-Id"),
        ({"Sender-Id": "a b", "Batch-Number": "1"}, "Sender-Id"),
        ({"Sender-Id": "s", "Batch-Number": "0"}, "Batch-Number"),
        ({"Sender-Id": "s", "Batch-Number": "-1"}, "Batch-Number"),
        ({"Sender-Id": "s", "Batch-Number": str(2**53)}, "Batch-Number"),
        ({"Sender-Id": "s", "Batch-Number": "1", "Idempotency-Key": "k"}, "Batch-Number"),
    ],
)
def test_a_number_that_is_none(box: Box, http: httpx.Client, headers: dict[str, str], parameter: str) -> None:
    answer = http.post("/v1/records", json=[{"device_id": "no number"}], headers=headers)
    assert problem_of(answer, 400, "invalid-parameter")["parameter"] == parameter
    assert box.numbers("no number") == []


def test_a_number_and_bad_records_left_out(http: httpx.Client) -> None:
    headers = {"Sender-Id": "s", "Batch-Number": "1"}
    answer = http.post("/v1/records?on_error=skip", json=[{"device_id": "d"}], headers=headers)
    assert problem_of(answer, 400, "invalid-parameter")["parameter"] == "Batch-Number"


# The store, and the end ------------------------------------------------------------------------------


def test_while_redis_is_away_the_answer_is_503(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "away", "altitude": 1}).status_code == 202
    box.server.kill()
    try:
        assert numbered(http, "away", 1, {"device_id": "away", "altitude": 3}).status_code == 503
        answer = post(http, {"device_id": "away", "altitude": 2})
        assert "cannot reach Redis" in problem_of(answer, 503, "busy")["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert http.get("/healthz").status_code == 200
    finally:
        box.server.start()
    assert numbered(http, "away", 1, {"device_id": "away", "altitude": 3}).json() == {"accepted": 1}
    assert box.numbers("away") == [1, 3]


def test_sigterm_ends_it_while_connections_are_open(client: redis.Redis, archive: Archive, settings: Settings) -> None:
    set_up(client, archive, 1)
    with running(settings) as program, contextlib.ExitStack() as stack:
        http = stack.enter_context(plain_http(program.url))
        idle, half, silent = (
            stack.enter_context(socket.create_connection((HOST, program.tcp_port), timeout=WAIT_S)) for _ in range(3)
        )
        raw = stack.enter_context(Raw(program.http_port))
        assert post(http, {"device_id": "d"}).status_code == 202
        idle.sendall(b'{"device_id":"d"}\n')
        assert idle.recv(1_000) == RECEIVED
        half.sendall(b'{"device_id":')
        raw.send(HEAD)
        began_s = time.monotonic()
        status, errors = program.terminate()
        assert (status, "Traceback" in errors) == (0, False), errors
        assert time.monotonic() - began_s < 5
        assert [sender.recv(1_000) for sender in (idle, half, silent)] == [b""] * 3


def test_sigterm_lets_what_is_under_way_be_stored_and_answered(
    client: redis.Redis, archive: Archive, settings: Settings
) -> None:
    [shard] = set_up(client, archive, 1)
    with (
        running(settings) as program,
        plain_http(program.url, WAIT_S) as http,
        socket.create_connection((HOST, program.tcp_port), timeout=WAIT_S) as sender,
    ):
        assert post(http, {"device_id": "d", "altitude": 0}).status_code == 202
        client.client_pause(1_000, all=False)
        answers: list[int] = []
        request = {"device_id": "d", "altitude": 1}
        posting = threading.Thread(target=lambda: answers.append(post(http, request).status_code))
        posting.start()
        sender.sendall(b'{"device_id":"d","altitude":2}\n')
        time.sleep(0.2)
        status, errors = program.terminate()
        posting.join()
        assert (status, answers, sender.recv(1_000)) == (0, [202], RECEIVED), errors
    assert sorted(numbers(tail(shard, "d"))) == [0, 1, 2]


@pytest.mark.parametrize("which", ["http_port", "tcp_port"])
def test_a_port_that_is_taken_is_named(shard: Shard, settings: Settings, which: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        process = Program(settings, **{f"collector__{which}": str(port)}).start()
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"collector: cannot listen on {HOST}:{port}: Address already in use")
