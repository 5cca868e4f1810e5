"""The routes of the query program, and the operations that `/openapi.json` describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from api.analytics.summary import SUMMARY, Summaries
from api.analytics.trips import STOPS, TRIPS, Trips
from api.audit.routes import AUDIT
from api.devices.delete_device import DELETE_DEVICE
from api.devices.deletion_status import DELETION, DeletionRoutes
from api.devices.list_devices import DEVICE, DEVICES, DeviceRoutes
from api.errors import HANDLERS
from api.latest.fleet import LATEST, Fleet
from api.latest.live_stream import LIVE
from api.latest.routes import LATEST_OF_DEVICE
from api.legacy.list_routes import ListRoutes
from api.pages.openapi import OPENAPI, Document
from api.records.export import EXPORT, Exports
from api.records.range_query import RECORDS, History
from api.requests import device_path
from api.requests.device_path import DeviceRoute
from api.sign_in.routes import SESSION
from api.sql.routes import SQL
from api.status.box_history import BOX
from api.status.probe_operations import METRICS, READYZ
from api.status.readiness import Health
from api.status.status_page import STATUS, Status
from collector.http import openapi

OPERATIONS = (
    RECORDS,
    EXPORT,
    LATEST,
    LATEST_OF_DEVICE,
    LIVE,
    DEVICES,
    DEVICE,
    SUMMARY,
    TRIPS,
    STOPS,
    SQL,
    *openapi.OPERATIONS,
    DELETE_DEVICE,
    DELETION,
    READYZ,
    STATUS,
    METRICS,
    BOX,
    SESSION,
    AUDIT,
    OPENAPI,
)
"""Routes that the OpenAPI document describes: this program's and the API program's."""


def app(
    history: History,
    fleet: Fleet,
    devices: DeviceRoutes,
    exports: Exports,
    summaries: Summaries,
    trips: Trips,
    health: Health,
    status: Status,
    lists: ListRoutes,
    document: Document,
    deletions: DeletionRoutes,
    sql: Callable[[Request], Awaitable[Response]],
) -> Starlette:
    """The query program's application. A new route is a file, a line here and one in `OPERATIONS`."""
    device_path.register()
    return Starlette(
        routes=[
            RECORDS.route(history.get_records),
            LATEST.route(fleet.get_latest),
            DEVICES.route(devices.get_devices),
            DeviceRoute(DEVICE.path, devices.get_device, methods=["GET"]),
            EXPORT.route(exports.get_export),
            SUMMARY.route(summaries.get_summary),
            TRIPS.route(trips.get_trips),
            STOPS.route(trips.get_stops),
            SQL.route(sql),
            READYZ.route(health.get_readyz),
            DELETION.route(deletions.get_deletion),
            OPENAPI.route(document.get),
            *status.routes(),
            *lists.routes(),
        ],
        exception_handlers=HANDLERS,
    )
