"""The collector program: HTTP and TCP to the hot store."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop

from collector.http import HttpLimits, app, make_arrival, make_intake
from collector.protocols import PROTOCOLS, MessageLimits
from collector.tcp import TcpCollector, Timeouts
from telemetry.config import Settings
from telemetry.program import main
from telemetry.serve import GRACE_S, http_server, listen, stop_on_signals

log = logging.getLogger("collector")


async def serve(settings: Settings) -> None:
    """Collect until a signal comes; then answer what was begun."""
    stopped = stop_on_signals()
    c = settings.collector
    http_socket, tcp_socket = listen(c.host, c.http_port), listen(c.host, c.tcp_port)
    intake = make_intake(settings)
    intake.start()
    arrival = make_arrival(settings, intake)
    limits = MessageLimits(c.max_message_bytes, c.max_request_records)
    tcp = TcpCollector(
        intake,
        lambda: PROTOCOLS["json"](limits),
        arrival,
        Timeouts(c.request_timeout_s, c.idle_timeout_s),
        c.max_connections,
    )
    server = http_server(app(intake, HttpLimits.of(settings), arrival))
    await tcp.start(tcp_socket)
    serving = asyncio.create_task(server.serve([http_socket]))
    log.info("collecting: HTTP on %s:%d, TCP on %s:%d", c.host, c.http_port, c.host, c.tcp_port)
    await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await asyncio.gather(tcp.stop(GRACE_S), serving)
    await intake.stop()


if __name__ == "__main__":
    sys.exit(main("collector", lambda settings: uvloop.run(serve(settings))))
