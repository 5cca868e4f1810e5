"""Who is let in, by what stands in a request."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from telemetry.access.key_cache import Keyring
from telemetry.coordination.shared_state import Stamp
from telemetry.http import authentication
from telemetry.http.authentication import INGEST, OPEN, READ, READ_WHOLE, Gate, Need, caller_of
from telemetry.model import api_keys
from telemetry.model.api_keys import ANONYMOUS_CALLER, OPEN_CALLER, Key, KeyRequest, make
from telemetry.model.errors import StoreUnavailable

NOW_S = 1_795_500_000


def made(*scopes: str, **more: Any) -> tuple[str, Key]:
    return make(KeyRequest(scopes, **more), NOW_S, secrets.token_bytes)


READING, READ_KEY = made("read")
BOUND, BOUND_KEY = made("ingest", "read", prefix="van-")
FLEET, FLEET_KEY = made("ingest", is_fleet=True)
OLD, OLD_KEY = made("read", expires_s=NOW_S + 1)
KNOWN = {key.id: key for key in (READ_KEY, BOUND_KEY, FLEET_KEY, OLD_KEY)}


def keyring() -> Keyring:
    found = Keyring(lambda _: (Stamp(b"", 0), KNOWN), lambda: NOW_S + 5.0, lambda: 0.0)
    found.refresh()
    return found


class Asked:
    """What came of a request."""

    def __init__(self) -> None:
        self.behind: Scope = {}
        self.sent: list[Message] = []

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent else 200

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    @property
    def problem(self) -> str:
        return str(json.loads(self.sent[1]["body"])["type"]).rpartition(":")[2]


def ask(
    headers: dict[str, str] | None = None,
    query: str = "",
    need: Need = READ,
    ring: Callable[[], Keyring | None] = keyring,
) -> Asked:
    asked = Asked()

    async def behind(scope: Scope, _receive: Receive, _send: Send) -> None:
        asked.behind = scope

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        asked.sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    asyncio.run(Gate(behind, ring(), lambda _: need)(scope, receive, send))
    return asked


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": f"Bearer {READING}"}, ""),
        ({"authorization": f"bearer  {READING} "}, ""),
        ({"Authorization": f"Token {READING}"}, ""),
        (basic("phone", READING), ""),
        (basic("", READING), ""),
        (basic(READING, ""), ""),
        ({}, f"token={READING}"),
        ({}, f"a=1&token={READING}&b=2"),
        ({}, f"u=telegraf&p={READING}"),
    ],
    ids=["bearer", "spaces", "token", "basic", "no user", "user only", "query", "among", "influx"],
)
def test_a_key_may_stand_here(headers: dict[str, str], query: str) -> None:
    asked = ask(headers, query)
    assert asked.status == 200
    assert caller_of(asked.behind).key_id == READ_KEY.id
    assert READING.encode() not in asked.behind["query_string"]
    assert authentication.key_in(asked.behind["headers"]) == READING


@pytest.mark.parametrize(
    ("headers", "query", "need", "status", "kind"),
    [
        ({}, "", READ, 401, "no-key"),
        ({}, "a=1", READ, 401, "no-key"),
        ({"Authorization": "Digest x"}, "", READ, 401, "no-key"),
        ({"Authorization": "Basic %"}, "", READ, 401, "no-key"),
        ({"Authorization": "Bearer " + READING[:-1] + "-"}, "", READ, 401, "wrong-key"),
        ({}, "token=nonsense", READ, 401, "wrong-key"),
        ({"Authorization": f"Bearer {OLD}"}, "", READ, 401, "wrong-key"),
        (basic("phone", "hunter2"), "", READ, 401, "wrong-key"),
        ({"Authorization": f"Bearer {READING}"}, "", INGEST, 403, "wrong-scope"),
        ({"Authorization": f"Bearer {BOUND}"}, "", READ_WHOLE, 403, "wrong-scope"),
        ({"Authorization": "Bearer " + api_keys.device_token(FLEET, "van-7")}, "", READ, 403, "wrong-scope"),
    ],
    ids=[
        "none",
        "other parameter",
        "digest",
        "no base64",
        "wrong secret",
        "nonsense",
        "expired",
        "password",
        "writes",
        "bound",
        "token",
    ],
)
def test_nothing_else_is_let_in(headers: dict[str, str], query: str, need: Need, status: int, kind: str) -> None:
    asked = ask(headers, query, need)
    assert (asked.status, asked.problem) == (status, kind)
    assert not asked.behind
    challenges = [value for name, value in asked.headers if name == b"www-authenticate"]
    assert len(challenges) == (2 if status == 401 else 1)
    assert all(value.startswith((b"Bearer ", b"Basic ")) for value in challenges)


def test_a_bound_key_is_known_with_its_devices() -> None:
    asked = ask({"Authorization": f"Bearer {BOUND}"}, need=INGEST)
    assert caller_of(asked.behind).binding.prefix == "van-"
    asked = ask({"Authorization": "Bearer " + api_keys.device_token(FLEET, "van-7")}, need=INGEST)
    assert caller_of(asked.behind).device == "van-7"


def test_what_is_open_asks_nobody() -> None:
    assert caller_of(ask(need=OPEN).behind) is ANONYMOUS_CALLER
    glance = Need("read", is_open=True)
    assert caller_of(ask(need=glance).behind) is ANONYMOUS_CALLER
    assert caller_of(ask({"Authorization": "Bearer wrong"}, need=glance).behind) is ANONYMOUS_CALLER
    assert caller_of(ask({"Authorization": f"Bearer {READING}"}, need=glance).behind).may("read")


def test_without_keys_all_are_let_in_and_a_token_is_still_taken_out() -> None:
    asked = ask(query=f"id=van-7&token={READING}&lat=1", ring=lambda: None)
    assert caller_of(asked.behind) is OPEN_CALLER
    assert asked.behind["query_string"] == b"id=van-7&lat=1"


def test_while_keys_can_not_be_told_apart_all_wait() -> None:
    def away(_: Stamp | None) -> tuple[Stamp, None]:
        raise StoreUnavailable("away")

    asked = ask({"Authorization": f"Bearer {READING}"}, ring=lambda: Keyring(away))
    assert (asked.status, asked.problem) == (503, "busy")
    assert (b"retry-after", b"2") in asked.headers


class Growing:
    """Keys of which one more was created after the first read; Redis may be away by then."""

    def __init__(self, is_away: bool = False) -> None:
        self.is_away = is_away
        self.reads = 0

    def read(self, _: Stamp | None) -> tuple[Stamp, dict[str, Key]]:
        self.reads += 1
        if self.reads == 1:
            return Stamp(b"", 0), {}
        if self.is_away:
            raise StoreUnavailable("away")
        return Stamp(b"", 1), KNOWN

    def ring(self) -> Keyring:
        found = Keyring(self.read, lambda: NOW_S, lambda: 0.0)
        found.refresh()
        return found


def test_a_key_that_was_just_created_is_let_in() -> None:
    keys_read = Growing()
    asked = ask({"Authorization": f"Bearer {READING}"}, ring=keys_read.ring)
    assert asked.status == 200
    assert caller_of(asked.behind).key_id == READ_KEY.id
    asked = ask(query=f"token={api_keys.device_token(FLEET, 'van-7')}", need=INGEST, ring=Growing().ring)
    assert caller_of(asked.behind).device == "van-7"
    assert ask({"Authorization": f"Bearer {BOUND}"}, need=READ_WHOLE, ring=Growing().ring).problem == "wrong-scope"


def test_a_key_that_cannot_be_looked_up_is_not_called_wrong() -> None:
    asked = ask({"Authorization": f"Bearer {READING}"}, ring=Growing(is_away=True).ring)
    assert (asked.status, asked.problem) == (503, "busy")
    assert (b"retry-after", b"2") in asked.headers


def test_what_is_no_key_or_needs_none_causes_no_look_up() -> None:
    for headers, need in (({"Authorization": "Bearer x"}, READ), ({"Authorization": f"Bearer {READING}"}, OPEN)):
        keys_read = Growing()
        ask(headers, need=need, ring=keys_read.ring)
        assert keys_read.reads == 1


@given(
    st.lists(st.tuples(st.sampled_from(["a", "token", "p", "u", "tokens", "%74oken"]), st.text(max_size=5)), max_size=6)
)
@hypothesis_settings(deadline=None)
def test_the_rest_of_a_query_stays_as_it_is(pairs: list[tuple[str, str]]) -> None:
    parts = [f"{name}={value.encode().hex()}" for name, value in pairs]
    asked = ask(query="&".join(parts), ring=lambda: None)
    kept = [part for part in parts if not part.startswith(("token=", "%74oken="))]
    assert asked.behind["query_string"].decode() == "&".join(kept)
