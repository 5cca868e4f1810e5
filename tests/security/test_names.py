"""Attack with names that strangers choose: they cost their senders a slower way, and nobody a request.

The record of the attack, sent once, made every later body of 100 records with new names an error of the box.
"""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgpack
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cli.imports.readers.formats import READERS
from cli.imports.rows.row_parser import Judge, Naming
from cli.imports.rows.source import opened
from collector.framing.decoder import Decoder, Message, Received
from collector.http import record_body
from collector.http.record_body import FORMS, JSON, MSGPACK, NDJSON, Form, read_batch
from collector.protocols.json_stream import JsonStream
from collector.protocols.msgpack_frames import Frames
from collector.protocols.msgpack_stream import MsgpackStream
from telemetry.codec import typed_decoder
from telemetry.codec.json_compat import json_like
from telemetry.codec.record_parser import Arrival, read
from telemetry.codec.typed_decoder import LEARN_RECORDS, Shapes
from telemetry.model.errors import RecordError
from telemetry.model.record import LATEST_US, Sent
from tests.box import plain_http
from tests.collector.program import Program, program
from tests.conftest import RedisServer
from tests.senders import wait_until

NOW_US = 1_795_500_000_000_000
ARRIVAL = Arrival(NOW_US)
MAX_BYTES, MAX_RECORDS = 2**24, 10_000
MANY = 2 * LEARN_RECORDS
HOST, PATIENCE_S = "127.0.0.1", 30

ODD = ('k"', "k\\", "k\n", "\0", "\x1f", "\x7f", "", "__class__", "self", "x" * 10_000, "ä\u2028", "{0}", "%s", "'; --")
"""Names that mean something to a generator of code, SQL, formats, patterns or texts."""

NAMES_OF_STRANGERS = st.one_of(st.sampled_from(ODD), st.text(max_size=6))
OBJECTS = st.dictionaries(NAMES_OF_STRANGERS, st.one_of(st.integers(0, 9), st.none(), st.text(max_size=3)), max_size=5)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch.setattr)


def forget(setattr_of: Callable[[Any, str, Any], object] = setattr) -> None:
    """Have all shapes unlearnt, as if the program had just started."""
    setattr_of(typed_decoder, "_known", {})
    setattr_of(typed_decoder, "_counts", {})
    for form in set(FORMS.values()):
        form.shapes._shapes, form.shapes._names = [], ()


# As it was run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_redis: RedisServer) -> Iterator[Program]:
    with shared_redis.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    with program(shared_redis, tmp_path_factory.mktemp("names")) as found:
        with plain_http(f"http://{HOST}:{found.http_port}") as http:
            wait_until(lambda: is_ready(http), PATIENCE_S)
        yield found


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.post("/v1/records", json={"device_id": "first"}).status_code == 202
    except httpx.TransportError:
        return False


def records(*names: str, count: int = MANY) -> list[dict[str, object]]:
    return [
        {"device_id": "a", "latitude": 1, "longitude": 2, **dict.fromkeys(names, number)} for number in range(count)
    ]


def test_a_name_of_one_sender_fails_no_body_of_others(running: Program) -> None:
    with plain_http(f"http://{HOST}:{running.http_port}") as http:
        assert http.post("/v1/records", json=records('k"', count=1)[0]).status_code == 202
        for number in range(5):
            many = records(f"new{number}")
            assert http.post("/v1/records", json=many).status_code == 202
            lines = b"\n".join(json.dumps(one).encode() for one in many)
            answer = http.post("/v1/records", content=lines, headers={"Content-Type": "application/x-ndjson"})
            assert answer.status_code == 202
            packed = msgpack.packb(many)
            answer = http.post("/v1/records", content=packed, headers={"Content-Type": "application/msgpack"})
            assert answer.json() == {"accepted": MANY}


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_a_connection_is_kept_whatever_the_names(running: Program, name: str) -> None:
    lines = [json.dumps(one).encode() + b"\n" for one in records(name)]
    with socket.create_connection((HOST, running.port), PATIENCE_S) as device, device.makefile("rb") as answers:
        for line in (*lines[:2], b"".join(lines)):
            device.sendall(line)
            for _ in range(line.count(b"\n")):
                assert json.loads(answers.readline())["accepted"] == 1
    with socket.create_connection((HOST, running.port), PATIENCE_S) as device:
        unpacker = msgpack.Unpacker()
        for one in records(name):
            device.sendall(msgpack.packb(one))
            while (answer := next(unpacker, None)) is None:
                unpacker.feed(device.recv(2**16))
            assert answer["accepted"] == 1


# In each way of coming in ----------------------------------------------------------------------------


def plain(value: object, transport: str, source: str, arrival: Arrival) -> Sent:
    return read(json_like(value), transport, source, arrival)


def same(found: list[Sent], expected: list[Sent]) -> bool:
    """The same but for the order of attributes."""
    return list(map(_comparable, found)) == list(map(_comparable, expected))


def _comparable(sent: Sent) -> tuple[object, ...]:
    *fields, attributes = msgspec.structs.astuple(sent.record)
    return (sent.device_id, *fields, attributes and json.loads(attributes))


def as_lines(values: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(value).encode() for value in values)


def as_array(values: list[dict[str, Any]]) -> bytes:
    return json.dumps(values).encode()


Write = Callable[[list[dict[str, Any]]], bytes]
WAYS: dict[str, tuple[Form, Write]] = {
    "json": (JSON, as_array),
    "ndjson": (NDJSON, as_lines),
    "msgpack": (MSGPACK, msgpack.packb),
}


def framed(values: list[dict[str, Any]]) -> bytes:
    data: bytes = msgpack.packb([1, None, 1, values])
    return len(data).to_bytes(4, "big") + data


STREAMS: dict[str, tuple[Callable[[int, int], Decoder], str, Write]] = {
    "lines": (JsonStream, "json", lambda values: as_lines(values) + b"\n"),
    "array": (JsonStream, "json", lambda values: as_array(values) + b"\n"),
    "stream": (MsgpackStream, "msgpack", lambda values: b"".join(map(msgpack.packb, values))),
    "frames": (Frames, "msgpack", framed),
}


class Case(NamedTuple):
    """Records of strangers, `values`, and so many of each that their names are learnt."""

    values: list[dict[str, Any]]

    @property
    def many(self) -> list[dict[str, Any]]:
        return [value for value in self.values for _ in range(LEARN_RECORDS)]

    def expected(self, transport: str, source: str, arrival: Arrival = ARRIVAL) -> list[Sent] | None:
        """What the plain way makes of them; None if it refuses one."""
        try:
            return [plain(dict(value), transport, source, arrival) for value in self.values]
        except RecordError:
            return None


CASES = st.lists(OBJECTS.map(lambda others: {**others, "device_id": "d"}), min_size=1, max_size=2).map(Case)
some = hypothesis_settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("way", WAYS)
@some
@given(case=CASES)
def test_a_body_is_read_as_the_plain_way_reads_it(way: str, case: Case) -> None:
    forget()
    form, write = WAYS[way]
    expected = case.expected("http", "json")
    if expected is None:
        return
    for values, of_each in ((case.values, 1), (case.many, LEARN_RECORDS), (case.many, LEARN_RECORDS), (case.values, 1)):
        found = read_batch(form, write(values), MAX_RECORDS, ARRIVAL, 0).records
        assert same(found, [one for one in expected for _ in range(of_each)])


def received(messages: list[Message]) -> list[Sent]:
    assert all(isinstance(message, Received) for message in messages)
    return [sent for message in messages for sent in message.records]  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", STREAMS)
@some
@given(case=CASES)
def test_a_stream_is_read_as_the_plain_way_reads_it(stream: str, case: Case) -> None:
    forget()
    make, source, write = STREAMS[stream]
    expected = case.expected("tcp", source)
    if expected is None:
        return
    decoder = make(MAX_BYTES, MAX_RECORDS)
    for values, of_each in ((case.values, 1), (case.many, LEARN_RECORDS), (case.many, LEARN_RECORDS), (case.values, 1)):
        found = received(decoder.feed(write(values), ARRIVAL))
        assert same(found, [one for one in expected for _ in range(of_each)])


@pytest.mark.parametrize("kind", ["json", "ndjson"])
@some
@given(case=CASES)
def test_an_import_is_read_as_the_plain_way_reads_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str, case: Case
) -> None:
    forget()
    dated = Case([value | {"timestamp": "2026-03-01T00:00:00Z"} for value in case.values])
    expected = dated.expected("import", kind, Arrival(0, LATEST_US))
    if expected is None or any("time" in value for value in case.values):
        return
    file = tmp_path_factory.getbasetemp() / f"names.{kind}"
    file.write_bytes((as_array if kind == "json" else as_lines)(dated.many * 20))
    with opened(file) as source:
        pieces = list(READERS[kind](source, Judge(Naming(), Arrival(0, LATEST_US), kind)))
    assert not any(piece.refused for piece in pieces)
    assert same(
        [one for piece in pieces for one in piece.sent], [one for one in expected for _ in range(LEARN_RECORDS)] * 20
    )


PATHS = [{"a": [{"b": 1}], "a.b": [2]}, {"a": [[1]], "a.list.element": [2]}, {'k"': [1]}, {"": [1]}, {".": [1]}]


@pytest.mark.parametrize("columns", PATHS, ids=repr)
@pytest.mark.parametrize("drop", [(), ("a",), ("a.b", "a.list.element")], ids=repr)
def test_columns_of_parquet_are_known_by_their_whole_name(
    tmp_path: Path, columns: dict[str, list[object]], drop: tuple[str, ...]
) -> None:
    file = tmp_path / "names.parquet"
    pq.write_table(pa.table({"device_id": ["a"], "timestamp": ["2026-03-01T00:00:00Z"], **columns}), file)
    with opened(file) as source:
        [piece] = READERS["parquet"](source, Judge(Naming(drop=drop), Arrival(0, LATEST_US), "parquet"))
    kept = {name: value for name, [value] in columns.items() if name not in drop}
    assert json.loads(piece.sent[0].record.attributes or "{}") == kept


# What learning may cost ------------------------------------------------------------------------------


def test_nothing_that_is_learnt_may_fail_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise TypeError("no such code")

    monkeypatch.setattr(msgspec, "defstruct", fail)
    found = Shapes()
    found.learn(records("a"))
    assert not found.any
    assert len(read_batch(record_body.JSON, as_array(records("a")), MAX_RECORDS, ARRIVAL, 0).records) == MANY


def test_what_a_shape_trips_over_goes_the_plain_way() -> None:
    def fail(_data: object) -> None:
        raise TypeError("not foreseen")

    found = Shapes()
    found.learn(records("a"))
    found._shapes = [shape._replace(from_json=fail) for shape in found._shapes]
    assert found.json(as_array(records("a")), "tcp", "json", ARRIVAL) is None


def test_names_that_are_many_or_long_are_not_remembered() -> None:
    for number in range(100):
        found = Shapes()
        found.learn([{"device_id": "d", **dict.fromkeys((f"{number}x{n}" for n in range(1_000)), 1)}], LEARN_RECORDS)
        found.learn([{"device_id": "d", f"{number}{'x' * 100_000}": 1}], LEARN_RECORDS)
        assert not found.any
        assert sum(map(len, found._names)) <= typed_decoder.MAX_NAMES_CHARACTERS
    assert not typed_decoder._counts


def test_shapes_of_all_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(typed_decoder, "MAX_ALIVE", len(typed_decoder._alive) + 20)
    monkeypatch.setattr(typed_decoder, "MAX_KEPT", 5)
    connections = [Shapes() for _ in range(100)]
    for number, found in enumerate(connections):
        found.learn([{"device_id": "d", f"x{number}": 1}], LEARN_RECORDS)
    held = {id(shape) for found in connections for shape in found._shapes}
    assert len(held) <= 20
