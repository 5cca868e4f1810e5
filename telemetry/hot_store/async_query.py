"""Short read commands to Redis with less overhead than redis-py's client: its connections without pool and policies.

Omitted are the locked pool, retries by policy, and observers. A command whose connection is closed is sent once more
over a new one, so it must only read. Without TLS direct_connection.py is faster (docs/performance.md).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from telemetry.config.settings import Settings
from telemetry.hot_store.client import READ_TIMEOUT_S, connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker

MAX_CONNECTIONS = 32
"""Maximum number of connections of an `Asker`, and so of concurrent commands: a response may have 3 MB."""


class Asks(Protocol):
    """Sends commands to Redis from a running event loop."""

    async def ask(self, *command: str | bytes) -> Any:
        """The response to a command. Raises `redis.RedisError`."""


def asker(settings: Settings, timeout_s: float = READ_TIMEOUT_S) -> Asks:
    """The fastest implementation for these settings."""
    client = connect(settings, timeout_s)
    if issubclass(client.connection_pool.connection_class, redis.SSLConnection):
        return Asker(connect_async(settings, timeout_s))
    return DirectAsker(client)


class Asker:
    """Sends commands over its own connections, made as `client` makes them, one for each concurrent command."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool = client.connection_pool
        self._free: list[AbstractConnection] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def ask(self, *command: str | bytes) -> Any:
        """The response to a command. Raises `redis.RedisError`."""
        async with self._slots:
            return await self._ask_any(command)

    async def _ask_any(self, command: tuple[str | bytes, ...]) -> Any:
        if self._free:
            try:
                return await self._ask(self._free.pop(), command)
            except redis.ConnectionError:  # after a restart of the server all connections are closed
                while self._free:
                    await self._free.pop().disconnect(nowait=True)
        return await self._ask(self._pool.make_connection(), command)  # type: ignore[no-untyped-call]

    async def _ask(self, connection: AbstractConnection, command: tuple[str | bytes, ...]) -> Any:
        try:
            await connection.send_command(*command)
            answer = await connection.read_response()
        except redis.ResponseError:
            self._free.append(connection)
            raise
        except BaseException:  # a response that no caller waits for may still arrive
            await connection.disconnect(nowait=True)
            raise
        self._free.append(connection)
        return answer
