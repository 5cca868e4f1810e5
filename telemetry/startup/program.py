"""Start of a program: settings, log, checks of Redis, store set-up; or exit with a clear message."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import redis

from telemetry.config.loader import load
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store import shard
from telemetry.hot_store.client import check_server, connect, wait
from telemetry.hot_store.credentials import act_as
from telemetry.model.errors import BusyError, ConfigError, LayoutError, StoreUnavailable, WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.observability.log_setup import log_to_stderr
from telemetry.system.permissions import keep_private
from telemetry.system.process import die_with_parent, is_supervised
from telemetry.system.runtime_dir import refuse, require_restored
from telemetry.system.systemd_notify import watchdog

FAILED = 1
WRONG_SETTINGS = 2
"""Exit status of a program if its settings, or Redis's settings, are wrong."""

PAUSE_S = 2.0
"""Delay before a supervised program exits after a failure, s: a persistent cause then costs no CPU."""

QUIET_S = 10.0
"""Waits up to this length are logged at severity DEBUG only, because the programs of a box start together, s."""


def main(program: str, run: Callable[[Settings], None], needs_store: bool = True, waits: bool = True) -> int:
    """Call `run` once Redis answers and its store is set up, as far as `needs_store` and `waits` ask for it.

    Returns the exit status.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--config", metavar="FILE", help="settings file (default: $WHIMBREL_CONFIG, else config.toml)")
    args = parser.parse_args()
    keep_private()
    die_with_parent()
    if is_supervised():  # only some programs handle SIGHUP; ignore it until their handlers are installed
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    act_as(program)
    status = _run(program, args.config, run, needs_store, waits)
    watchdog.stopping()
    if status != 0 and is_supervised():
        with StopFlag() as stopped:
            _pause(stopped)
    return status


def _run(program: str, config: str | None, run: Callable[[Settings], None], needs_store: bool, waits: bool) -> int:
    try:
        settings = load(config)
        require_restored(settings.data_dir)
        log_to_stderr(settings.log.level, settings.log.format, program)
        with StopFlag() as stopped:
            ready = not waits or wait_for_store(settings, stopped, needs_store)
        if ready:
            run(settings)
    except LayoutError as error:
        refuse(settings.data_dir, str(error))
        _print(program, error)
        return WRONG_SETTINGS
    except ConfigError as error:
        _print(program, error)
        return WRONG_SETTINGS
    except WhimbrelError as error:
        _print(program, error)
        return FAILED
    except Exception:
        logging.getLogger("start").exception("%s cannot continue", program)
        return FAILED
    return 0


def _print(program: str, error: WhimbrelError) -> None:
    """Print why a program ends. Control characters are escaped: the text may contain settings and foreign output."""
    print(printable(f"{program}: {error}", keeps_lines=True), file=sys.stderr)


def _pause(stopped: Callable[[], bool]) -> None:
    """Wait before a failure ends the program, because the supervisor restarts it at once."""
    end_s = time.monotonic() + PAUSE_S
    while not stopped() and time.monotonic() < end_s:
        time.sleep(0.05)


class StopFlag:
    """Context in which SIGTERM and SIGINT set a flag instead of ending the program."""

    def __init__(self) -> None:
        self._is_set = False

    def __call__(self) -> bool:
        return self._is_set

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_set = True


def wait_for_store(settings: Settings, stopped: Callable[[], bool], needs_store: bool) -> bool:
    """Wait for Redis, check its settings, and wait for the store, or for the conditions to make one.

    False if stopped meanwhile.
    """
    tell = WaitLog()
    with connect(settings) as client:
        while wait(client, tell, stopped):
            try:
                check_server(client, settings.redis.durability)
                if needs_store:
                    shard.attach(client, settings.redis.shards)
                else:
                    _require_writable(client)
                return True
            except StoreUnavailable as error:
                tell(f"waiting: {error}")
                time.sleep(0.2)
    return False


class WaitLog:
    """Logs why a start waits: each reason once at severity DEBUG, and once at INFO if it persists."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log = logging.getLogger("start")
        self._monotonic = monotonic
        self._usual_until_s = monotonic() + QUIET_S
        self._last_logged = ("", logging.NOTSET)

    def __call__(self, reason: str) -> None:
        level = logging.DEBUG if self._monotonic() < self._usual_until_s else logging.INFO
        if (reason, level) != self._last_logged:
            self._last_logged = (reason, level)
            self._log.log(level, "%s", reason)


def _require_writable(client: redis.Redis) -> None:
    """Raise `StoreUnavailable` if Redis accepts no writes. A Redis at its memory limit still accepts the worker's
    start.
    """
    with contextlib.suppress(BusyError):
        shared_state.write_heartbeat(client, shared_state.WORKER, time.time())
