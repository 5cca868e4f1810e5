"""Batches over HTTP, as JSON, NDJSON or msgpack, with or without an Idempotency-Key."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgpack

from benchmarks.crash_ledger.senders import ANSWER_TIMEOUT_S, Batch, Complain

FORMS: dict[str, tuple[str, Callable[[Sequence[dict[str, Any]]], bytes]]] = {
    "json": ("application/json", lambda records: json.dumps(records).encode()),
    "ndjson": ("application/x-ndjson", lambda records: "\n".join(map(json.dumps, records)).encode()),
    "msgpack": ("application/msgpack", lambda records: bytes(msgpack.packb(records))),
}

CUT_OFF_S = 0.001
"""Less than an fsync takes."""


class HttpWay:
    """Posts a batch to one of the box's ports, and to the next one if there was no answer."""

    window = 1

    def __init__(self, ports: Sequence[int], form: str, is_named: bool, is_packed: bool, complain: Complain) -> None:
        self.is_repeated = is_named
        self._urls = [f"http://127.0.0.1:{port}/v1/records" for port in ports]
        self._type, self._encode = FORMS[form]
        self._is_packed = is_packed
        self._complain = complain
        self._name = uuid.uuid4().hex
        self._tries = 0
        self._http = httpx.Client()

    def send(self, batches: Sequence[Batch], is_cut_off: bool) -> list[bool]:
        """Send one after another."""
        return [self._send(batch, is_cut_off) for batch in batches]

    def _send(self, batch: Batch, is_cut_off: bool) -> bool:
        body, headers = self._encode(batch.records), {"Content-Type": self._type}
        if self.is_repeated:
            headers["Idempotency-Key"] = f"{self._name}-{batch.number}"
        if self._is_packed:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        url = self._urls[self._tries % len(self._urls)]
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, read=CUT_OFF_S if is_cut_off else ANSWER_TIMEOUT_S)
        try:
            answer = self._http.post(url, content=body, headers=headers, timeout=timeout)
        except httpx.TransportError:
            self._tries += 1
            return False
        return self._is_stored(answer, len(batch.records))

    def _is_stored(self, answer: httpx.Response, records: int) -> bool:
        if answer.status_code == 202 and answer.json() == {"accepted": records}:
            return True
        if answer.status_code != 503 or not is_problem(answer):
            self._complain(f"{answer.status_code} {answer.text[:300]}")
        self._tries += 1
        return False

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def is_problem(answer: httpx.Response) -> bool:
    """Whether an answer of failure says so in the one form that they have."""
    if answer.headers.get("content-type") != "application/problem+json":
        return False
    try:
        found = answer.json()
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("status") == answer.status_code and bool(found.get("detail"))
