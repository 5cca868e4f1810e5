"""The collector program: devices' messages over HTTP, TCP, UDP and MQTT to the hot store."""

from __future__ import annotations

import sys
from functools import partial

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

import uvloop

from collector.listeners import extra_ports
from collector.listeners.process_pool import Sockets, run_each, sockets
from collector.program import serve
from telemetry.config.settings import Settings
from telemetry.http.server import listen
from telemetry.startup.program import main


def run(settings: Settings) -> None:
    """Collect in this process, or in several."""
    c = settings.collector
    if c.processes == 1:
        listening = Sockets(listen(c.host, c.http_port), listen(c.host, c.tcp_port), extra_ports.sockets(c))
        uvloop.run(serve(settings, listening))
    else:
        more = partial(extra_ports.sockets, c)
        each = sockets(c.host, c.http_port, c.tcp_port, c.processes, more)
        run_each(each, lambda listening: uvloop.run(serve(settings, listening)))


if __name__ == "__main__":
    sys.exit(main("collector", run))
