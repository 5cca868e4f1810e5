"""supervisord: its configuration made from the Procfile, its start as a child process, and requests to it.

    whimbrel up ── supervisord ─┬─ redis
                                └─ group whimbrel: collector, worker, scheduler, query, api, courier

Each process ends with its parent (`telemetry.system.process`): after a kill of `whimbrel up`, no program keeps running.
Python programs are forks of supervisord (`cli/services/fork_server.py`).
The programs of the group stop together, then Redis, which they need until they have stopped.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from telemetry.config.settings import PROJECT
from telemetry.model.errors import ConfigError
from telemetry.system.process import SUPERVISED, die_with_parent

REDIS = "redis"
COURIER = "courier"

RELOADING = ("collector", "api")
"""Programs that reload their certificates at SIGHUP. At its own SIGHUP, supervisord would restart all programs."""

STOP_PROGRAMS_S = 5
STOP_REDIS_S = 3
"""Together under 10 s, even if every program hangs."""

HEAD = """\
[supervisord]
nodaemon = true
logfile = /dev/null
logfile_maxbytes = 0
minfds = 256
pidfile = %(here)s/supervisord.pid
umask = 077
{user}
[unix_http_server]
file = %(here)s/supervisor.sock
chmod = 0700
username = whimbrel
password = {password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://%(here)s/supervisor.sock
username = whimbrel
password = {password}
"""

GROUP_NAME = "whimbrel"

GROUP = f"""
[group:{GROUP_NAME}]
programs = {{names}}
priority = 2
"""

# startsecs 0: supervisord restarts each program that exits, without its growing delay after early exits.
PROGRAM = """
[program:{name}]
command = {command}
priority = 1
autorestart = true
startsecs = 0
startretries = 1000000
stopwaitsecs = {stop_s}
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = /dev/fd/1
stdout_logfile_maxbytes = 0
"""


def read_procfile(path: Path) -> dict[str, str]:
    """Name and command of each program. Raises `ConfigError` for any line that is not `name: command`."""
    programs = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9_-]+):\s*(\S.*)", line.rstrip())
        if match is None:
            raise ConfigError(f"cannot read {path}, line {number}: {line!r} is not `name: command`")
        programs[match[1]] = match[2]
    return programs


def configuration(programs: Mapping[str, str]) -> str:
    """supervisord's configuration file. Its sockets are in the same folder."""
    user = "user = root\n" if os.getuid() == 0 else ""  # without it supervisord warns
    sections = [HEAD.format(user=user, password=secrets.token_hex(16))]
    if grouped := [name for name in programs if name != REDIS]:
        sections.append(GROUP.format(names=",".join(grouped)))
    for name, command in programs.items():
        stop_s = STOP_REDIS_S if name == REDIS else STOP_PROGRAMS_S
        sections.append(PROGRAM.format(name=name, command=command.replace("%", "%%"), stop_s=stop_s))
    return "".join(sections)


def start(folder: Path, programs: Mapping[str, str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start supervisord with its files in the private `folder`; its `stdout` also has the output of all programs.

    Every program gets `environment`, a PATH that begins with this Python's commands, and the project as its working
    directory.
    """
    file = folder / "supervisord.conf"
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(configuration(programs), encoding="utf-8")
    parent = os.getpid()
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    environment = {**environment, "PATH": os.pathsep.join(paths), SUPERVISED: str(parent)}

    def tie() -> None:
        os.environ.update(environment)
        die_with_parent()
        os.environ[SUPERVISED] = str(os.getpid())  # exec keeps it

    return subprocess.Popen(
        [sys.executable, "-m", "cli.services.fork_server", "-n", "-c", file],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # only `up` receives Ctrl-C, and then stops supervisord
        preexec_fn=tie,  # noqa: PLW1509 - no thread has been started yet
    )


def pass_on_sighup(folder: Path) -> str:
    """Send SIGHUP to the programs that reload certificates. Returns the reason if it fails, else an empty text."""
    names = [":".join((GROUP_NAME, name)) for name in RELOADING]
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(folder / "supervisord.conf"), "signal"]
    done = subprocess.run([*command, "HUP", *names], cwd=PROJECT, text=True, capture_output=True)
    return "" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())


def wake(folder: Path) -> bool:
    """Make the supervisor of `folder` poll its programs now. False if no supervisor runs.

    It polls once a second, and the restart of a killed program takes two polls.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(folder / "supervisor.sock"))
        except OSError as error:
            return isinstance(error, TimeoutError)  # it runs, but does not answer
        return True
