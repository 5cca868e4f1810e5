"""Who else gets into Redis, for `whimbrel doctor` and `whimbrel up`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.doctor.finding import Finding, failure, ok, warning
from telemetry.config.settings import Settings
from telemetry.config.validation import is_loopback
from telemetry.hot_store.client import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, connect, url

ADVICE = (
    "give each program a user of its own: `whimbrel redis acl` prints the lines, docs/operations/secure.md says how"
)


def access(settings: Settings) -> Iterator[Finding]:
    """Nobody gets in without a password, and the server will read its whole AOF when it starts again."""
    with _stranger(settings) as stranger:
        place = _place(stranger)
        try:
            stranger.ping()
        except redis.AuthenticationError:
            found = ok(f"{place} lets nobody in without a password")
        except redis.ResponseError as error:
            found = ok(f"{place} does nothing for a stranger: {error}")
        except redis.RedisError:
            return  # it is away, which another check says
        else:
            found = _open(place, stranger)
    yield found
    yield from reads_its_aof(settings)


def _open(place: str, stranger: redis.Redis) -> Finding:
    found = stranger.connection_pool.connection_kwargs
    text = f"{place} lets in whoever reaches it, without a password, and they may delete every record"
    if "path" in found and _is_private(Path(found["path"])):
        return ok(f"{place} needs no password, and only its owner reaches it")
    if "path" in found:
        return warning(f"{place} needs no password; its folder's permissions are all that guards it", ADVICE)
    if is_loopback(str(found.get("host", "localhost"))):
        return warning(f"{text}: every user of this machine", ADVICE)
    return failure(text, ADVICE)


def _is_private(socket: Path) -> bool:
    """Whether the permissions of a socket, or of its folder, keep all but their owner out."""
    return any(path.exists() and not path.stat().st_mode & 0o077 for path in (socket, socket.parent))


def reads_its_aof(settings: Settings) -> Iterator[Finding]:
    """A server reads its AOF as the user `default`, and leaves out the transactions that this one may not do."""
    with connect(settings) as client:
        try:
            found: Any = client.acl_getuser("default")
        except redis.RedisError:
            return  # only an admin may ask
    taken = [rule for rule in (*found["categories"], *found["commands"]) if rule.startswith("-")]
    if "+@all" in found["categories"] and not taken and "~*" in _texts(found["keys"]):
        return
    yield failure(
        "the ACL takes rights from the user default: when this Redis starts again it leaves records out of its AOF",
        "ACL SETUSER default off resetpass ~* &* +@all: it is off then, so that nobody can be it; then ACL SAVE",
    )


def _texts(keys: Any) -> list[str]:
    return keys.split() if isinstance(keys, str) else [str(key) for key in keys or ()]


def _stranger(settings: Settings) -> redis.Redis:
    """A client of the same server that names no user."""
    client = redis.Redis.from_url(
        url(settings),
        socket_timeout=READ_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    client.connection_pool.connection_kwargs |= {"username": None, "password": None, "credential_provider": None}
    return client


def _place(client: redis.Redis) -> str:
    found = client.connection_pool.connection_kwargs
    return f"Redis at {found.get('path') or '{}:{}'.format(found.get('host', 'localhost'), found.get('port', 6379))}"
