"""Checks of the machine: its disk, its clock, its limits, and whom the ports and folders belong to."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import socket
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from api.requests.query_headers import MAX_CONNECTIONS
from cli.doctor import environment_markers
from cli.doctor.finding import Finding, failure, ok, warning
from collector.ingest.shard_writer import GROUP_RECORDS
from telemetry.config.settings import PROJECT, Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import connect
from telemetry.limits.open_files import api_caps, api_wants, collector_caps, collector_wants
from telemetry.model.errors import ConfigError, StoreError
from telemetry.system import clock
from telemetry.system.disk_space import Room, existing, in_words
from telemetry.system.process import SUPERVISED
from telemetry.system.runtime_dir import runtime_dir

# The disk --------------------------------------------------------------------------------------------

WRITES = 50
WRITE_BYTES = 4_096
SLOW_WRITE_MS = 10.0
FEW_INODES_PERCENT = 5

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"}
MEMORY = {"tmpfs", "ramfs"}
OF_A_CONTAINER = {"overlay", "aufs"}


def disk_writes(settings: Settings) -> Iterator[Finding]:
    """How long a small write takes until it is on disk: no answer is faster."""
    folder = existing(settings.data_dir)
    try:
        times_ms = sorted(_writes_ms(folder))
    except OSError as error:
        yield failure(f"cannot write to {folder}: {error.strerror}", "give Whimbrel's user the data folder")
        return
    median_ms, worst_ms = statistics.median(times_ms), times_ms[-1]
    groups = 1_000 / max(median_ms, 0.001)
    text = (
        f"{WRITE_BYTES // 1_024} KiB are on disk after {median_ms:.2f} ms (median of {WRITES}; worst {worst_ms:.2f} ms)"
        f": {groups:,.0f} answers a second for a sender that waits for each, of up to {GROUP_RECORDS:,} records"
    )
    if median_ms > SLOW_WRITE_MS:
        yield warning(text, "put data.dir on an SSD, or have senders send many records at once")
    else:
        yield ok(text)


def _writes_ms(folder: Path) -> Iterator[float]:
    with tempfile.TemporaryFile(dir=folder, prefix=".doctor-", buffering=0) as file:
        for _ in range(WRITES):
            start = time.perf_counter()
            file.write(bytes(WRITE_BYTES))
            os.fsync(file.fileno())
            yield (time.perf_counter() - start) * 1_000


def file_system(settings: Settings) -> Iterator[Finding]:
    """What kind of file system the data lie on."""
    kind = kind_of_file_system(existing(settings.data_dir))
    text = f"{settings.data_dir} is on {kind or 'an unknown file system'}"
    if kind in MEMORY:
        yield warning(f"{text}, which is gone when the machine stops", "put data.dir on a disk")
    elif kind in NETWORK:
        yield warning(f"{text}, over the network: locks and fsync may not hold there", "put data.dir on a local disk")
    elif kind in OF_A_CONTAINER:
        yield warning(f"{text}, which goes with its container", "put data.dir on a volume")
    else:
        yield ok(text)


def kind_of_file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Like ext4; empty where the system doesn't tell."""
    if not mounts.exists():
        return ""
    found: dict[Path, str] = {}
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        place, _, kind = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place.split()[4])
        found[Path(point)] = kind.split()[0]
    resolved = folder.resolve()
    return next((found[path] for path in (resolved, *resolved.parents) if path in found), "")


def disk_space(settings: Settings) -> Iterator[Finding]:
    """Room for more records and more files."""
    room = Room.of(settings)
    free, least = room.fullest().free, room.min_free_bytes
    text = f"{in_words(free)} free, and collectors refuse below {in_words(least)} (data.min_free_bytes)"
    advice = "make room, or set archive.retention_days"
    yield failure(text, advice) if free < least else warning(text, advice) if free < 2 * least else ok(text)
    found = os.statvfs(existing(settings.data_dir))
    if found.f_files > 0:
        percent = 100 * found.f_favail / found.f_files
        text = f"{percent:.0f} % of the inodes are free"
        yield ok(text) if percent >= FEW_INODES_PERCENT else warning(text, "delete small files; each file takes one")


# Folders ---------------------------------------------------------------------------------------------


def folders(settings: Settings) -> Iterator[Finding]:
    """The data are ours, and nobody else can change them."""
    for folder in dict.fromkeys((settings.data_dir, settings.redis_dir, runtime_dir(settings.data_dir))):
        yield _folder(folder)


def _folder(folder: Path) -> Finding:
    if not folder.exists():
        above = existing(folder)
        if os.access(above, os.W_OK | os.X_OK):
            return ok(f"{folder} is not there yet: the first start makes it")
        return failure(f"{folder} is not there, and {above} can't be written to", f"create it: mkdir -p {folder}")
    found = folder.stat()
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return failure(f"{folder} can't be written to", f"chown it to the user that runs Whimbrel: {os.getuid()}")
    if found.st_mode & stat.S_IWOTH:
        return failure(f"everybody can write to {folder}", f"chmod o-w {folder}")
    if found.st_uid != os.getuid():
        return warning(f"{folder} belongs to user {found.st_uid}, not to {os.getuid()}", "run Whimbrel as its owner")
    if found.st_mode & stat.S_IWGRP:
        return warning(f"the whole group {found.st_gid} can write to {folder}", f"chmod g-w {folder}")
    return ok(f"{folder} is ours alone to change")


# Limits and ports ------------------------------------------------------------------------------------


def open_files(settings: Settings) -> Iterator[Finding]:
    """Each connection takes a file descriptor. Programs raise their own limit, up to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(collector_wants(settings), api_wants(settings, MAX_CONNECTIONS))
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        yield ok(f"{wanted} files may be open, enough for all connections")
        return
    collector, api = collector_caps(settings, hard), api_caps(settings, hard, MAX_CONNECTIONS)
    yield warning(
        f"only {hard} files may be open: the collector is limited to {collector.tcp.maximum} TCP connections "
        f"({collector.tcp.per_address} per address) and {collector.http.maximum} over HTTP, the API to "
        f"{api.http.maximum}",
        f"raise ulimit -Hn to {wanted} (systemd: LimitNOFILE={wanted}), or lower collector.max_connections and "
        "collector.max_http_connections",
    )


def ports(settings: Settings) -> Iterator[Finding]:
    """Each port is free, or this box has it."""
    supervisor = running_supervisor(settings)
    for name, host, port in (
        ("api.port", settings.api.host, settings.api.port),
        ("collector.http_port", settings.collector.host, settings.collector.http_port),
        ("collector.tcp_port", settings.collector.host, settings.collector.tcp_port),
    ):
        yield _port(name, host, port, supervisor, settings)


def running_supervisor(settings: Settings) -> str:
    """Process id of this box's supervisor; empty if the box is down."""
    file = runtime_dir(settings.data_dir) / "supervisord.pid"
    pid = file.read_text().strip() if file.exists() else ""
    return pid if pid.isdigit() and Path(f"/proc/{pid}").exists() else ""


def _port(name: str, host: str, port: int, supervisor: str, settings: Settings) -> Finding:
    try:
        is_free = _is_free(host, port)
    except OSError as error:
        return failure(f"{name}: cannot listen on {host}: {error.strerror or error}", "correct the host")
    holders = [] if is_free else listeners(port)
    mine = [pid for pid in holders if _is_ours(_environment(pid), supervisor, settings)]
    if is_free and supervisor:
        return warning(f"{name}: nobody listens on {port}, though the box runs", "look at the log for what stops it")
    if is_free:
        return ok(f"{name}: {port} is free")
    if mine or (supervisor and not holders):
        return ok(f"{name}: {port} is this box's")
    other = f"process {holders[0]} ({_command(holders[0])})" if holders else "another user's process"
    return failure(f"{name}: {port} is held by {other}", f"stop that, or set {name} to a free port")


def _is_ours(environ: Mapping[str, str], supervisor: str, settings: Settings) -> bool:
    """Whether a process of that environment is this box's: under its supervisor, or as a unit of systemd."""
    if SUPERVISED in environ:
        return bool(supervisor) and environ[SUPERVISED] == supervisor
    return environ.get("WHIMBREL__DATA__DIR") == str(settings.data_dir)


def _is_free(host: str, port: int) -> bool:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def listeners(port: int) -> list[int]:
    """Processes, of those that we may look at, that listen on a TCP port."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net", table), port)}
    return [int(folder.parent.name) for folder in Path("/proc").glob("[0-9]*/fd") if sockets & _open(folder)]


def _listening(table: Path, port: int) -> Iterator[str]:
    for line in table.read_text().splitlines()[1:] if table.exists() else ():
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _open(folder: Path) -> set[str]:
    """What a process has open; nothing if it is another user's, or gone."""
    found = set()
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # closed by now
                found.add(os.readlink(path))
    return found


def _environment(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return {name: value for name, _, value in (part.partition("=") for part in text.split("\0"))}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()[:80]
    except OSError:
        return "gone by now"


# Time and versions -----------------------------------------------------------------------------------

TIME_ERROR = 5
"""What adjtimex says while nothing keeps the clock right."""

LOCKED = re.compile(r"^([\w.-]+)==([^ ;\\]+)[ ]*(?:;([^\\\n#]*))?", re.MULTILINE)
"""Name, version and environment marker of a library."""


def time_of_day(settings: Settings) -> Iterator[Finding]:
    """The clock is plausible, and something keeps it right."""
    wrong = clock.problem(clock.now_us(), _newest_ms(settings))
    if wrong:
        yield failure(wrong, "set it, and run an NTP client (systemd-timesyncd, chrony)")
    elif sys.platform == "linux" and ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == TIME_ERROR:
        yield warning(
            "the clock is plausible, but nothing keeps it right",
            "run an NTP client (systemd-timesyncd, chrony), unless the machine's host does that",
        )
    else:
        yield ok("the clock is plausible")


def _newest_ms(settings: Settings) -> int:
    try:
        with connect(settings) as client:
            return max(shard.newest_ms() for shard in hot.attach(client, settings.redis.shards))
    except (StoreError, ConfigError):
        return 0


def versions(_settings: Settings) -> Iterator[Finding]:
    """The libraries are those that were tested together."""
    lock = PROJECT / "requirements.lock"
    if not lock.exists():
        yield ok(f"Python {sys.version.split()[0]}; there is no requirements.lock to compare with")
        return
    different = list(differing(lock.read_text(encoding="utf-8")))
    if different:
        yield warning(
            f"not as in requirements.lock: {', '.join(different)}", "run scripts/up, which installs what is locked"
        )
    else:
        yield ok(f"Python {sys.version.split()[0]}, and all libraries as in requirements.lock")


def differing(lock: str) -> Iterator[str]:
    """Each library that isn't the locked one. Lines whose environment marker does not hold here are passed over."""
    variables = environment_markers.environment()
    for name, locked, marker in LOCKED.findall(lock):
        try:
            if not environment_markers.applies(marker, variables):
                continue
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} is missing"
        except ValueError as error:
            yield f"{name}: {error}"
        else:
            if found != locked:
                yield f"{name} is {found}, not {locked}"
