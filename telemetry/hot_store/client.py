"""Connections to Redis, and checks that its server does not lose records."""

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
"""Timeout of a call, s: longer than any call takes on a slow disk. Beyond it the server counts as unreachable."""

READ_TIMEOUT_S = 5.0
"""Timeout of a call that only reads and can be repeated, s."""

SENT_BYTES = 2**21
"""Send buffer of a unix socket, bytes, if the system allows it. A large append fits as a whole; with the usual 200 KB,
sender and Redis would wake each other several times."""

ANSWER_TIMEOUT_S = 2.0
"""Timeout for a server that did not respond a moment ago, s, so that further callers get the error sooner."""


def url(settings: Settings) -> str:
    """`redis.url`, or the socket of the server that Whimbrel starts itself."""
    return settings.redis.url or f"unix://{runtime_dir(settings.data_dir) / 'redis.sock'}"


def shown_url(settings: Settings) -> str:
    """The URL for messages, without user and password."""
    scheme, _, address = url(settings).partition("://")
    host, slash, path = address.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def connect(settings: Settings, timeout_s: float | None = CALL_TIMEOUT_S) -> redis.Redis:
    """A synchronous client without retries: an append sent twice would duplicate records."""
    client = redis.Redis.from_url(url(settings), **_options(settings, timeout_s))
    pool = client.connection_pool
    if pool.connection_class is redis.UnixDomainSocketConnection:
        pool.connection_class = _Roomy
    raw_entries(client)
    return client


class _Roomy(redis.UnixDomainSocketConnection):
    """A connection with a send buffer for large calls."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
        return connected


def connect_async(settings: Settings, timeout_s: float = READ_TIMEOUT_S) -> redis.asyncio.Redis:
    """An asyncio client for the short reads of the API, which are repeated if a connection was stale."""
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
    """Wait until Redis answers and has loaded its data. Calls `tell` with the reason at each try. False if stopped."""
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
    """Raise `StoreUnavailable` unless Redis answers over a new connection within `within_s`.

    A server that is suspended, or blocked by a failing disk, still accepts connections, and each call waits
    `CALL_TIMEOUT_S`.
    """
    usual = client.connection_pool
    pool = redis.ConnectionPool(usual.connection_class, **usual.connection_kwargs | {"socket_timeout": within_s})
    try:
        with redis.Redis.from_pool(pool) as once:
            once.ping()
    except redis.ResponseError:
        return  # it answers; later calls report other errors
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot reach Redis: {error}") from error


def check_server(client: redis.Redis, durability: str) -> None:
    """Raise `ConfigError` with each setting of the server that could lose records."""
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
    """The relevant settings. Without permission for CONFIG GET, as in the programs of the API, INFO returns all but
    `appendfsync`, which other programs check."""
    if client.connection_pool not in _may_not_ask:
        try:
            values = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
            return {_text(name): _text(value) for name, value in values.items()}
        except NoPermissionError:
            _may_not_ask.add(client.connection_pool)
    policy, aof = client.info("memory")["maxmemory_policy"], client.info("persistence")["aof_enabled"]
    return {"maxmemory-policy": _text(policy), "appendonly": "yes" if aof else "no", "appendfsync": "always"}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def kind(info: Mapping[str, Any]) -> tuple[str, str]:
    """("Redis", "8.0.2") or ("Valkey", "8.1.3"), from the server's INFO."""
    valkey = str(info.get("valkey_version", ""))
    return ("Valkey", valkey) if valkey else ("Redis", str(info["redis_version"]))


def _wrong_version(info: Mapping[str, Any]) -> list[str]:
    name, number = kind(info)
    oldest = OLDEST_VALKEY if name == "Valkey" else OLDEST_REDIS
    if version(number) >= oldest:
        return []
    return [f"it is {name} {number}, but the oldest supported version is {'.'.join(map(str, oldest))}"]


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
    """Return streams in Redis's own format, which is faster to read than redis-py's pairs of dicts."""
    client.response_callbacks.pop("XRANGE", None)
    client.response_callbacks.pop("XREAD", None)
