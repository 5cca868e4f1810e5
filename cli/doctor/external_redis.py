"""A Redis that others run, as `whimbrel up` looks at it; a file of its own, since what it needs takes 18 MB."""

from __future__ import annotations

import contextlib

from cli.doctor import redis, redis_access
from telemetry.config.settings import Settings
from telemetry.hot_store.client import check_server, connect
from telemetry.model.errors import StoreUnavailable


def check(settings: Settings) -> list[str]:
    """What is to be said of one that may not start again. Raises `ConfigError` for one that could lose records.

    For one that is away the programs wait.
    """
    with connect(settings) as client, contextlib.suppress(StoreUnavailable):
        check_server(client, settings.redis.durability)
        findings = [*redis.restarts(client), *redis_access.access(settings)]
        return [f"{found.text}; {found.advice}" for found in findings if found.level != "ok"]
    return []
