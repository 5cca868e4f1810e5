"""`whimbrel up`: the whole box, from one clear line when it is ready to the last program's end."""

from __future__ import annotations

import argparse
import datetime
import errno
import fcntl
import http.client
import importlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import IO, NoReturn

from cli.command import FAILED, OK, Command
from cli.redis_server import command
from cli.services import supervisor_config
from cli.services.first_key import give_first_key
from cli.services.program_log import ProgramLog
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT, Settings
from telemetry.config.urls import api_url, collector_url, http_url, reachable
from telemetry.model.errors import ConfigError
from telemetry.model.terminal_text import printable
from telemetry.network.tls import Identity, any_certificate
from telemetry.system.fsync import make_folder
from telemetry.system.permissions import OWN_FOLDER, restrict
from telemetry.system.runtime_dir import REFUSED, UP_LOCK, make_private, refusal, require_restored, runtime_dir

SECURE = "WHIMBREL__AUTH__SECURE"
LOOK_S = 0.25
PROBE_TIMEOUT_S = 2.0
PREDECESSOR_S = 15.0
PORTS_S = 5.0
SLOW_S = 60.0
"""After so long without being ready, and again each time, `up` says what it waits for."""

STOP_S = 15.0
"""Longer than supervisord takes even if every program hangs."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the box until SIGTERM or SIGINT. Raises `ConfigError` if it can't start."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    if args.secure and not settings.auth.secure:
        os.environ[SECURE] = "true"
        settings = load(args.config)
        say("whimbrel up: other commands need the setting, too: set auth.secure = true in the settings file")
    programs = supervisor_config.read_procfile(PROJECT / "Procfile")
    if settings.redis.url:
        programs.pop(supervisor_config.REDIS, None)
        for warning in importlib.import_module("cli.doctor.external_redis").check(settings):
            say(f"whimbrel up: {warning}")
    else:
        command.find(settings)
    if not settings.needs_courier:
        programs.pop(supervisor_config.COURIER, None)
    if settings.has_own_certificate:
        _ensure_certificate(settings)
    Identity.of(settings)  # what is wrong with it stops the start here, where somebody looks
    make_folder(settings.data_dir, OWN_FOLDER)
    _lock(settings.data_dir)
    for change in restrict(settings):
        say(f"whimbrel up: {change}")
    require_restored(settings.data_dir)
    folder = runtime_dir(settings.data_dir)
    make_private(folder)
    (folder / REFUSED).unlink(missing_ok=True)
    _wait_for_predecessor(folder)
    _await_ports(settings)
    environment = _environment(args)
    return Box(supervisor_config.start(folder, programs, environment), folder, settings, environment).run()


def _ensure_certificate(settings: Settings) -> None:
    """Loads cryptography, 20 MB, only where the box makes its own certificate. Raises `ConfigError`."""
    made = importlib.import_module("cli.services.self_signed")
    certificate, key = settings.tls_paths or (Path(), Path())
    try:
        hosts = made.own_hosts(settings.api.host, settings.collector.host)
        fingerprint = made.ensure(certificate, key, hosts, datetime.datetime.now(datetime.UTC))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use or make the box's own certificate {certificate}: {error}") from None
    say(f"whimbrel up: the box's own certificate has the SHA-256 fingerprint {fingerprint}")


def _leave(*_: object) -> NoReturn:
    sys.exit(OK)


def _environment(args: argparse.Namespace) -> dict[str, str]:
    """What leads every program to the settings that we were started with, from whatever folder."""
    named = args.config or os.environ.get("WHIMBREL_CONFIG")
    return {"WHIMBREL_CONFIG": str(Path(named).absolute())} if named else {}


def _lock(data_dir: Path) -> None:
    """Keep others off the data folder until this process ends, however it ends."""
    file = os.open(data_dir / UP_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"cannot start: Whimbrel is already running on {data_dir}") from None


def _wait_for_predecessor(folder: Path) -> None:
    """The programs of a `whimbrel up` that was killed take a moment to stop."""
    deadline = time.monotonic() + PREDECESSOR_S
    if supervisor_config.nudge(folder):
        say("whimbrel up: waiting for the programs of the run before to stop")
    while supervisor_config.nudge(folder):
        if time.monotonic() > deadline:
            raise ConfigError(f"cannot start: the run before still serves {folder / 'supervisor.sock'}")
        time.sleep(LOOK_S)


def _await_ports(settings: Settings) -> None:
    """See that nobody else uses our ports; programs that lost their supervisor may do so for a moment."""
    deadline = time.monotonic() + PORTS_S
    c = settings.collector
    further = [
        (f"collector.listen[{place}].port", one.host or c.host, one.port)
        for place, one in enumerate(c.listen, 1)
        if one.transport != "udp"
    ]
    for name, host, port in (
        ("api.port", settings.api.host, settings.api.port),
        ("collector.http_port", c.host, c.http_port),
        ("collector.tcp_port", c.host, c.tcp_port),
        *further,
    ):
        while error := _cannot_bind(host, port):
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise ConfigError(f"cannot start: {host} port {port} ({name}): {error.strerror}")
            time.sleep(LOOK_S)


def _cannot_bind(host: str, port: int) -> OSError | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


class Box:
    """The running box: supervisord, its output, and what was asked of it."""

    def __init__(
        self, supervisord: subprocess.Popen[bytes], folder: Path, settings: Settings, environment: Mapping[str, str]
    ) -> None:
        self.supervisord = supervisord
        self.environment = environment
        self.folder = folder
        self.settings = settings
        self.copier = Thread(target=_copy, args=(supervisord.stdout, ProgramLog(settings.log)), daemon=True)
        self.stop_by: float | None = None
        self.refused = ""
        self.had_terminal = os.isatty(sys.stdin.fileno())
        self.renew_asked = False

    def run(self) -> int:
        """Say when the box is ready, wait for a signal, stop it. Returns the exit status."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGHUP, self.renew)
        self.copier.start()
        self._await_ready()
        status = self._await_end()
        self.copier.join(timeout=1)
        return status

    def stop(self, *_: object) -> None:
        """Have supervisord stop everything; asked again, it changes nothing."""
        if self.stop_by is None:
            self.stop_by = time.monotonic() + STOP_S
            self.supervisord.terminate()

    def renew(self, *_: object) -> None:
        """Have certificates read again; but a terminal that was closed ends the box, as it ends any command in it."""
        if self.had_terminal and not os.isatty(sys.stdin.fileno()):
            self.stop()
        else:
            self.renew_asked = True

    def _await_ready(self) -> None:
        say_at = time.monotonic() + SLOW_S
        while not self._over() and (reason := not_ready(self.settings)):
            self._stop_if_refused()
            if time.monotonic() > say_at:
                say(f"whimbrel up: not ready yet: {reason}")
                say_at += SLOW_S
        if not self._over():
            if self.settings.auth.required:
                give_first_key(self.settings, self.environment, sys.stdout.isatty(), say)
            say(ready_line(self.settings))

    def _stop_if_refused(self) -> None:
        """A program that can't use what is on disk never will."""
        if not self.refused and (why := refusal(self.folder)):
            self.refused = why
            say(f"whimbrel up: {why}")
            self.stop()

    def _over(self) -> bool:
        return self._ended() or self.stop_by is not None

    def _await_end(self) -> int:
        while not self._ended():
            self._stop_if_refused()
            if self.stop_by is not None and time.monotonic() > self.stop_by:
                self.supervisord.kill()
                say(f"whimbrel up: supervisord did not stop within {STOP_S:.0f} s and was killed")
                return FAILED
        if self.stop_by is not None:
            return FAILED if self.refused else OK
        say(f"whimbrel up: supervisord ended by itself, exit status {self.supervisord.returncode}")
        return FAILED

    def _ended(self) -> bool:
        """Wait a moment for supervisord's end, which ends its output."""
        self.copier.join(LOOK_S)
        if self.renew_asked:
            self.renew_asked = False
            if reason := supervisor_config.pass_on_sighup(self.folder):
                say(f"whimbrel up: cannot pass SIGHUP on to the programs: {reason}")
        supervisor_config.nudge(self.folder)
        return self.supervisord.poll() is not None


def not_ready(settings: Settings) -> str:
    """The reason why the box can't be used yet, or an empty text."""
    collector = reachable(settings.collector.host)
    tls = any_certificate() if settings.tls.certificate else None
    try:
        socket.create_connection((collector, settings.collector.tcp_port), PROBE_TIMEOUT_S).close()
    except OSError as error:
        return f"collector, TCP port {settings.collector.tcp_port}: {error}"
    return _http_not_ok("collector", collector, settings.collector.http_port, "/healthz", tls) or _http_not_ok(
        "api", reachable(settings.api.host), settings.api.port, "/readyz", tls
    )


def _http_not_ok(name: str, host: str, port: int, path: str, tls: ssl.SSLContext | None) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    if tls is not None:
        connection = http.client.HTTPSConnection(host, port, timeout=PROBE_TIMEOUT_S, context=tls)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{name}, port {port}, {path}: {error}"
    finally:
        connection.close()
    return "" if response.status == http.client.OK else f"{name}, port {port}, {path}: {response.status} {body}"


def ready_line(settings: Settings) -> str:
    """The line that says where the box is."""
    collector = settings.collector
    tcp = http_url(collector.host, collector.tcp_port).removeprefix("http://")
    tcp += " with TLS" if settings.tls.certificate else ""
    return (
        f"Whimbrel is ready: {api_url(settings)} "
        f"(collector {collector_url(settings)}, TCP {tcp}), data in {settings.data_dir}"
    )


def _copy(output: IO[bytes], log: ProgramLog) -> None:
    """Hand on the programs' lines, whole, to whatever our standard output is; supervisord itself can't use a socket."""
    for line in output:
        _write(log.of(line))


def say(text: str) -> None:
    """Print one whole line at once, between those of the programs."""
    _write(f"{printable(text)}\n".encode())


def _write(line: bytes) -> None:
    """Past Python's buffer: a line for which the log's disk has no room is lost, and the next one is tried again."""
    rest = line
    try:
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # the reader is gone, which must not end the box
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secure",
        action="store_true",
        help="require keys, use TLS with a certificate of the box's own, limit each address and key; as auth.secure",
    )


COMMAND = Command(
    "Start the whole box and keep it running; Ctrl-C or SIGTERM stops it.", _add_arguments, run, writes="data"
)
