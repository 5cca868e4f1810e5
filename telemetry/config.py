"""The settings: each is declared once, here, with its type, default and a sentence.

A value comes from, the last one winning: the default below, the TOML file (`--config FILE`, else
`WHIMBREL_CONFIG`, else `config.toml` beside the code), the environment variable
`WHIMBREL__SECTION__KEY`. An unknown section, key or a wrong type raises `ConfigError`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from telemetry.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent
PREFIX = "WHIMBREL__"

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[section]` of the file."""


class Data(Section, frozen=True):
    dir: Annotated[str, Meta(description="Folder of all that the box keeps; relative to the settings file.")] = "data"
    min_free_bytes: Annotated[
        int, Meta(ge=0, description="Free bytes of its disk below which collectors refuse; 0: never. 1 GiB.")
    ] = 2**30


class Api(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the API.")] = 8000
    max_page_records: Annotated[Positive, Meta(description="Most records that one answer may hold.")] = 50_000
    page_memory_bytes: Annotated[
        Positive,
        Meta(
            description="Bytes of what the older service's list pages have read that the API keeps in memory. 128 MiB."
        ),
    ] = 134_217_728
    query_threads: Annotated[Positive, Meta(description="History queries that run at once.")] = 2
    query_queue: Annotated[Positive, Meta(description="History queries that may wait; one more is answered 503.")] = 32
    query_memory_bytes: Annotated[
        Positive, Meta(description="Memory that history queries may use before they spill to disk, bytes. 192 MiB.")
    ] = 192 * 2**20
    query_timeout_s: Annotated[Positive, Meta(description="Seconds after which a history query is given up.")] = 30


class Auth(Section, frozen=True):
    allow_anonymous: Annotated[
        bool, Meta(description="Allow a host that is not loopback although no key is asked for.")
    ] = False


class Collector(Section, frozen=True):
    host: Annotated[str, Meta(description="Address that the collectors listen on.")] = "127.0.0.1"
    http_port: Annotated[Port, Meta(description="TCP port of the HTTP collector.")] = 8001
    tcp_port: Annotated[Port, Meta(description="TCP port of the JSON and msgpack collector.")] = 9999
    processes: Annotated[Positive, Meta(description="Collector processes that share the two ports.")] = 1
    max_body_bytes: Annotated[Positive, Meta(description="Largest HTTP body, bytes.")] = 8 * 2**20
    max_message_bytes: Annotated[Positive, Meta(description="Largest message over TCP, and largest record, bytes.")] = (
        2**20
    )
    max_request_records: Annotated[Positive, Meta(description="Most records in one request or message.")] = 100_000
    max_future_seconds: Annotated[
        Positive, Meta(description="Seconds that a record's timestamp may lie ahead of the box's clock.")
    ] = 86_400
    max_pending_bytes: Annotated[
        Positive,
        Meta(
            description="Bytes that may wait for Redis (beyond, HTTP answers 503, TCP stops reading), "
            "or be of unfinished messages."
        ),
    ] = 64 * 2**20
    max_devices: Annotated[Positive, Meta(description="Devices that the box takes; a further one is refused.")] = (
        200_000
    )
    max_connections: Annotated[
        Positive, Meta(description="TCP connections that a collector process holds; a further one is closed.")
    ] = 20_000
    max_connections_per_address: Annotated[
        int, Meta(ge=0, description="The same of one address, behind which may be a whole fleet; 0: no such limit.")
    ] = 10_000
    max_senders: Annotated[
        Positive, Meta(description="Senders of TCP frames that each shard remembers; one more is told to wait.")
    ] = 200_000
    max_header_bytes: Annotated[
        int, Meta(ge=1_024, description="Largest request line with all headers of an HTTP request, bytes. 32 KiB.")
    ] = 2**15
    max_http_connections: Annotated[
        Positive, Meta(description="HTTP connections that one process holds; a further one is answered 503.")
    ] = 4_000
    keep_alive_s: Annotated[
        Positive,
        Meta(description="Seconds without a request, or without reading an answer, until HTTP hangs up."),
    ] = 75
    request_timeout_s: Annotated[
        Positive, Meta(description="Seconds that one request or message may take to arrive.")
    ] = 30
    idle_timeout_s: Annotated[
        Positive, Meta(description="Seconds without a byte after which a TCP connection is closed.")
    ] = 86_400
    speed_unit: Annotated[
        Literal["kmh", "knots", "ms", "mph"], Meta(description="Unit of a plain `speed` field: kmh, knots, ms or mph.")
    ] = "kmh"
    idempotency_seconds: Annotated[Positive, Meta(description="Seconds that an Idempotency-Key is remembered.")] = 600
    max_idempotency_keys: Annotated[
        Positive, Meta(description="Idempotency-Keys remembered at once; one more is answered 503.")
    ] = 100_000


class Redis(Section, frozen=True):
    url: Annotated[str, Meta(description="URL of a Redis that others run; empty: Whimbrel starts its own.")] = ""
    server: Annotated[
        Literal["auto", "system", "bundled"],
        Meta(description="Which server Whimbrel starts: the system's, the bundled one, or auto: the first found."),
    ] = "auto"
    shards: Annotated[Positive, Meta(description="Parts that devices are spread over; fixed at the first start.")] = 1
    max_memory_bytes: Annotated[
        int, Meta(ge=0, description="Memory limit of Whimbrel's own Redis, bytes; 0: 45 % of the machine's memory.")
    ] = 0
    durability: Annotated[
        Literal["aof", "memory"],
        Meta(description="aof: an answer means on disk; memory: allow a Redis that doesn't write to disk."),
    ] = "aof"
    full_percent: Annotated[
        int, Meta(ge=1, le=100, description="Percent of Redis's memory from which on collectors refuse.")
    ] = 80
    resume_percent: Annotated[
        int, Meta(ge=1, le=100, description="Percent of Redis's memory below which they take records again.")
    ] = 70


class Persist(Section, frozen=True):
    flush_records: Annotated[Positive, Meta(description="Unsaved records at which a shard is saved at once.")] = 20_000
    flush_seconds: Annotated[
        Positive, Meta(description="Seconds that a shard may hold unsaved records before it is saved.")
    ] = 30
    max_records: Annotated[Positive, Meta(description="Most records in one save.")] = 200_000
    max_bytes: Annotated[Positive, Meta(description="Most bytes of records in one save.")] = 64 * 2**20
    max_devices: Annotated[Positive, Meta(description="Most devices in one save.")] = 50_000
    max_days: Annotated[Positive, Meta(description="Most days, so files, in one save.")] = 64
    quarantine_max_bytes: Annotated[
        Positive, Meta(description="Bytes of records that can't be saved kept in quarantine, the oldest dropped first.")
    ] = 16 * 2**20


class ArchiveSection(Section, frozen=True):
    target_file_bytes: Annotated[
        Positive, Meta(description="Size of the files that a day over is merged into, bytes. 128 MiB.")
    ] = 128 * 2**20
    max_open_files: Annotated[
        int, Meta(ge=4, description="Most small files of the open day; beyond, the smallest are merged.")
    ] = 24
    quiet_seconds: Annotated[
        Positive, Meta(description="Seconds without a new file after which a day over is merged into one.")
    ] = 3_600
    retention_days: Annotated[
        int, Meta(ge=0, description="Days that records are kept by their timestamps; 0: for ever.")
    ] = 0
    retention_max_bytes: Annotated[
        int, Meta(ge=0, description="Most bytes of the archive; beyond, its oldest days are given up; 0: no limit.")
    ] = 0
    grace_seconds: Annotated[
        Positive,
        Meta(description="Seconds that a file outlives its place in the table, more than any query or export takes."),
    ] = 3_600
    merge_memory_bytes: Annotated[
        Positive,
        Meta(description="Memory that merging may take before it spills, bytes; long texts may take more. 160 MiB."),
    ] = 160 * 2**20


class Log(Section, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is logged.")
    ] = "info"


class Settings(Section, frozen=True):
    """All settings. `base` is the folder that relative paths start from."""

    data: Data = Data()
    api: Api = Api()
    auth: Auth = Auth()
    collector: Collector = Collector()
    redis: Redis = Redis()
    persist: Persist = Persist()
    archive: ArchiveSection = ArchiveSection()
    log: Log = Log()
    base: str = ""

    @property
    def data_dir(self) -> Path:
        """Absolute path of `data.dir`."""
        return (Path(self.base or PROJECT) / Path(self.data.dir).expanduser()).absolute()

    @property
    def archive_dir(self) -> Path:
        """Absolute path of the archive, a Delta table."""
        return self.data_dir / "archive"

    @property
    def redis_dir(self) -> Path:
        """Absolute path of everything that Whimbrel's own Redis keeps."""
        return self.data_dir / "redis"


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "api": Api,
    "auth": Auth,
    "collector": Collector,
    "redis": Redis,
    "persist": Persist,
    "archive": ArchiveSection,
    "log": Log,
}


def load(file: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings.

    Raises `ConfigError` naming the setting, where it was set, and what it may be.
    """
    env = os.environ if environ is None else environ
    path = Path(file or env.get("WHIMBREL_CONFIG") or PROJECT / "config.toml")
    named = file is not None or "WHIMBREL_CONFIG" in env
    values = _read_file(path, must_exist=named)
    sections = {name: _section(name, values.pop(name, {}), env, path) for name in SECTIONS}
    if values:
        raise ConfigError(f"{path}: unknown section [{next(iter(values))}]; known are {', '.join(SECTIONS)}")
    _refuse_unknown_sections(env)
    settings = Settings(**sections, base=str(path.absolute().parent))  # type: ignore[arg-type]
    _check(settings)
    return settings


def _read_file(path: Path, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"cannot read settings {path}: no such file") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read settings {path}: {error}") from error


def _section(name: str, values: object, env: Mapping[str, str], path: Path) -> Section:
    kind = SECTIONS[name]
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {name} must be a section, [{name}]")
    merged = {}
    for key, value in values.items():
        merged[key] = _value(kind, name, key, value, f"{path}", strict=True)
    start = f"{PREFIX}{name}__".upper()
    for variable, text in env.items():
        if variable.upper().startswith(start):
            key = variable[len(start) :].lower()
            merged[key] = _value(kind, name, key, text, f"environment variable {variable}", strict=False)
    return kind(**merged)


def _value(kind: type[Section], section: str, key: str, value: object, where: str, strict: bool) -> object:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if key not in fields:
        raise ConfigError(f"{where}: unknown setting {section}.{key}; known are {', '.join(sorted(fields))}")
    try:
        return msgspec.convert(value, fields[key], strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: cannot use {section}.{key} = {value!r}: {error}") from None


def _refuse_unknown_sections(env: Mapping[str, str]) -> None:
    for variable in env:
        parts = variable.upper().split("__")
        if parts[0] == "WHIMBREL" and len(parts) > 1 and parts[1].lower() not in SECTIONS:
            raise ConfigError(f"environment variable {variable}: unknown section; known are {', '.join(SECTIONS)}")


def _check(settings: Settings) -> None:
    """Refuse values that are wrong together, or that only their content makes wrong."""
    if set(str(settings.data_dir)) & set("*?[]"):
        raise ConfigError(f"data.dir = {settings.data.dir!r} must not hold * ? [ or ]: DuckDB reads them as patterns")
    for name, host in (("api.host", settings.api.host), ("collector.host", settings.collector.host)):
        if not is_loopback(host) and not settings.auth.allow_anonymous:
            raise ConfigError(
                f"{name} = {host!r} lets other machines in, and no key is asked for: "
                "use 127.0.0.1, or set auth.allow_anonymous = true if your network keeps strangers out"
            )
    ports = (settings.api.port, settings.collector.http_port, settings.collector.tcp_port)
    if len(set(ports)) < len(ports):
        raise ConfigError("api.port, collector.http_port and collector.tcp_port must differ")
    if settings.redis.resume_percent > settings.redis.full_percent:
        raise ConfigError("redis.resume_percent must not be above redis.full_percent")
    if settings.persist.flush_records > settings.persist.max_records:
        raise ConfigError("persist.flush_records must not be above persist.max_records")


def is_loopback(host: str) -> bool:
    """True if only this machine can reach an address that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
