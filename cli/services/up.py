"""`whimbrel up`: starts the whole box, prints a line when it is ready, and stops all programs at the end."""

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
POLL_S = 0.25
PROBE_TIMEOUT_S = 2.0
PREDECESSOR_S = 15.0
PORTS_S = 5.0
SLOW_S = 60.0
"""Interval at which `up` prints the reason while the box is not ready."""

STOP_S = 15.0
"""Longer than supervisord needs if every program hangs."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the box until SIGTERM or SIGINT. Raises `ConfigError` if it cannot start."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    if args.secure and not settings.auth.secure:
        os.environ[SECURE] = "true"
        settings = load(args.config)
        say("whimbrel up: other commands do not know about --secure; set auth.secure = true in the settings file")
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
    Identity.of(settings)  # an invalid certificate stops the start here, with a message on the terminal
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
    """Create the own certificate if needed. Imports cryptography, a large library, only here. Raises `ConfigError`."""
    self_signed = importlib.import_module("cli.services.self_signed")
    certificate, key = settings.tls_paths or (Path(), Path())
    try:
        hosts = self_signed.own_hosts(settings.api.host, settings.collector.host)
        fingerprint = self_signed.ensure(certificate, key, hosts, datetime.datetime.now(datetime.UTC))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use or create the box's own certificate {certificate}: {error}") from None
    say(f"whimbrel up: the box's own certificate has the SHA-256 fingerprint {fingerprint}")


def _exit(*_: object) -> NoReturn:
    sys.exit(OK)


def _environment(args: argparse.Namespace) -> dict[str, str]:
    """Environment variables that give every program the same settings file, with an absolute path."""
    named = args.config or os.environ.get("WHIMBREL_CONFIG")
    return {"WHIMBREL_CONFIG": str(Path(named).absolute())} if named else {}


def _lock(data_dir: Path) -> None:
    """Lock the data folder against another `whimbrel up`, until this process exits for any reason."""
    file = os.open(data_dir / UP_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"cannot start: Whimbrel is already running on {data_dir}") from None


def _wait_for_predecessor(folder: Path) -> None:
    """Wait until the programs of a previous `whimbrel up`, which was killed, have stopped."""
    deadline = time.monotonic() + PREDECESSOR_S
    if supervisor_config.wake(folder):
        say("whimbrel up: waiting for the programs of the previous run to stop")
    while supervisor_config.wake(folder):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"cannot start: the supervisor of the previous run still serves {folder / 'supervisor.sock'}"
            )
        time.sleep(POLL_S)


def _await_ports(settings: Settings) -> None:
    """Wait until all ports are free: programs of a killed supervisor may use them briefly. Raises `ConfigError`."""
    deadline = time.monotonic() + PORTS_S
    c = settings.collector
    further = [
        (f"collector.listen[{number}].port", listen.host or c.host, listen.port)
        for number, listen in enumerate(c.listen, 1)
        if listen.transport != "udp"
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
            time.sleep(POLL_S)


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
    """The running box: supervisord, its output, and pending requests to stop or to reload certificates."""

    def __init__(
        self, supervisord: subprocess.Popen[bytes], folder: Path, settings: Settings, environment: Mapping[str, str]
    ) -> None:
        self.supervisord = supervisord
        self.environment = environment
        self.folder = folder
        self.settings = settings
        self.log_thread = Thread(target=_copy, args=(supervisord.stdout, ProgramLog(settings.log)), daemon=True)
        self.stop_by: float | None = None
        self.refused = ""
        self.had_terminal = os.isatty(sys.stdin.fileno())
        self.reload_requested = False

    def run(self) -> int:
        """Print a line when the box is ready, wait for a signal, stop the box. Returns the exit status."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGHUP, self.reload)
        self.log_thread.start()
        self._await_ready()
        status = self._await_end()
        self.log_thread.join(timeout=1)
        return status

    def stop(self, *_: object) -> None:
        """Have supervisord stop all programs. Further calls do nothing."""
        if self.stop_by is None:
            self.stop_by = time.monotonic() + STOP_S
            self.supervisord.terminate()

    def reload(self, *_: object) -> None:
        """Have the programs reload certificates. If SIGHUP comes from a closed terminal, stop the box instead."""
        if self.had_terminal and not os.isatty(sys.stdin.fileno()):
            self.stop()
        else:
            self.reload_requested = True

    def _await_ready(self) -> None:
        report_at = time.monotonic() + SLOW_S
        while not self._is_over() and (reason := not_ready(self.settings)):
            self._stop_if_refused()
            if time.monotonic() > report_at:
                say(f"whimbrel up: not ready yet: {reason}")
                report_at += SLOW_S
        if not self._is_over():
            if self.settings.auth.required:
                give_first_key(self.settings, self.environment, sys.stdout.isatty(), say)
            say(ready_line(self.settings))

    def _stop_if_refused(self) -> None:
        """Stop the box if a program cannot use the data on disk: a restart would not help."""
        if not self.refused and (why := refusal(self.folder)):
            self.refused = why
            say(f"whimbrel up: {why}")
            self.stop()

    def _is_over(self) -> bool:
        return self._has_ended() or self.stop_by is not None

    def _await_end(self) -> int:
        while not self._has_ended():
            self._stop_if_refused()
            if self.stop_by is not None and time.monotonic() > self.stop_by:
                self.supervisord.kill()
                say(f"whimbrel up: supervisord did not stop within {STOP_S:.0f} s and was killed")
                return FAILED
        if self.stop_by is not None:
            return FAILED if self.refused else OK
        say(f"whimbrel up: supervisord exited unexpectedly, exit status {self.supervisord.returncode}")
        return FAILED

    def _has_ended(self) -> bool:
        """Wait up to `POLL_S` for the end of supervisord, and pass on a pending SIGHUP."""
        self.log_thread.join(POLL_S)
        if self.reload_requested:
            self.reload_requested = False
            if reason := supervisor_config.pass_on_sighup(self.folder):
                say(f"whimbrel up: cannot pass SIGHUP on to the programs: {reason}")
        supervisor_config.wake(self.folder)
        return self.supervisord.poll() is not None


def not_ready(settings: Settings) -> str:
    """The reason why the box is not ready; an empty text if it is."""
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
    """The line with the box's addresses and data folder."""
    collector = settings.collector
    tcp = http_url(collector.host, collector.tcp_port).removeprefix("http://")
    tcp += " with TLS" if settings.tls.certificate else ""
    return (
        f"Whimbrel is ready: {api_url(settings)} "
        f"(collector {collector_url(settings)}, TCP {tcp}), data in {settings.data_dir}"
    )


def _copy(output: IO[bytes], log: ProgramLog) -> None:
    """Copy whole lines of the programs to standard output, which may be a socket: supervisord cannot write to one."""
    for line in output:
        _write(log.format(line))


def say(text: str) -> None:
    """Print a line in one write, so that it does not mix with lines of the programs."""
    _write(f"{printable(text)}\n".encode())


def _write(line: bytes) -> None:
    """Write without Python's buffer. If the disk of the log is full, this line is lost, and later ones are tried."""
    rest = line
    try:
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # the reader has closed the pipe; the box continues
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secure",
        action="store_true",
        help="require keys, use TLS with the box's own certificate, limit each address and key; same as auth.secure",
    )


COMMAND = Command(
    "Start the whole box and keep it running; Ctrl-C or SIGTERM stops it.", _add_arguments, run, writes="data"
)
