"""Records that the client sends are on the box once, whatever happens to connections and answers."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from itertools import product

import pytest

from tests.box import Box, free_ports
from tests.client.conftest import Kind
from tests.client.proxy import AFTER, BEFORE, Proxy
from whimbrel_client import BoxUnavailable, Client, Refused, RequestRefused, Sent, WriterClosed

pytestmark = pytest.mark.slow


def some(device: str, count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"device_id": device, "altitude_m": number} for number in range(first, first + count)]


def numbers(client: Client, device: str) -> list[float]:
    return [record["altitude_m"] for record in client.records(device_id=device)]


def test_what_was_sent_is_there(client: Client) -> None:
    at = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)
    record = {"device_id": "van-7", "time": at, "lat": 53.44, "lon": -2.93, "speed": 48.5, "fuel": 61}
    assert client.send([record]) == Sent(accepted=1)
    found = client.latest("van-7")
    assert (found["timestamp"], found["latitude"], found["longitude"]) == (at, 53.44, -2.93)
    assert (found["speed_kmh"], found["attributes"]) == (48.5, {"fuel": 61})
    assert found["position"]["timestamp"] == at
    assert found["last_seen"].utcoffset() is not None


def test_no_records(client: Client, proxy: Proxy) -> None:
    assert client.send([]) == Sent()
    assert proxy.requests == 0


def test_many_records_go_in_several_batches(client: Client, proxy: Proxy) -> None:
    assert client.send(some("many", 2_500)) == Sent(accepted=2_500)
    assert proxy.requests == 3
    assert numbers(client, "many") == list(range(2_500))


@pytest.mark.parametrize("cuts", [*product((BEFORE, AFTER), repeat=2)], ids="-".join)
def test_cut_connections_lose_and_double_nothing(client: Client, proxy: Proxy, cuts: tuple[str, ...]) -> None:
    device = "cut " + " ".join(cuts)
    client.send(some(device, 1))
    proxy.cut.extend([*cuts, "", *cuts])
    assert client.send(some(device, 1_700, 1)) == Sent(accepted=1_700)
    assert not proxy.cut
    assert numbers(client, device) == list(range(1_701))


def test_what_was_given_up_can_be_sent_again_and_is_there_once(kind: Kind, box: Box, proxy: Proxy) -> None:
    with kind(proxy.url, retry_for_s=0) as client:
        client.send(some("given up", 1))
        proxy.cut.append(AFTER)
        with pytest.raises(BoxUnavailable) as raised:
            client.send(some("given up", 1_500, 1))
        assert sum(batch.record_count for batch in raised.value.undelivered) == 1_500
        assert client.send(some("given up", 1, 2_000)) == Sent(accepted=1), "this one goes first"
        assert client.resend(raised.value.undelivered) == Sent(accepted=1_500)
        assert client.resend(raised.value.undelivered[:1]) == Sent(accepted=1_000), "as often as one likes"
        assert sorted(numbers(client, "given up")) == [*range(1_501), 2_000]


def test_refused_records_are_told_and_the_others_stored(client: Client) -> None:
    records = some("partly", 3)
    records[1] |= {"latitude": 91}
    records[2] |= {"no": "zone", "time": "yesterday"}
    sent = client.send(records)
    assert sent.accepted == 1
    [high, late] = sent.refused
    assert high == Refused(records[1], "must be between -90 and 90", "latitude", "urn:whimbrel:problem:invalid-record")
    assert (late.record, late.field) == (records[2], "timestamp")
    assert numbers(client, "partly") == [0]


def test_a_batch_of_bad_records_alone(client: Client) -> None:
    sent = client.send([{"device_id": "bad", "latitude": 91}, {"lat": 1, "lon": 2}])
    assert (sent.accepted, len(sent.refused)) == (0, 2)


def test_what_json_can_not_hold_is_refused_before_anything_is_sent(client: Client, proxy: Proxy) -> None:
    for bad in (float("nan"), {1, 2}, datetime(2026, 1, 1)):
        with pytest.raises((ValueError, TypeError)):
            client.send([*some("unsaid", 1), {"device_id": "unsaid", "value": bad}])
    assert proxy.requests == 0


def test_a_box_that_is_not_there(kind: Kind) -> None:
    with kind(f"http://127.0.0.1:{free_ports(1)[0]}", retry_for_s=0.5) as client:
        begun_s = time.monotonic()
        with pytest.raises(BoxUnavailable, match="cannot ask") as raised:
            client.send(some("nowhere", 1))
        assert time.monotonic() - begun_s < 10
        assert raised.value.status == 0


def test_what_is_no_whimbrel(kind: Kind, box: Box) -> None:
    with kind(f"http://127.0.0.1:{box.api_port}/docs", retry_for_s=0) as client, pytest.raises(RequestRefused):
        client.send(some("elsewhere", 1))


def test_threads_share_a_client(client: Client, proxy: Proxy) -> None:
    proxy.cut.extend([AFTER, BEFORE] * 3)
    threads = [
        threading.Thread(target=lambda first=first: client.send(some("threads", 10, first)))
        for first in range(0, 100, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(client, "threads")) == list(range(100))


# The writer ------------------------------------------------------------------------------------------


def test_a_writer_sends_what_is_left_at_its_end(client: Client, proxy: Proxy) -> None:
    with client.writer(max_records=100, max_delay_s=60) as writer:
        for record in some("written", 250):
            writer.write(record, lat=53.4, lon=-2.9)
    assert writer.totals == Sent(accepted=250)
    assert proxy.requests == 3
    assert numbers(client, "written") == list(range(250))
    with pytest.raises(WriterClosed):
        writer.write(device_id="written")


def test_a_writer_waits_no_longer_than_told(client: Client) -> None:
    with client.writer(max_records=1_000, max_delay_s=0.2) as writer:
        writer.write(device_id="soon", altitude_m=0)
        until_s = time.monotonic() + 20
        while not writer.totals.accepted and time.monotonic() < until_s:
            time.sleep(0.05)
        assert numbers(client, "soon") == [0]


def test_flush(client: Client) -> None:
    with client.writer(max_delay_s=60) as writer:
        writer.write(device_id="flushed", altitude_m=0)
        assert writer.flush() == Sent(accepted=1)
        assert numbers(client, "flushed") == [0]
        assert writer.flush() == Sent(accepted=1)


def test_a_writer_tells_of_refused_records(client: Client) -> None:
    heard: list[Refused] = []
    with client.writer(on_refused=heard.extend) as writer:
        writer.write(device_id="told", altitude_m=0)
        writer.write(device_id="told", latitude=91)
    assert [one.field for one in heard] == ["latitude"]
    assert writer.totals == Sent(1, tuple(heard))


def test_a_writer_that_fails_says_so_and_has_what_is_left(kind: Kind, box: Box, proxy: Proxy) -> None:
    with kind(proxy.url, retry_for_s=0) as client:
        writer = client.writer(max_records=10, max_delay_s=60)
        proxy.cut.append(AFTER)
        with pytest.raises(BoxUnavailable):  # noqa: PT012
            for record in some("failed", 10_000):
                writer.write(record)
        with pytest.raises(BoxUnavailable):
            writer.close()
        client.resend(writer.unsent)
        found = numbers(client, "failed")
        assert found == list(range(len(found)))
        assert len(found) >= 10
