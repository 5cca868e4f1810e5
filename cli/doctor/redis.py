"""Checks of Redis, of the archive, and of whether the two belong together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from cli.doctor.finding import Finding, failure, ok, warning
from cli.doctor.machine import running_supervisor
from cli.redis_server import command
from telemetry.archive.table import READ_ERRORS, Archive, in_one_line
from telemetry.config.settings import Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import check_server, connect, kind
from telemetry.hot_store.operations.append import require_writable
from telemetry.hot_store.response_errors import translated
from telemetry.model.errors import BusyError, ConfigError, StoreError, StoreUnavailable
from telemetry.startup import store_setup
from telemetry.system.disk_space import in_words

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

NODE_BYTES = 1_024
REWRITE_BYTES = 2**30
"""Settings of the server beyond which an idle device costs more, and the AOF is rewritten all the time."""


def server(settings: Settings) -> Iterator[Finding]:
    """The server keeps what it is given."""
    with connect(settings) as client:
        try:
            check_server(client, settings.redis.durability)
            yield from restarts(client)
            yield from _settings(client)
            yield from _state(translated(client.info), settings.redis.full_percent)
            yield from _writes(client, settings.redis.shards)
        except StoreUnavailable as error:
            yield _away(settings, error)
        except ConfigError as error:
            yield failure(str(error), "set what it names, in the server's configuration file or with CONFIG SET")


def _away(settings: Settings, error: StoreUnavailable) -> Finding:
    """Without a box its own Redis is down, too, and it is enough that there is one to start."""
    if settings.redis.url:
        return failure(str(error), "start the Redis that redis.url names, or correct that")
    if running_supervisor(settings):
        return failure(str(error), "it loads its data after a start; else look at its lines in the log")
    try:
        found = command.find(settings)
    except ConfigError as missing:
        return failure(str(missing), "install a server, or set redis.server")
    return ok(f"the box is down; it would start {found.kind} {found.version}, {found.path}")


def _settings(client: redis.Redis) -> Iterator[Finding]:
    names = ("no-appendfsync-on-rewrite", "stream-node-max-bytes", "auto-aof-rewrite-min-size")
    found = {_text(k): _text(v) for k, v in translated(lambda: client.config_get(*names)).items()}
    if found.get("no-appendfsync-on-rewrite") == "yes":
        yield failure(
            "no-appendfsync-on-rewrite is yes: while the AOF is rewritten, an answer doesn't mean on disk",
            "set it to no",
        )
    if int(found.get("stream-node-max-bytes") or NODE_BYTES) > NODE_BYTES:
        yield warning(
            f"stream-node-max-bytes is {found['stream-node-max-bytes']}: an idle device takes thrice the memory",
            f"set it to {NODE_BYTES}",
        )
    if int(found.get("auto-aof-rewrite-min-size") or REWRITE_BYTES) < REWRITE_BYTES:
        yield warning(
            f"auto-aof-rewrite-min-size is {found['auto-aof-rewrite-min-size']}: under load the AOF is rewritten often",
            "set it to 1gb",
        )


def restarts(client: redis.Redis) -> Iterator[Finding]:
    """It starts again by itself, however it ended."""
    found = translated(lambda: client.config_get("aof-load-truncated"))
    if "no" in map(_text, found.values()):
        yield warning(
            "aof-load-truncated is no: killed in the middle of a write, Redis does not start again by itself",
            "set it to yes: what is cut off then is a write that nobody was told is safe",
        )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _writes(client: redis.Redis, shards: int) -> Iterator[Finding]:
    """Why it would refuse an append; whether there is a store at all, and room in memory, others say."""
    try:
        for number in range(shards):
            if found := hot.shape(client, number):
                require_writable(hot.Shard(client, number, found.store_id, shards))
    except StoreUnavailable as error:
        yield failure(
            f"collectors refuse: {error}", "mend what the reason names: it must be a master that takes writes"
        )
    except BusyError:
        pass


def _state(info: Mapping[str, Any], full_percent: int) -> Iterator[Finding]:
    name, version = kind(info)
    used, limit = info["used_memory"], info["maxmemory"]
    aof = "AOF on" if info["aof_enabled"] else "no AOF"
    text = f"{name} {version}, {aof}, {in_words(used)} used of {in_words(limit) if limit else 'no limit'}"
    if info["aof_enabled"] and info["aof_last_write_status"] != "ok":
        yield failure("the last write of the AOF failed", "see that its disk has room and takes writes")
    if info["aof_enabled"] and info["aof_last_bgrewrite_status"] != "ok":
        yield warning("the last rewrite of the AOF failed", "see that the machine has memory and the disk has room")
    if limit == 0:
        yield warning(f"{text}: it grows until the system kills it", "set maxmemory to less than half of the memory")
    elif 100 * used / limit >= full_percent:
        yield failure(f"{text}: collectors refuse", "see that the worker runs and saves; give Redis more memory")
    else:
        yield ok(text)


def kernel(_settings: Settings) -> Iterator[Finding]:
    """What Redis wants of Linux."""
    if sys.platform != "linux":
        yield ok("not Linux: nothing is known to be in Redis's way")
        return
    found = []
    if _read(OVERCOMMIT) == "0":
        found.append(
            warning(
                "vm.overcommit_memory is 0: a rewrite of the AOF may fail for want of memory",
                "sysctl vm.overcommit_memory=1",
            )
        )
    if "[always]" in _read(HUGE_PAGES):
        found.append(
            warning(
                "transparent huge pages are on: forks of Redis cost time and memory", f"echo madvise > {HUGE_PAGES}"
            )
        )
    yield from found or [ok("memory is given as Redis wants it")]


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def together(settings: Settings) -> Iterator[Finding]:
    """The archive can be read, and it is the one that this Redis writes."""
    archive = Archive(settings.archive_dir)
    try:
        table = archive.open_existing()
        files = len(archive.live(table)) if table else 0
    except READ_ERRORS as error:
        yield failure(f"cannot read the archive {archive.root}: {in_one_line(error)}", "mend what the reason names")
        return
    text = f"the archive has {files} files" if table else "there is no archive yet"
    with connect(settings) as client:
        try:
            shards = hot.attach(client, settings.redis.shards)
            wrong = next((why for shard in shards if (why := store_setup.apart(shard, archive))), None)
            troubles = [f"cannot save shard {shard.shard}: {why}" for shard in shards if (why := shard.trouble())]
        except StoreUnavailable:
            yield ok(f"{text}; whether Redis belongs to it shows when the box has started")
        except (StoreError, ConfigError) as error:
            yield failure(str(error), "set redis.shards to what it was, or use the release that made the store")
        else:
            yield (
                failure(wrong, "run whimbrel recover, which explains")
                if wrong
                else ok(f"{text}, and Redis belongs to it")
            )
            for why in troubles:
                yield failure(f"{why}; its records wait in Redis", "mend what the reason names; saving then goes on")
