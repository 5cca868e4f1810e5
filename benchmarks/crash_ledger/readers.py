"""Readers: sets of pages over ranges and devices that are drawn, each set held against the ledger."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx

from benchmarks.crash_ledger.http_sender import is_problem
from benchmarks.crash_ledger.ledger import Entry, Ledger, Row
from benchmarks.crash_ledger.senders import DAYS

DAY_US = 86_400_000_000
PAUSE_S = 0.2
SLOW_CHUNK_BYTES = 65_536
SLOW_PAUSE_S = 0.04
"""What a slow reader takes at once, and between: programs die in the middle of its long pages."""

TIMEOUT_S = 30.0
MOST_RECORDS = 50_000
SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)]
"""The system would else take megabytes of an answer ahead of a slow reader."""


class Range(NamedTuple):
    """What a set of pages is asked for."""

    device_id: str | None = None
    start_us: int = 0
    end_us: int = 2**53
    is_descending: bool = False
    limit: int = 5_000

    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {"limit": self.limit, "order": "desc" if self.is_descending else "asc"}
        if self.device_id is not None:
            found["device_id"] = self.device_id
        if self.start_us:
            found |= {"start": _iso(self.start_us), "end": _iso(self.end_us)}
        return found

    def holds(self, device_id: str, timestamp_us: int) -> bool:
        return self.start_us <= timestamp_us < self.end_us and self.device_id in (None, device_id)


class Pages:
    """Asks for sets of pages; what isn't answered is asked again, from the same cursor."""

    def __init__(self, port: int, ledger: Ledger, stopping: threading.Event, is_slow: bool = False) -> None:
        self.is_slow = is_slow
        self.read = self.refused = self.sets = 0
        transport = httpx.HTTPTransport(socket_options=SMALL_BUFFER if is_slow else None)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, transport=transport)
        self._ledger = ledger
        self._stopping = stopping

    def check(self, wanted: Range) -> list[Row] | None:
        """Read a set and hold it against the ledger. Returns its rows; None if told to stop before its end."""
        since_s = time.monotonic()
        rows = self._all(wanted)
        if rows is None:
            return None
        self.sets += 1
        place = f"{wanted}"
        found = Counter(row.key for row in rows)
        now_s = time.monotonic()
        for row in rows:
            if not wanted.holds(row.device_id, row.timestamp_us):
                self._ledger.anomaly("outside the range", f"{place}: {row}")
        for key, count in found.items():
            if count > 1:
                self._ledger.anomaly("twice on pages", f"{place}: {key} {count} times")
        for entry in list(self._ledger.entries):
            is_wanted = wanted.holds(entry.device_id, entry.timestamp_us) and self._ledger.is_kept(entry)
            if is_wanted and entry.must_show(since_s) and not found[entry.key]:
                self._ledger.anomaly("not on pages", f"{place}: {entry}, read from {since_s} to {now_s}")
        return rows

    def _all(self, wanted: Range) -> list[Row] | None:
        rows: list[Row] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self._page(wanted.parameters() | ({"cursor": cursor} if cursor else {}))
            if page is None:
                return None
            new = [_row(record) for record in page["records"]]
            for row in new:
                self._see(self._ledger.check(row, "a page"))
            rows += new
            cursor = page["next_cursor"]
        places = [(row.timestamp_us, row.id) for row in rows]
        if places != sorted(set(places), reverse=wanted.is_descending):
            self._ledger.anomaly("order of pages", f"{wanted}: {len(places)} rows")
        return rows

    @staticmethod
    def _see(entry: Entry | None) -> None:
        if entry is not None:
            entry.seen_s = min(entry.seen_s, time.monotonic())

    def _page(self, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """One page, asked for until it is there. A failure must be a clear one; an answer that breaks off is clear."""
        while not self._stopping.is_set():
            try:
                answer = self._ask(parameters)
            except httpx.TransportError:
                self.refused += 1
            else:
                if (page := self._whole(answer)) is not None:
                    self.read += 1
                    return page
                self.refused += 1
            self._stopping.wait(PAUSE_S)
        return None

    def _ask(self, parameters: dict[str, Any]) -> httpx.Response:
        if not self.is_slow:
            return self._http.get("/v1/records", params=parameters)
        with self._http.stream("GET", "/v1/records", params=parameters) as answer:
            chunks = []
            for chunk in answer.iter_raw(SLOW_CHUNK_BYTES):
                chunks.append(chunk)
                self._stopping.wait(SLOW_PAUSE_S)
        return httpx.Response(answer.status_code, headers=answer.headers, content=b"".join(chunks))

    def _whole(self, answer: httpx.Response) -> dict[str, Any] | None:
        if answer.status_code == 503 and is_problem(answer):
            if "not-together" in answer.json()["type"]:
                self._ledger.anomaly("not together", answer.text)
            return None
        if answer.status_code != 200:
            self._ledger.anomaly("wrong answer to a reader", f"{answer.status_code} {answer.text[:300]}")
            return None
        try:
            page = answer.json()
        except ValueError:
            self._ledger.anomaly("page cut short", f"{len(answer.content)} bytes that look whole")
            return None
        return page if isinstance(page, dict) else None

    def close(self) -> None:
        """Hang up."""
        self._http.close()


class Reader(threading.Thread):
    """Checks set after set until told to stop."""

    def __init__(self, name: str, pages: Pages, rng: random.Random, devices: Sequence[str]) -> None:
        super().__init__(name=name, daemon=True)
        self.pages = pages
        self._rng = rng
        self._devices = devices

    def run(self) -> None:
        while self.pages.check(self._drawn()) is not None:
            time.sleep(PAUSE_S)
        self.pages.close()

    def _drawn(self) -> Range:
        """A range of some seconds to two days, of all devices or of one; all there is for a slow reader."""
        if self.pages.is_slow:
            return Range(limit=MOST_RECORDS)
        now_us = time.time_ns() // 1_000
        is_descending = self._rng.random() < 0.3
        if self._rng.random() < 0.3:
            return Range(self._rng.choice(self._devices), is_descending=is_descending, limit=self._rng.randint(3, 100))
        end_us = now_us - self._rng.randrange(DAYS) * DAY_US + 1_000_000
        length_us = self._rng.choice((10_000_000, 60_000_000, DAY_US + 60_000_000))
        return Range(None, end_us - length_us, end_us, is_descending, self._rng.randint(200, 2_000))


def _row(record: dict[str, Any]) -> Row:
    at = datetime.fromisoformat(record["timestamp"])
    key = (record["attributes"] or {}).get("key", "")
    seconds = round((at.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return Row(key, record["device_id"], seconds * 1_000_000 + at.microsecond, record["altitude_m"], record["id"])


def _iso(us: int) -> str:
    whole = datetime.fromtimestamp(us // 1_000_000, UTC)
    return whole.replace(microsecond=us % 1_000_000).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
