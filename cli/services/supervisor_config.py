"""The Procfile's programs as a configuration of supervisord, and supervisord as a child of ours.

    whimbrel up ── supervisord ─┬─ redis
                                └─ group whimbrel: collector, worker, scheduler, query, api, courier

Each is tied to the one above (`telemetry.system.process`): a killed `whimbrel up` leaves nothing running.
Those in Python are forks of supervisord (`cli/services/fork_server.py`).
The programs of the group stop together, then Redis, which they need to the last.
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

RENEWING = ("collector", "api")
"""Programs that have something to renew at SIGHUP; supervisord itself would start all programs anew."""

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

# startsecs 0: whatever ends is started again, without supervisord's growing pause for what ended soon
# after its start.
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
    """Name and command of each program. Raises `ConfigError` naming the line that isn't `name: command`."""
    programs = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"([A-Za-z0-9_-]+):\s*(\S.*)", line.rstrip())
        if found is None:
            raise ConfigError(f"cannot read {path}, line {number}: {line!r} is not `name: command`")
        programs[found[1]] = found[2]
    return programs


def configuration(programs: Mapping[str, str]) -> str:
    """Supervisord's configuration file. Its sockets are beside it, wherever it is put."""
    user = "user = root\n" if os.getuid() == 0 else ""  # says that this is meant
    sections = [HEAD.format(user=user, password=secrets.token_hex(16))]
    if grouped := [name for name in programs if name != REDIS]:
        sections.append(GROUP.format(names=",".join(grouped)))
    for name, command in programs.items():
        stop_s = STOP_REDIS_S if name == REDIS else STOP_PROGRAMS_S
        sections.append(PROGRAM.format(name=name, command=command.replace("%", "%%"), stop_s=stop_s))
    return "".join(sections)


def start(folder: Path, programs: Mapping[str, str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start supervisord in the private `folder`; its output and that of all programs is its `stdout`.

    Every program gets `environment`, finds this Python's commands first, and works in the project's folder.
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
        start_new_session=True,  # Ctrl-C is for us; we say when supervisord stops
        preexec_fn=tie,  # noqa: PLW1509 - no thread has been started yet
    )


def pass_on_sighup(folder: Path) -> str:
    """Have the programs that have something to renew do so. Empty, or why they can't be told."""
    names = [":".join((GROUP_NAME, name)) for name in RENEWING]
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(folder / "supervisord.conf"), "signal"]
    done = subprocess.run([*command, "HUP", *names], cwd=PROJECT, text=True, capture_output=True)
    return "" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())


def nudge(folder: Path) -> bool:
    """Have the supervisor of `folder` look at its programs now. False if none is there.

    By itself it looks once a second, and to start a killed program again takes it two looks.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(folder / "supervisor.sock"))
        except OSError as error:
            return isinstance(error, TimeoutError)  # stuck, but there
        return True
