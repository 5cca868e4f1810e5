"""What the client reads is what the box has, in whole answers and as the types that it promises."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.box import Box
from tests.client.conftest import Kind
from tests.client.proxy import AMID, Proxy
from whimbrel_client import (
    AnswerBrokenOff,
    AnswerTruncated,
    BoxUnavailable,
    Client,
    KeyRefused,
    NotFound,
    RateLimited,
    RequestRefused,
    web,
)

pytestmark = pytest.mark.slow

DAY = date(2026, 11, 24)
BEGIN = datetime(2026, 11, 24, 10, tzinfo=UTC)
RECORDS = [
    {
        "device_id": f"bus {number % 3}/4",
        "time": BEGIN + timedelta(seconds=number * 10),
        "lat": 53.4 + number / 1_000,
        "lon": -2.9,
        "speed": 40,
        "fuel": 60,
    }
    for number in range(300)
]


@pytest.fixture(scope="module", autouse=True)
def _sent(kind: Kind, box: Box) -> None:
    with kind(f"http://127.0.0.1:{box.api_port}") as client:
        assert client.send(RECORDS).accepted == 300
    box.json("drain")
    with kind(f"http://127.0.0.1:{box.api_port}") as client:
        client.send([{"device_id": "tail", "time": BEGIN, "attributes": {"start": "as sent"}}])


def test_records_of_all_pages(client: Client, proxy: Proxy) -> None:
    found = list(client.records(DAY, DAY, limit=100))
    assert proxy.requests == 4
    assert len(found) == 301
    assert found[0]["timestamp"] == BEGIN
    assert found[-1]["timestamp"] == BEGIN + timedelta(seconds=2_990)
    [tail] = client.records(device_id="tail")
    assert tail["attributes"] == {"start": "as sent"}, "what a device sent is no time"


def test_a_page_whose_answer_breaks_off_is_asked_again(client: Client, proxy: Proxy) -> None:
    proxy.cut.extend(["", AMID])
    assert len(list(client.records(DAY, DAY, limit=100))) == 301
    assert proxy.requests == 5


def test_a_box_elsewhere_compresses_and_one_on_this_machine_does_not(
    kind: Kind, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = []
    for is_here in (True, False):
        monkeypatch.setattr(web, "_is_loopback", lambda _host, is_here=is_here: is_here)
        with Proxy(box.api_port) as proxy, kind(proxy.url) as client:
            proxy.cut.extend(["", AMID])
            assert len(list(client.records(DAY, DAY, limit=100))) == 301
            assert client.arrow(DAY, DAY).num_rows == 301
            assert proxy.requests == 6
        read_bytes.append(sum(proxy.received))
    assert read_bytes[0] > 4 * read_bytes[1]


@pytest.mark.parametrize(
    ("host", "headers"), [("localhost", 1), ("127.3.2.1", 1), ("[::1]", 1), ("box.example", 0), ("10.0.0.1", 0)]
)
def test_hosts_on_this_machine(host: str, headers: int) -> None:
    assert len(web.Reached(f"http://{host}:8000", None, 1.0, None).headers) == headers


def test_parameters(client: Client) -> None:
    end = BEGIN + timedelta(minutes=1)
    assert len(list(client.records(BEGIN, end))) == 7
    assert len(list(client.records(BEGIN, end, device_id=["bus 0/4", "tail"]))) == 3
    assert len(list(client.records(bbox=(-3, 53.4, -2, 53.4095)))) == 10
    assert len(list(client.records(DAY, DAY, every="5m", device_id="bus 0/4"))) == 10
    with pytest.raises(ValueError, match="no time zone"):
        list(client.records(datetime(2026, 11, 24)))


def test_latest(client: Client) -> None:
    found = client.latest("bus 2/4")
    assert found["timestamp"] == RECORDS[-1]["time"]
    assert {one["device_id"] for one in client.latest_all()} == {"bus 0/4", "bus 1/4", "bus 2/4", "tail"}
    assert len(list(client.latest_all(device_id=["tail", "nobody"]))) == 1
    with pytest.raises(NotFound, match="nobody") as raised:
        client.latest("nobody")
    error = raised.value
    assert (error.type, error.status) == ("urn:whimbrel:problem:unknown-device", 404)
    assert error.title
    assert error.detail


def test_devices_trips_stops_and_a_summary(client: Client) -> None:
    devices = {one["device_id"]: one for one in client.devices()}
    assert devices["bus 0/4"]["records"] == 100
    assert devices["bus 0/4"]["first_seen"].utcoffset() == timedelta(0)
    trips = list(client.trips(DAY, DAY, device_id="bus 1/4"))
    assert [one["start"] for one in trips] == [BEGIN + timedelta(seconds=10)]
    assert list(client.stops(DAY, DAY, device_id="bus 1/4")) == []
    hours = list(client.summary(DAY, DAY, every="10m", device_id="bus 0/4"))
    assert sum(one["count"] for one in hours) == 100
    assert hours[0]["start"] == hours[0]["first"] == BEGIN


def test_tables(client: Client) -> None:
    table = client.arrow(DAY, DAY)
    assert table.num_rows == 301
    assert table.schema.field("timestamp").type.tz == "UTC"
    frame = client.pandas(DAY, DAY, device_id="bus 0/4")
    assert len(frame) == 100
    assert frame["timestamp"].iloc[0].to_pydatetime() == BEGIN
    polars = client.polars(DAY, DAY, device_id=["bus 0/4", "bus 1/4"])
    assert polars.height == 200
    assert client.arrow("2020-01-01", "2020-01-01").num_rows == 0


def test_an_export_that_breaks_off_raises(client: Client, proxy: Proxy) -> None:
    proxy.cut.append(AMID)
    with pytest.raises(AnswerBrokenOff):
        client.arrow(DAY, DAY)
    assert client.arrow(DAY, DAY).num_rows == 301


def test_sql(client: Client) -> None:
    table = client.sql("SELECT device_id, count(*) AS records FROM records GROUP BY ALL ORDER BY ALL")
    assert table.to_pylist()[0] == {"device_id": "bus 0/4", "records": 100}
    with pytest.raises(RequestRefused, match="nowhere") as raised:
        client.sql("SELECT * FROM nowhere")
    assert raised.value.type == "urn:whimbrel:problem:invalid-sql"
    with pytest.raises(AnswerTruncated) as cut:
        client.sql("SELECT * FROM range(10_000_000)")
    assert cut.value.table.num_rows > 0


def test_what_is_refused_names_the_box_s_reason(client: Client) -> None:
    with pytest.raises(RequestRefused, match="speeed") as raised:
        list(client.records(speeed=1))
    assert raised.value.members["parameter"] == "speeed"


def test_a_box_that_is_away(kind: Kind, proxy: Proxy) -> None:
    with kind(proxy.url, retry_for_s=0) as client:
        proxy.cut.append(AMID)
        with pytest.raises(AnswerBrokenOff):
            list(client.records())
        proxy.cut.append("before")
        with pytest.raises(BoxUnavailable):
            client.latest("tail")


def test_keys_and_rates(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Box(
        tmp_path_factory.mktemp("guarded"),
        auth__required="true",
        limits__address_records_per_s="20",
        limits__address_records_burst="20",
    ) as box:
        url = f"http://127.0.0.1:{box.api_port}"
        key = box.new_key("--scope", "ingest", "--prefix", "van-")
        with kind(url) as nobody, pytest.raises(KeyRefused, match="key") as raised:
            nobody.send([{"device_id": "van-1"}])
        assert raised.value.status == 401
        assert raised.value.undelivered[0].records == [{"device_id": "van-1"}]
        with kind(url, "wk_wrong") as wrong, pytest.raises(KeyRefused):
            list(wrong.latest_all())
        with kind(url, key) as client:
            sent = client.send([{"device_id": "van-1"}, {"device_id": "bus-1"}])
            assert sent.accepted == 1
            assert [one.record["device_id"] for one in sent.refused] == ["bus-1"]
            with pytest.raises(KeyRefused):
                client.latest("van-1")
            for _ in range(3):  # 60 records, of which 20 a second may come: 429 in between
                assert client.send([{"device_id": "van-1"}] * 20).accepted == 20
        with kind(url, key, retry_for_s=0) as hasty, pytest.raises(RateLimited) as limited:  # noqa: PT012
            for _ in range(3):
                hasty.send([{"device_id": "van-1"}] * 20)
        assert limited.value.retry_after_s >= 1


def test_tables_are_loaded_when_asked_for() -> None:
    code = "import sys, whimbrel_client; print({'pyarrow', 'pandas', 'polars', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
