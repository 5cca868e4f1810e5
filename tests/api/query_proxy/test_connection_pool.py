"""Answers of a program over a unix socket: whole ones in any pieces, and no broken one taken for whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from api.query_proxy import connection_pool
from api.query_proxy.connection_pool import Connections, Unanswered

REQUEST = b"GET /v1/records HTTP/1.1\r\nhost: x\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nx-name: \xe9\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\nhello world"
HEADED = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Program:
    """Answers each request with the next of `answers`, in pieces; what a text among them says is done instead."""

    def __init__(self, *answers: bytes | str, piece: int = 1_000_000) -> None:
        self.answers = list(answers)
        self.piece = piece
        self.connections = self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        answer = self.answers.pop(0)
        if answer == "silence":
            await asyncio.sleep(5)
        if not isinstance(answer, bytes):
            raise ConnectionError
        for at in range(0, len(answer), self.piece):
            writer.write(answer[at : at + self.piece])
            await writer.drain()
            await asyncio.sleep(0)
        if answer is LAST or not answer.endswith((b"world", b"\n")):
            raise ConnectionError


def run(folder: Path, program: Program, ask: Callable[[Connections], Awaitable[None]], silent_s: float = 2.0) -> None:
    async def inside() -> None:
        path = folder / "query.sock"
        server = await asyncio.start_unix_server(program.serve, str(path))
        connections = Connections(path, silent_s)
        await ask(connections)
        connections.close()
        server.close()

    asyncio.run(inside())


async def asked(connections: Connections, is_head: bool = False, may_repeat: bool = True) -> tuple[int, bytes]:
    data = b""
    async with connections.asked(REQUEST, is_head, may_repeat) as answer:
        while not answer.is_read:
            data += await answer.read(connections.silent_s)
        return answer.status, data


@pytest.mark.parametrize("piece", [1, 7, 1_000_000])
def test_whole_answers_come_over_one_connection(tmp_path: Path, piece: int) -> None:
    program = Program(WHOLE, CHUNKED, EMPTY, HEADED, WHOLE, piece=piece)

    async def ask(connections: Connections) -> None:
        assert await asked(connections) == (200, b"hello world")
        assert await asked(connections) == (200, b"hello world")
        assert await asked(connections) == (204, b"")
        assert await asked(connections, is_head=True) == (200, b"")
        assert await asked(connections) == (200, b"hello world")
        assert program.connections == 1

    run(tmp_path, program, ask)


def test_headers_are_as_they_came(tmp_path: Path) -> None:
    async def ask(connections: Connections) -> None:
        async with connections.asked(REQUEST, False, True) as answer:
            assert answer.headers == [(b"content-length", b"11"), (b"x-name", b"\xe9")]

    run(tmp_path, Program(WHOLE), ask)


def test_a_connection_that_the_program_closes_is_not_used_again(tmp_path: Path) -> None:
    program = Program(LAST, WHOLE)

    async def ask(connections: Connections) -> None:
        assert await asked(connections) == (200, b"hello world")
        assert await asked(connections) == (200, b"hello world")
        assert program.connections == 2

    run(tmp_path, program, ask)


@pytest.mark.parametrize(
    "answer",
    [b"", WHOLE[:20], WHOLE[:-1], CHUNKED[:-8], b"nonsense\r\n\r\n", "gone"],
    ids=lambda answer: str(answer)[:30],
)
def test_what_breaks_off_is_no_answer(tmp_path: Path, answer: bytes | str) -> None:
    async def ask(connections: Connections) -> None:
        with pytest.raises(Unanswered):
            await asked(connections)
        assert await asked(connections) == (200, b"hello world")

    run(tmp_path, Program(answer, WHOLE), ask)


def test_what_was_closed_while_idle_is_asked_again_where_it_may_be(tmp_path: Path) -> None:
    program = Program(WHOLE, "gone", WHOLE, "gone")

    async def ask(connections: Connections) -> None:
        await asked(connections)
        assert await asked(connections) == (200, b"hello world")
        assert program.requests == 3
        with pytest.raises(Unanswered):
            await asked(connections, may_repeat=False)

    run(tmp_path, program, ask)


def test_what_was_idle_for_long_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(WHOLE, WHOLE)
    monkeypatch.setattr(connection_pool, "KEEP_ALIVE_S", 0)

    async def ask(connections: Connections) -> None:
        await asked(connections)
        await asked(connections)
        assert program.connections == 2

    run(tmp_path, program, ask)


def test_a_silent_program_is_given_up(tmp_path: Path) -> None:
    async def ask(connections: Connections) -> None:
        with pytest.raises(Unanswered, match="silent"):
            await asked(connections)

    run(tmp_path, Program("silence"), ask, silent_s=0.1)


def test_without_a_program_it_is_said_at_once(tmp_path: Path) -> None:
    async def inside() -> None:
        with pytest.raises(Unanswered, match="cannot connect"):
            await asked(Connections(tmp_path / "nobody.sock", 1.0))

    asyncio.run(inside())


def test_too_many_requests_wait_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(connection_pool, "CONNECT_TIMEOUT_S", 0.1)

    async def ask(connections: Connections) -> None:
        async with connections.asked(REQUEST, False, True):
            with pytest.raises(Unanswered, match="too many"):
                await asked(connections)
        assert await asked(connections) == (200, b"hello world")

    run(tmp_path, Program(WHOLE, WHOLE), ask)


def test_no_more_is_read_than_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "MAX_WAITING_BYTES", 1_000)
    size = 20_000_000
    program = Program(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"\n" * size)

    async def ask(connections: Connections) -> None:
        found = 0
        async with connections.asked(REQUEST, False, True) as answer:
            await asyncio.sleep(0.1)
            while not answer.is_read:
                piece = len(await answer.read(connections.silent_s))
                assert piece < size / 4
                found += piece
        assert found == size

    run(tmp_path, program, ask)


def test_who_leaves_closes_the_connection(tmp_path: Path) -> None:
    program = Program("silence", WHOLE)

    async def ask(connections: Connections) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asked(connections)
        assert await asked(connections) == (200, b"hello world")
        assert program.connections == 2

    run(tmp_path, program, ask)
