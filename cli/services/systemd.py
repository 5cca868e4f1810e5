"""`whimbrel systemd`: writes systemd units for the programs of the Procfile, a service for each.

    whimbrel.target ── wants ── whimbrel-redis, whimbrel-collector, whimbrel-worker, …

Each program has its own service, without a supervisor: a crash or a memory limit ends only one program, and
`systemctl status` and the journal show each separately. All start after Redis, and therefore stop before it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from cli.command import OK, Command
from cli.services import supervisor_config
from telemetry.config.settings import PROJECT, Settings
from telemetry.model.errors import ConfigError
from telemetry.system.fsync import make_folder
from telemetry.system.permissions import ENTERED_FOLDER, OWN_FOLDER, PRIVATE, SHARED

STATE = Path("/var/lib/whimbrel")
SOCKETS = "AF_UNIX"
NETWORK = "AF_UNIX AF_INET AF_INET6"

NETWORKED = ("collector", "api", "courier")
"""Programs that need the network: they accept connections or connect to other machines."""

WRITES_ARCHIVE = "worker"

WATCHDOG_S = {"worker": 180}
DEFAULT_WATCHDOG_S = 60
"""Longer than the worker's longest job, and than other programs' timeout for a call to Redis."""

STOP_S = {supervisor_config.REDIS: 60, "worker": 60}
DEFAULT_STOP_S = 15

MEMORY_MAX = {"collector": "1G", "scheduler": "256M", "query": "2G", "api": "1G", "courier": "512M", "worker": "3G"}
"""Far above normal use (docs/operations/configure.md): a memory leak ends only one program. Redis limits itself."""

TARGET = """\
[Unit]
Description=Whimbrel, a collector of device telemetry
Documentation=file://{project}/docs/deployment.md
Wants={services}

[Install]
WantedBy=multi-user.target
"""

SERVICE = """\
[Unit]
Description=Whimbrel: {name}
PartOf=whimbrel.target
{order}StartLimitIntervalSec=0

[Service]
{kind}ExecStart={command}
{reload}WorkingDirectory={project}
Environment=WHIMBREL_CONFIG={config}
Environment=WHIMBREL__DATA__DIR={data}
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
User={user}
Group={user}
{groups}Restart=always
RestartSec=1
TimeoutStartSec=infinity
TimeoutStopSec={stop_s}
LimitNOFILE=65536
LimitCORE=0
{memory}{state}
UMask={umask}
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={home}
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers={users}
DevicePolicy=closed
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID={setgid}
RestrictAddressFamilies={families}
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
{network}
[Install]
WantedBy=whimbrel.target
"""

SYSUSERS = 'u {user} - "Whimbrel" {data} /usr/sbin/nologin\n'


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write the units. Raises `ConfigError` if they cannot be written."""
    folder = Path(args.write).absolute()
    files = units(settings, args.user, Path(args.data).absolute(), _config(args))
    try:
        make_folder(folder)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write units to {folder}: {error.strerror}") from error
    for name in files:
        print(folder / name)
    return OK


def units(settings: Settings, user: str, data: Path, config: Path) -> dict[str, str]:
    """Name → text of each file. Raises `ConfigError` for a path with characters that systemd interprets."""
    programs = supervisor_config.read_procfile(PROJECT / "Procfile")
    if settings.redis.url:
        programs.pop(supervisor_config.REDIS)
    for path in (PROJECT, data, config, Path(sys.executable)):
        if any(character in str(path) for character in " %\"'\\$"):
            raise ConfigError(
                f"cannot write units for {path}: systemd interprets its blanks or special characters; use another path"
            )
    files = {
        f"whimbrel-{name}.service": _service(name, programs, user, data, config, settings.data.group)
        for name in programs
    }
    target = TARGET.format(project=PROJECT, services=" ".join(files))
    return {"whimbrel.target": target, **files, "whimbrel.sysusers.conf": SYSUSERS.format(user=user, data=data)}


def _service(name: str, programs: Mapping[str, str], user: str, data: Path, config: Path, readers: str) -> str:
    is_redis = name == supervisor_config.REDIS
    redis = f"whimbrel-{supervisor_config.REDIS}.service"
    has_redis = supervisor_config.REDIS in programs
    after_redis = f"Wants={redis}\nAfter=network.target {redis}\n" if has_redis else "After=network.target\n"
    watchdog_s = WATCHDOG_S.get(name, DEFAULT_WATCHDOG_S)
    is_offline = has_redis and name not in NETWORKED
    is_shared = bool(readers) and name == WRITES_ARCHIVE
    return SERVICE.format(
        name=name,
        order="After=network.target\n" if is_redis else after_redis,
        kind="Type=exec\n" if is_redis else f"Type=notify\nNotifyAccess=main\nWatchdogSec={watchdog_s}\n",
        command=_command(programs[name]),
        reload="ExecReload=/bin/kill -HUP $MAINPID\n" if name in ("collector", "api") else "",
        project=PROJECT,
        config=config,
        data=data,
        user=user,
        stop_s=STOP_S.get(name, DEFAULT_STOP_S),
        memory=f"MemoryMax={MEMORY_MAX[name]}\n" if name in MEMORY_MAX else "",
        state="\n".join(_state(data, ENTERED_FOLDER if readers else OWN_FOLDER)),
        umask=f"{SHARED if is_shared else PRIVATE:04o}",
        # To give files to a supplementary group, a program must be in the group and may set the setgid bit.
        groups=f"SupplementaryGroups={readers}\n" if is_shared else "",
        users="no" if is_shared else "yes",
        setgid="no" if is_shared else "yes",
        home="read-only" if any(str(path).startswith(("/home/", "/root/")) for path in (PROJECT, config)) else "yes",
        families=SOCKETS if is_offline else NETWORK,
        network="PrivateNetwork=yes\nIPAddressDeny=any\n" if is_offline else "",
    )


def _state(data: Path, mode: int) -> Iterator[str]:
    """Lines for the data folder: systemd creates it below /var/lib; elsewhere it must exist."""
    if data.parent == STATE.parent:
        yield f"StateDirectory={data.name}"
        yield f"StateDirectoryMode={mode:04o}"
    else:
        yield f"ReadWritePaths={data}"


def _command(command: str) -> str:
    """A command of the Procfile with the absolute path of its program, from this Python's folder."""
    first, _, rest = command.partition(" ")
    return f"{Path(sys.executable).parent / first} {rest}".rstrip()


def _config(args: argparse.Namespace) -> Path:
    return Path(args.config or os.environ.get("WHIMBREL_CONFIG") or PROJECT / "config.toml").absolute()


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--write", metavar="DIR", required=True, help="folder to write to, for example /etc/systemd/system"
    )
    parser.add_argument("--user", default="whimbrel", help="user that runs the box (default: whimbrel)")
    parser.add_argument("--data", metavar="DIR", default=str(STATE), help=f"data folder (default: {STATE})")


COMMAND = Command("Write systemd units for all programs (docs/deployment.md).", _add_arguments, run)
