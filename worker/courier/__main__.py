"""The courier program. Without a forward or an alert it replaces itself by a small process that waits for its end."""

from __future__ import annotations

import importlib
import os
import signal
import sys

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, shared_state
from telemetry.hot_store.client import connect
from telemetry.startup.program import StopFlag, main
from telemetry.system.systemd_notify import watchdog

ENDS = {signal.SIGTERM, signal.SIGINT}

WAIT = "import signal; signal.sigwait({signal.SIGTERM, signal.SIGINT})"


def serve(settings: Settings) -> None:
    """Forward records and send alerts until a signal arrives. Redis may be unreachable, which is then reported."""
    if not settings.needs_courier:
        wait()
    publishing = metric_reports.publishing(lambda: connect(settings), metric_reports.Reporter(shared_state.COURIER))
    with StopFlag() as stopped, publishing:
        importlib.import_module("worker.courier.service").serve(settings, stopped)


def wait() -> None:
    """Replace this program by one that only waits. The tie to the supervisor remains, and no signal is lost."""
    watchdog.rest()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    words = [sys.executable, "-I", "-S", "-c", WAIT, "courier: nothing to do"]
    os.execv(sys.executable, words)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    sys.exit(main("courier", serve, waits=False))
