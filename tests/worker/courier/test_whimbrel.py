"""A forward to another Whimbrel, a real one: each record is there once, whatever is lost or killed on the way."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from collector.framing.decoder import Received
from collector.protocols import msgpack_frames
from telemetry.codec import frames as frame_answers
from telemetry.codec.record_parser import Arrival
from telemetry.config.settings import Forward
from telemetry.model.errors import BusyError, RecordError, SenderError
from tests.box import Box
from tests.worker.conftest import Content
from tests.worker.courier.conftest import Made
from tests.worker.courier.forwards import Forwards, KillAt, Killed, run
from tests.worker.courier.wire import Wire
from worker.courier.delivery.http_client import TlsFiles
from worker.courier.delivery.state_db import Store
from worker.courier.targets import whimbrel
from worker.courier.targets.target import Batch
from worker.courier.targets.whimbrel import BOUNDS, Whimbrel, frame_of

WAIT_S = 10
FAULTS = ("lost", "cut", "reset")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The other Whimbrel."""
    with Box(tmp_path_factory.mktemp("other"), collector__max_devices="1000") as found:
        yield found


@pytest.fixture
def wire(box: Box) -> Iterator[Wire]:
    """A wire to it on which things go wrong."""
    found = Wire(box.tcp_port)
    yield found
    found.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of three records, so that there are many."""
    monkeypatch.setattr(Whimbrel, "bounds", BOUNDS._replace(most_records=3))


def entry(port: int, **more: Any) -> Forward:
    return Forward(**{"name": "hq", "url": f"whimbrel://127.0.0.1:{port}", "start": "all", **more})


def devices(test: str, count: int = 7) -> list[str]:
    """Devices that no other test sends to the other box."""
    return [f"{test}-{number}" for number in range(count)]


def there(box: Box, prefix: str) -> Counter[Content]:
    """What the other box shows of the devices whose ids begin so."""
    page = box.http.get("/v1/records", params={"start": "2000-01-01", "end": "2030-01-01", "limit": "50000"}).json()
    assert page["next_cursor"] is None
    found = ((one["device_id"], int(one["altitude_m"] or 0)) for one in page["records"])
    return Counter(one for one in found if one[0].startswith(prefix))


def test_the_frame_is_the_collectors() -> None:
    batch = Batch("forward-1", 7, [msgspec.msgpack.encode({"device_id": "a", "altitude_m": 1.5})] * 2)
    decoder = msgpack_frames.Frames(2**20, 1_000)
    [message] = decoder.feed(frame_of(batch), Arrival(0, 0, "kmh"))
    assert isinstance(message, Received)
    assert (message.sender, message.number, len(message.records)) == ("forward-1", 7, 2)
    assert (whimbrel.VERSION, frame_answers.HEAD_BYTES) == (msgpack_frames.VERSION, msgpack_frames.HEAD_BYTES)
    names = ("HELLO", "STORED", "REPEATED", "REFUSED", "BUSY", "DENIED")
    assert [getattr(whimbrel, name) for name in names] == [getattr(msgpack_frames, name) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", ["begin", "send", "keep", "advance", "done"])
def test_killed_at_any_step_each_record_is_there_once(
    step: str, nth: int, made: Made, forwards: Forwards, box: Box, small: None
) -> None:
    names, hq = devices(f"kill-{step}-{nth}"), entry(box.tcp_port)
    run(forwards(hq))
    for _ in range(3):
        made.save(*names)
    with pytest.raises(Killed):
        run(forwards(hq, KillAt(step, nth)))
    made.merge()
    made.save(names[0])
    last = forwards(hq)
    run(last)
    assert there(box, f"kill-{step}-{nth}-") == made.ledger.acknowledged
    assert last.report().sent_records == made.ledger.acknowledged.total()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_wire_loses_each_record_is_there_once(
    fault: str, made: Made, forwards: Forwards, box: Box, wire: Wire, small: None
) -> None:
    names, hq = devices(f"wire-{fault}"), entry(wire.port)
    wire.faults = (fault if number % 2 else "" for number in range(10_000))
    failures = 0
    for _ in range(3):
        made.save(*names)
        found = forwards(hq)
        while True:
            try:
                run(found)
                break
            except OSError:
                failures += 1
        found.close()
    assert failures >= 6
    assert there(box, f"wire-{fault}-") == made.ledger.acknowledged


@pytest.mark.slow
def test_killed_behind_a_lost_answer_each_record_is_there_once(
    made: Made, forwards: Forwards, box: Box, wire: Wire, small: None
) -> None:
    names, hq = devices("both"), entry(wire.port)
    made.save(*names)
    wire.faults = iter(["", "lost"] + [""] * 100)
    with pytest.raises(OSError, match="closed the connection"):
        run(forwards(hq))
    run(forwards(hq))
    assert there(box, "both-") == made.ledger.acknowledged


@pytest.mark.slow
def test_a_box_that_does_not_answer_is_left_and_tried_again(
    made: Made, forwards: Forwards, box: Box, wire: Wire
) -> None:
    names = devices("hang")
    made.save(*names)
    wire.faults = iter(["hang", ""])
    hq = forwards(entry(wire.port))
    with pytest.raises(OSError, match="timed out"):
        run(hq)
    run(hq)
    assert there(box, "hang-") == made.ledger.acknowledged


@pytest.mark.slow
def test_what_the_other_box_cannot_take_stops_or_is_skipped(
    made: Made, forwards: Forwards, box: Box, store: Store
) -> None:
    names = devices("skip", 5)
    for _ in range(3):
        made.save(*names)
    refuses_two = forwards(entry(box.tcp_port))
    target = refuses_two._delivery._target  # type: ignore[attr-defined]
    send, bad = target.send, msgspec.msgpack.encode({"device_id": "", "altitude_m": 1.0})

    def with_bad(batch: Batch) -> bool:
        items = [bad if b"skip-2" in item or b"skip-4" in item else item for item in batch.items]
        found: bool = send(batch._replace(items=items))
        return found

    target.send = with_bad
    with pytest.raises(RecordError, match="device_id"):
        run(refuses_two)
    skips = forwards(entry(box.tcp_port, on_refused="skip"))
    skipping = skips._delivery._target  # type: ignore[attr-defined]
    send, skipping.send = skipping.send, with_bad
    run(skips)
    assert {device for device, _ in there(box, "skip-")} == {"skip-0", "skip-1", "skip-3"}
    assert there(box, "skip-").total() == 9
    report = skips.report()
    assert (report.sent_records, report.refused_records) == (9, 6)


@pytest.mark.slow
def test_all_that_a_record_says_arrives(made: Made, forwards: Forwards, box: Box, store: Store) -> None:
    names = devices("same", 1)
    made.save(*names)
    run(forwards(entry(box.tcp_port)))
    [mine] = made.archive.open().to_pyarrow_table().to_pylist()
    page = box.http.get("/v1/records", params={"device_id": names[0], "start": "2000-01-01", "end": "2030-01-01"})
    [theirs] = page.json()["records"]
    assert theirs["timestamp"].startswith(mine["timestamp"].strftime("%Y-%m-%dT%H:%M:%S"))
    assert (theirs["altitude_m"], theirs["transport"]) == (mine["altitude_m"], "tcp")


@pytest.mark.slow
def test_a_box_that_asks_for_a_key_gets_it(made: Made, forwards: Forwards, tmp_path: Path) -> None:
    names = devices("key", 2)
    made.save(*names)
    with Box(tmp_path / "asks", auth__required="true") as asks:
        key, other = (asks.new_key("--scope", "ingest") for _ in range(2))
        with pytest.raises(SenderError, match="it requires another key"):
            run(forwards(entry(asks.tcp_port, on_refused="skip")))
        with pytest.raises(SenderError, match="it rejects the key"):
            run(forwards(entry(asks.tcp_port, on_refused="skip", key=key[:-5] + other[-5:])))
        run(forwards(entry(asks.tcp_port, key=key)))
        assert sum(shard["unsaved_records"] for shard in asks.json("status")["shards"]) == 2


@pytest.mark.slow
def test_a_connection_may_be_secured(made: Made, forwards: Forwards, box: Box, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    wire = Wire(box.tcp_port, context)
    made.save(*devices("tls", 2))
    url = f"whimbrels://localhost:{wire.port}"
    with pytest.raises(ssl.SSLCertVerificationError):
        run(forwards(entry(0, url=url)))
    run(forwards(entry(0, url=url, ca_file=str(tmp_path / "ca.pem"))))
    wire.close()
    assert there(box, "tls-") == made.ledger.acknowledged


def test_who_is_no_whimbrel_is_said(made: Made, forwards: Forwards) -> None:
    made.save("a")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        hq = forwards(entry(server.getsockname()[1]))
        with pytest.raises(SenderError, match="is not a Whimbrel"):
            run(hq)
        hq.close()
        thread.join()


def test_a_box_that_is_away_is_named(made: Made, forwards: Forwards) -> None:
    made.save("a")
    with pytest.raises(OSError, match=r"cannot reach 127\.0\.0\.1:9"):
        run(forwards(entry(9)))


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (msgpack_frames.BUSY, {"reason": "full"}, BusyError),
        (msgpack_frames.REFUSED, {"reason": "bad", "index": 0, "field": "latitude"}, RecordError),
        (msgpack_frames.ENDED, {"reason": "a frame of 9 bytes"}, SenderError),
    ],
)
def test_what_an_answer_means(status: int, detail: dict[str, object], kind: type[Exception]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                answer = msgspec.msgpack.encode([1, status, 0, detail])
                connection.sendall(len(answer).to_bytes(4, "big") + answer)

        thread = threading.Thread(target=speak)
        thread.start()
        target = Whimbrel(f"whimbrel://127.0.0.1:{server.getsockname()[1]}", WAIT_S, TlsFiles(), "", lambda _: None)
        with pytest.raises(kind, match=str(detail["reason"])):
            target.send(Batch("s", 1, [msgspec.msgpack.encode({"device_id": "a"})]))
        target.close()
        thread.join()
