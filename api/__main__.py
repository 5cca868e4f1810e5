"""The API program: latest and history, and the HTTP collector's routes on the same port."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial

import uvloop

from api.app import app
from api.health import Health
from api.history import History, Queries
from api.latest import LatestRoutes
from api.older.pages import Pages
from api.older.routes import OlderRoutes
from api.snapshot import Snapshots
from api.status import Status
from collector.http import HttpLimits, make_arrival, make_intake, routes
from telemetry import hot
from telemetry.archive import Archive, open_duckdb
from telemetry.config import Settings
from telemetry.program import main
from telemetry.redis_client import connect, connect_async
from telemetry.serve import http_server, listen, stop_on_signals

log = logging.getLogger("api")


async def serve(settings: Settings) -> None:
    """Answer until a signal comes; then end what was begun."""
    stopped = stop_on_signals()
    listening = listen(settings.api.host, settings.api.port)
    a, shards = settings.api, settings.redis.shards
    intake = make_intake(settings)
    intake.start()
    limits, arrival = HttpLimits.of(settings), make_arrival(settings, intake)
    archive = Archive(settings.archive_dir)
    client = connect(settings)
    snapshots = Snapshots(lambda: hot.pinned(client, shards), archive)
    connection = open_duckdb(settings.data_dir / "tmp" / "api")
    queries = Queries(connection, a.query_threads, a.query_queue, a.query_timeout_s)
    latest = LatestRoutes(connect_async(settings), shards, a.max_page_records)
    attach = partial(hot.attach, client, shards)
    health = Health(client, attach, archive, settings.redis.durability, settings.redis.full_percent)
    application = app(
        routes(intake, limits, arrival),
        latest,
        History(snapshots, queries, a.max_page_records),
        health,
        Status(health, client, attach, archive, settings.data_dir, settings.redis.full_percent),
        OlderRoutes(intake, limits, arrival, latest, queries, Pages(snapshots, a.page_memory_bytes)),
    )
    server = http_server(application)
    serving = asyncio.create_task(server.serve([listening]))
    log.info("answering on %s:%d", a.host, a.port)
    await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    queries.close()
    await intake.stop()


if __name__ == "__main__":
    sys.exit(main("api", lambda settings: uvloop.run(serve(settings))))
