"""The crash ledger's readers against servers that lie: each lie is an anomaly, and an honest refusal is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.crash_ledger.ledger import Entry, Ledger
from benchmarks.crash_ledger.readers import Pages, Range
from benchmarks.crash_ledger.senders import payload

DAY_US = 1_795_500_000_000_000
PROBLEM = {"type": "urn:whimbrel:problem:busy", "title": "Busy", "status": 503, "detail": "Redis is away"}

Answer = tuple[int, str, bytes]
Serve = Callable[..., Pages]


def record(entry: Entry, number: int) -> dict[str, Any]:
    found = payload(entry)
    return {
        "device_id": found["device_id"],
        "timestamp": found["timestamp"],
        "altitude_m": float(found["altitude"]),
        "attributes": {"key": found["key"]},
        "id": number,
    }


def page(*records: dict[str, Any], cursor: str | None = None) -> Answer:
    return 200, "application/json", json.dumps({"records": records, "next_cursor": cursor}).encode()


def problem(status: int = 503, media: str = "application/problem+json", **more: object) -> Answer:
    return status, media, json.dumps(PROBLEM | {"status": status} | more).encode()


@pytest.fixture
def ledger() -> Ledger:
    """Three records, all acknowledged."""
    found = Ledger()
    for number in range(3):
        found.will_send(Entry(f"a#{number}", "a", DAY_US + number, number))
    found.acknowledge(found.entries)
    return found


@pytest.fixture
def serve(ledger: Ledger) -> Iterator[Serve]:
    """Starts a server that gives these answers, one after another, and returns pages of it."""
    servers: list[tuple[ThreadingHTTPServer, Pages]] = []

    def start(*answers: Answer, is_slow: bool = False) -> Pages:
        left = iter(answers)

        class Lies(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, media, body = next(left)
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Lies)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        pages = Pages(server.server_port, ledger, threading.Event(), is_slow)
        servers.append((server, pages))
        return pages

    yield start
    for server, pages in servers:
        pages.close()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("is_slow", [False, True])
def test_whole_pages_and_honest_refusals_are_fine(is_slow: bool, ledger: Ledger, serve: Serve) -> None:
    one, two, three = (record(entry, number + 1) for number, entry in enumerate(ledger.entries))
    pages = serve(problem(), page(one, two, cursor="1-1"), problem(), page(three), is_slow=is_slow)
    found = pages.check(Range())
    assert found is not None
    assert [row.key for row in found] == ["a#0", "a#1", "a#2"]
    assert (pages.read, pages.refused, pages.sets) == (2, 2, 1)
    assert not ledger.anomalies


def test_what_is_missing_doubled_out_of_order_or_outside(ledger: Ledger, serve: Serve) -> None:
    one, two, three = (record(entry, number + 1) for number, entry in enumerate(ledger.entries))
    serve(page(one, three)).check(Range())
    assert ledger.anomalies == {"not on pages": 1}
    serve(page(one, two, three, cursor="1-1"), page(three)).check(Range())
    assert ledger.anomalies == {"not on pages": 1, "twice on pages": 1, "order of pages": 1}
    serve(page(two, one, three)).check(Range())
    assert ledger.anomalies["order of pages"] == 2
    serve(page(one, two, three)).check(Range("a", DAY_US, DAY_US + 2))
    assert ledger.anomalies["outside the range"] == 1


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ((200, "application/json", b'{"records": [{"device_id": "a", '), "page cut short"),
        (problem(500), "wrong answer to a reader"),
        (problem(media="text/plain"), "wrong answer to a reader"),
        (problem(detail=""), "wrong answer to a reader"),
        (problem(type="urn:whimbrel:problem:not-together"), "not together"),
    ],
)
def test_no_answer_but_a_whole_page_or_an_honest_refusal(lie: Answer, kind: str, ledger: Ledger, serve: Serve) -> None:
    all_records = [record(entry, number + 1) for number, entry in enumerate(ledger.entries)]
    serve(lie, page(*all_records)).check(Range())
    assert ledger.anomalies == {kind: 1}
