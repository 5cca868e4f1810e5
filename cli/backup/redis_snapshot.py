"""All that a Redis holds at one moment, as it sends it to a replica: the RDB payload that SYNC answers with.

The server forks, and the child writes the state at the moment of the fork, regardless of later writes. This works for
any reachable server; its disk need not be accessible. Source: the Redis replication protocol, `SYNC` with
`REPLCONF capa eof` and `rdb-only`: newlines while the fork is awaited, then `$EOF:<mark>\\r\\n`, the payload and the
mark, or, where a server has `repl-diskless-sync no`, `$<length>\\r\\n` and the payload.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Generic, NamedTuple, TypeVar

import redis

from telemetry.hot_store.response_errors import translated
from telemetry.model.errors import StoreUnavailable

T = TypeVar("T")

LOOK_S = 0.002
"""Interval between reads of the state while the fork is pending: shorter means closer to the fork."""

SILENT_S = 60.0
"""A server sends a newline at least every ten seconds."""

PIECE_BYTES = 2**20
MARK_BYTES = 40
MOST_HEAD_BYTES = 2**10


class RedisCopy(Generic[T]):
    """A copy in progress. `before` and `after` are the results of `look` before and after the fork."""

    def __init__(self, before: T, after: T, head: str, rest: bytes, connection: socket.socket) -> None:
        self.before = before
        self.after = after
        self._head = head
        self._rest = rest
        self._socket = connection

    def write(self, file: IO[bytes], told: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
        """Write it to a file; `told` is called with the size of each piece. Returns its size in bytes and SHA-256.

        Raises `StoreUnavailable` if it comes to an end before it is whole, `OSError` if the file can't be written.
        """
        size, digest = 0, hashlib.sha256()
        for piece in self._pieces():
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            told(len(piece))
        return size, digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        if self._head.startswith("$EOF:"):
            return self._until(self._head.removeprefix("$EOF:").encode())
        return self._exactly(int(self._head.removeprefix("$")))

    def _until(self, mark: bytes) -> Iterator[bytes]:
        held = self._rest
        while not held.endswith(mark):
            if len(held) > MARK_BYTES:
                yield held[:-MARK_BYTES]
                held = held[-MARK_BYTES:]
            held += self._more()
        yield held[:-MARK_BYTES]

    def _exactly(self, size: int) -> Iterator[bytes]:
        piece = self._rest[:size]
        while size:
            yield piece
            size -= len(piece)
            piece = self._more()[:size] if size else b""

    def _more(self) -> bytes:
        piece = _received(self._socket, SILENT_S)
        if piece is None:
            raise StoreUnavailable(f"cannot copy Redis: it has sent nothing for {SILENT_S:.0f} s")
        return piece


@contextmanager
def copy_of(client: redis.Redis, look: Callable[[], T]) -> Iterator[RedisCopy[T]]:
    """A copy of Redis. `look` reads from Redis the state that the caller needs around the fork.

    Raises `StoreUnavailable` if the server doesn't give one.
    """
    connection = translated(client.connection_pool.get_connection)
    try:
        before = look()
        translated(partial(_tell, connection, "REPLCONF", "capa", "eof"))
        translated(partial(_tell, connection, "REPLCONF", "rdb-only", "1"))
        translated(partial(connection.send_command, "SYNC"))
        raw: socket.socket = connection._sock  # redis-py reads nothing that isn't an answer
        before, begun = _await_fork(client, raw, look, before)
        head, rest = _head(raw, begun)
        yield RedisCopy(before, look(), head, rest, raw)
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)


def _tell(connection: Any, *words: str) -> None:
    connection.send_command(*words)
    connection.read_response()


def _await_fork(client: redis.Redis, raw: socket.socket, look: Callable[[], T], before: T) -> tuple[T, bytes]:
    """The last result of `look` before the fork, and the first bytes of the copy.

    A child that writes to us has sent all of the copy before it ends, and one that writes to the server's disk was
    counted as it began. So while nothing has come, no child is at work and none was counted, the fork is yet to be.
    """
    deadline_s = time.monotonic() + SILENT_S
    counted = _children(client).counted
    while True:
        seen = look()
        now = _children(client)
        is_forked = now.at_work or now.counted != counted
        piece = _received(raw, LOOK_S)
        begun = (piece or b"").lstrip(b"\n")
        if begun:
            return before, begun
        if not is_forked:
            before = seen
        if piece is not None:
            deadline_s = time.monotonic() + SILENT_S
        elif time.monotonic() > deadline_s:
            raise StoreUnavailable(f"cannot copy Redis: it has not begun within {SILENT_S:.0f} s")


class _Children(NamedTuple):
    """Whether a child writes a copy of Redis, and how many ever began to write one to the server's disk."""

    at_work: bool
    counted: int


def _children(client: redis.Redis) -> _Children:
    found = translated(lambda: client.info("persistence"))
    return _Children(bool(found["rdb_bgsave_in_progress"]), found.get("rdb_saves", 0))


def _head(raw: socket.socket, begun: bytes) -> tuple[str, bytes]:
    """The line before the payload, and the bytes received after it."""
    while b"\r\n" not in begun and len(begun) < MOST_HEAD_BYTES:
        begun += _received(raw, SILENT_S) or b""
    line, _, rest = begun.partition(b"\r\n")
    head = line.decode(errors="replace")
    is_marked = head.startswith("$EOF:") and len(head) == len("$EOF:") + MARK_BYTES
    if not is_marked and not (head.startswith("$") and head[1:].isdecimal()):
        raise StoreUnavailable(f"cannot copy Redis: it answers {head.removeprefix('-')!r}")
    return head, rest


def _received(raw: socket.socket, within_s: float) -> bytes | None:
    """Some bytes, None if none came in time. Raises `StoreUnavailable` at the connection's end."""
    raw.settimeout(within_s)
    try:
        piece = raw.recv(PIECE_BYTES)
    except TimeoutError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"cannot copy Redis: {error}") from error
    if not piece:
        raise StoreUnavailable("cannot copy Redis: it closed the connection before the copy was complete; see its log")
    return piece
