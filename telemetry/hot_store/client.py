"""Connections to Redis, and what its server must be like to be trusted with records."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from telemetry.config.settings import Settings
from telemetry.hot_store.credentials import login
from telemetry.model.errors import ConfigError, StoreUnavailable
from telemetry.system.runtime_dir import OLDEST_REDIS, OLDEST_VALKEY, runtime_dir, version

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 15.0
"""Longer than any call takes on a slow disk; a server that is silent for so long is treated as away."""

READ_TIMEOUT_S = 5.0
"""The same for who only asks, and can ask again."""

SENT_BYTES = 2**21
"""What of a call may wait in a unix socket, if the system allows so much: a call of 10,000 records goes into it whole,
where the usual 200 KB are a dozen pieces, after each of which sender and Redis wake one another."""

ANSWER_TIMEOUT_S = 2.0
"""The same for a server that was silent a moment ago: whoever comes meanwhile hears so without waiting that long."""


def url(settings: Settings) -> str:
    """`redis.url`, or the socket of the server that Whimbrel starts itself."""
    return settings.redis.url or f"unix://{runtime_dir(settings.data_dir) / 'redis.sock'}"


def shown_url(settings: Settings) -> str:
    """The same for people: without a user and a password."""
    scheme, _, place = url(settings).partition("://")
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def connect(settings: Settings, timeout_s: float | None = CALL_TIMEOUT_S) -> redis.Redis:
    """A synchronous client that repeats nothing by itself: an append sent twice would double records."""
    client = redis.Redis.from_url(url(settings), **_options(settings, timeout_s))
    pool = client.connection_pool
    if pool.connection_class is redis.UnixDomainSocketConnection:
        pool.connection_class = _Roomy
    raw_entries(client)
    return client


class _Roomy(redis.UnixDomainSocketConnection):
    """A connection into which a large call goes at once."""

    def _connect(self) -> socket.socket:
        found: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
        return found


def connect_async(settings: Settings, timeout_s: float = READ_TIMEOUT_S) -> redis.asyncio.Redis:
    """An asyncio client, for the short questions of the API, which are asked again if a connection was stale."""
    options = _options(settings, timeout_s) | {"retry": redis.asyncio.retry.Retry(NoBackoff(), 1)}
    return redis.asyncio.Redis.from_url(url(settings), **options)


def _options(settings: Settings, timeout_s: float | None) -> dict[str, Any]:
    return {
        "credential_provider": login(settings),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }


def wait(
    client: redis.Redis,
    tell: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until Redis answers and has loaded its data, telling at each try what it waits for. False if stopped."""
    while not stopped():
        try:
            client.ping()
        except redis.RedisError as error:
            tell(f"waiting for Redis: {error}")
            sleep(0.1)
        else:
            return True
    return False


def require_answer(client: redis.Redis, within_s: float = ANSWER_TIMEOUT_S) -> None:
    """Raise `StoreUnavailable` unless Redis answers over a new connection within so long.

    One that is stopped, or stuck on a dying disk, still takes connections, and each call waits `CALL_TIMEOUT_S`.
    """
    asked = client.connection_pool
    pool = redis.ConnectionPool(asked.connection_class, **asked.connection_kwargs | {"socket_timeout": within_s})
    try:
        with redis.Redis.from_pool(pool) as once:
            once.ping()
    except redis.ResponseError:
        return  # it answers; whoever asks for more hears why not
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error


def check_server(client: redis.Redis, durability: str) -> None:
    """Raise `ConfigError` naming each setting of the server that could lose records."""
    try:
        info: Mapping[str, Any] = client.info("server")
        values = _settings_of(client)
    except redis.ResponseError as error:
        raise ConfigError(f"cannot ask Redis about its settings: {error}") from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error
    wrong = [*_wrong_version(info), *_wrong_settings(values, durability)]
    if wrong:
        raise ConfigError("cannot use this Redis: " + "; ".join(wrong))


_may_not_ask: WeakSet[redis.ConnectionPool] = WeakSet()


def _settings_of(client: redis.Redis) -> Mapping[str, str]:
    """What matters of its settings. Who may not ask for them, as the programs of the API may not, is told by INFO all
    but `appendfsync`: that is for those who may to see."""
    if client.connection_pool not in _may_not_ask:
        try:
            found = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
            return {_text(name): _text(value) for name, value in found.items()}
        except NoPermissionError:
            _may_not_ask.add(client.connection_pool)
    policy, aof = client.info("memory")["maxmemory_policy"], client.info("persistence")["aof_enabled"]
    return {"maxmemory-policy": _text(policy), "appendonly": "yes" if aof else "no", "appendfsync": "always"}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def kind(info: Mapping[str, Any]) -> tuple[str, str]:
    """("Redis", "8.0.2") or ("Valkey", "8.1.3"), of what the server says of itself."""
    valkey = str(info.get("valkey_version", ""))
    return ("Valkey", valkey) if valkey else ("Redis", str(info["redis_version"]))


def _wrong_version(info: Mapping[str, Any]) -> list[str]:
    name, found = kind(info)
    oldest = OLDEST_VALKEY if name == "Valkey" else OLDEST_REDIS
    if version(found) >= oldest:
        return []
    return [f"it is {name} {found}, and {'.'.join(map(str, oldest))} is the oldest that works"]


def _wrong_settings(values: Mapping[str, str], durability: str) -> list[str]:
    wrong = []
    if values.get("maxmemory-policy") != "noeviction":
        wrong.append(f"maxmemory-policy is {values.get('maxmemory-policy')}, must be noeviction")
    if durability == "aof" and values.get("appendonly") != "yes":
        wrong.append('appendonly is no, must be yes (or set redis.durability = "memory" and lose records at a crash)')
    elif durability == "aof" and values.get("appendfsync") != "always":
        wrong.append(
            f"appendfsync is {values.get('appendfsync')}, must be always "
            '(or set redis.durability = "memory" and lose the last second at a power cut)'
        )
    return wrong


def raw_entries(client: redis.Redis) -> None:
    """Have streams answered as Redis does: twice as fast to read as redis-py's pairs of dicts."""
    client.response_callbacks.pop("XRANGE", None)
    client.response_callbacks.pop("XREAD", None)
