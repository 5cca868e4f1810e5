"""Who asks, as the query program learns it; and what slow clients of forwarded answers keep others from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.execution.client_pace import MinimumPace
from api.query_proxy import connection_pool
from api.query_proxy.forward import QueryProxy
from api.requests.asker import THE_BOX, Asker, KnowsAsker, asker_of, current_asker
from api.requests.query_headers import ADDRESS
from telemetry.http.authentication import CALLER
from telemetry.limits.client_address import Addresses
from telemetry.model.api_keys import Caller

PROXIED = Addresses(("192.0.2.0/24",), "x-forwarded-for")
BIG = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1_000


def scope_of(peer: str, *headers: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": "/v1/records",
        "raw_path": b"/v1/records",
        "query_string": b"",
        "headers": [(b"host", b"box"), *headers],
        "client": (peer, 1),
        "server": ("box", 1),
    }


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", b"198.51.100.1", "203.0.113.9"),
        ("2001:db8::1", b"", "2001:db8::/64"),
        ("192.0.2.1", b"198.51.100.1", "198.51.100.1"),
        ("192.0.2.1", b"", ""),  # whoever asks through it would have to share one share
    ],
)
def test_an_address_is_that_of_the_client_as_far_as_proxies_are_trusted(
    peer: str, forwarded: bytes, address: str
) -> None:
    scope = scope_of(peer, (b"x-forwarded-for", forwarded))
    scope[CALLER] = Caller("abcdefgh", frozenset())
    assert asker_of(scope, PROXIED) == Asker("abcdefgh", address)


def test_the_query_program_goes_by_what_the_api_program_says() -> None:
    found: list[Asker] = []

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        found.append(current_asker())

    async def ask(scope: Scope) -> None:
        await KnowsAsker(app)(scope, _nothing, _drop)

    async def test() -> None:
        for scope in (scope_of("", (ADDRESS, b"203.0.113.9")), scope_of("")):
            await asyncio.create_task(ask(scope))
        found.append(current_asker())

    asyncio.run(test())
    assert found == [Asker("", "203.0.113.9"), THE_BOX, THE_BOX]


async def _nothing() -> Message:
    raise AssertionError


async def _drop(_message: Message) -> None:
    pass


def program(folder: Path, minimum: MinimumPace = MinimumPace()) -> QueryProxy:  # noqa: B008 (a tuple)
    return QueryProxy(folder / "query.sock", 5, False, PROXIED, minimum, 75)


def refusal(_path: str) -> Response:
    return Response(status_code=503)


async def serving(folder: Path, heard: list[bytes]) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heard.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(BIG)
        except asyncio.IncompleteReadError:
            writer.close()

    return await asyncio.start_unix_server(serve, folder / "query.sock")


def test_no_client_says_its_own_address(tmp_path: Path) -> None:
    async def test() -> None:
        heard = list[bytes]()
        async with await serving(tmp_path, heard):
            query = program(tmp_path)
            scope = scope_of("203.0.113.9", (ADDRESS, b"198.51.100.1"))
            await query.forward(refusal)(scope, _nothing, _drop)
            query.close()
        assert heard[0].count(ADDRESS) == 1
        assert b"\r\nwhimbrel-address: 203.0.113.9\r\n" in heard[0]

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_slow_client_of_any_answer_loses_its_connection_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "MAX_CONNECTIONS", 1)

    async def test() -> None:
        stalls = asyncio.Event()

        async def stall(message: Message) -> None:
            if message["type"] == "http.response.body":
                stalls.set()
                await asyncio.Event().wait()

        async with await serving(tmp_path, []):
            query = program(tmp_path, MinimumPace(100_000, 0.1))
            forward = query.forward(refusal)
            slow = asyncio.create_task(forward(scope_of("203.0.113.9"), _nothing, stall))
            await stalls.wait()
            answered = list[Message]()

            async def keep(message: Message) -> None:
                answered.append(message)

            await forward(scope_of("203.0.113.10"), _nothing, keep)
            await slow  # without an end
            query.close()
        assert answered[0]["status"] == 200
        assert [message.get("more_body") for message in answered[1:]] == [False]

    asyncio.run(asyncio.wait_for(test(), 20))
