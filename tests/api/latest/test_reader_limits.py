"""Limits on readers of `/v1/live`: in total, by key, by address; counted from their admission."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from api.latest.reader_limits import Readers
from telemetry.http.authentication import CALLER
from telemetry.http.problem_responses import ProblemError
from telemetry.limits.client_address import Addresses
from telemetry.model.api_keys import Caller

PROXY = "10.0.0.1"
ADDRESSES = Addresses((PROXY,), "x-forwarded-for")


def scope(address: str = "192.0.2.1", key: str = "", hop: str = "") -> dict[str, Any]:
    headers = [(b"x-forwarded-for", hop.encode())] if hop else []
    return {"client": (address, 1), "headers": headers, CALLER: Caller(key, frozenset())}


@pytest.mark.parametrize(
    ("readers", "other"),
    [
        (Readers(ADDRESSES, 2), None),
        (Readers(ADDRESSES, 9, per_key=2), scope("192.0.2.2", "other")),
        (Readers(ADDRESSES, 9, per_address=2), scope("192.0.2.2", "key")),
    ],
    ids=["total", "by key", "by address"],
)
def test_one_reader_too_many_is_rejected(readers: Readers, other: dict[str, Any] | None) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(readers.admitted(scope(key="key")))
        with pytest.raises(ProblemError, match="too many readers of /v1/live") as refused:
            stack.enter_context(readers.admitted(scope(key="key")))
        assert refused.value.headers == {"Retry-After": "5"}
        assert readers.count == 2
        if other is not None:
            stack.enter_context(readers.admitted(other))
    assert readers.count == 0
    with readers.admitted(scope(key="key")):
        assert readers.count == 1


def test_clients_of_a_proxy_are_counted_separately() -> None:
    readers = Readers(ADDRESSES, 9, per_address=1)
    with readers.admitted(scope(PROXY, hop="192.0.2.1")), readers.admitted(scope(PROXY, hop="192.0.2.2")):
        with pytest.raises(ProblemError), readers.admitted(scope(PROXY, hop="192.0.2.2")):
            pass
        with readers.admitted(scope(PROXY)), readers.admitted(scope(PROXY)):
            assert readers.count == 4


def test_readers_without_a_key_are_not_counted_by_key() -> None:
    readers = Readers(ADDRESSES, 9, per_key=1)
    with readers.admitted(scope()), readers.admitted(scope()):
        assert readers.count == 2
