"""Changes of latest as the client gives them out, over breaks and restarts."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC
from typing import Any

import pytest

from tests.box import Box
from tests.client.conftest import Kind
from tests.client.proxy import Proxy
from tests.senders import wait_until
from whimbrel_client import Client, RequestRefused
from whimbrel_client.events import Following

pytestmark = pytest.mark.slow


def test_changes_go_on_behind_a_break(kind: Kind, box: Box, proxy: Proxy) -> None:
    with kind(proxy.url) as client, Client(f"http://127.0.0.1:{box.api_port}") as device:
        device.send([{"device_id": "live", "altitude_m": 0}, {"device_id": "still", "altitude_m": 0}])
        with closing(client.live(device_id=["live", "still"], interval_ms=100)) as states:
            first = [next(states), next(states)]
            assert {one["device_id"] for one in first} == {"live", "still"}
            assert all(one["timestamp"].tzinfo == UTC for one in first)
            for number in range(1, 6):
                if number % 2:
                    proxy.cut_all()
                device.send([{"device_id": "live", "altitude_m": number}])
                state = next(states)
                while state["device_id"] == "still":  # where a reader was can't be told: all comes again
                    state = next(states)
                assert (state["device_id"], state["altitude_m"]) == ("live", number)


def test_a_new_connection_says_what_was_seen_last(proxy: Proxy) -> None:
    following = Following()
    assert "Last-Event-ID" not in following.headers
    event = b'event: latest\r\ndata: {"records":[{"device_id":"a"},{"device_id":"b"}]}\r\nid: x-7\r\n\r\n'
    given = following.feed(event)
    assert next(given)["device_id"] == "a"
    following.began_anew()
    assert "Last-Event-ID" not in following.headers, "half an event was given out"
    assert [one["device_id"] for one in following.feed(event)] == ["a", "b"]
    assert following.headers["Last-Event-ID"] == "x-7"
    assert list(following.feed(b": a heartbeat\n\nid: x-8\n")) == []
    following.began_anew()
    assert following.headers["Last-Event-ID"] == "x-7"


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_events_come_in_any_pieces(size: int) -> None:
    text = 'retry: 1000\n: nothing has changed\nevent: latest\ndata: {"records":[{"device_id":"ä"}]}\nid: e-1\n\n'
    data, following = f'{text}data: {{"records":\ndata:[]}}\n\n'.encode(), Following()
    found: list[dict[str, Any]] = []
    for begin in range(0, len(data), size):
        found += following.feed(data[begin : begin + size])
    assert found == [{"device_id": "ä"}]
    assert following.headers["Last-Event-ID"] == "e-1"


def test_a_question_that_is_refused(kind: Kind, box: Box) -> None:
    with kind(f"http://127.0.0.1:{box.api_port}") as client, pytest.raises(RequestRefused, match="bbox"):
        next(client.live(bbox=(1, 2)))


def readers(box: Box) -> int:
    """How many read changes."""
    lines = re.findall(r"^whimbrel_live_readers(?:\{.*\})? (\d+)", box.http.get("/metrics").text, re.M)
    return sum(int(line) for line in lines)


def test_leaving_ends_the_connection(kind: Kind, box: Box, proxy: Proxy) -> None:
    with kind(proxy.url) as client:
        client.send([{"device_id": "left"}])
        with closing(client.live(device_id="left")) as states:
            assert next(states)["device_id"] == "left"
            wait_until(lambda: readers(box) == 1, 20)
        wait_until(lambda: readers(box) == 0, 20)
