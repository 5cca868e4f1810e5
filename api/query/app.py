"""The application of the query program, and the operations that `/openapi.json` describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from api.analytics.summary import SUMMARY
from api.analytics.trips import STOPS, TRIPS
from api.audit.routes import AUDIT
from api.devices.delete_device import DELETE_DEVICE
from api.devices.deletion_status import DELETION
from api.devices.list_devices import DEVICE, DEVICES
from api.errors import HANDLERS
from api.latest.fleet import LATEST
from api.latest.live_stream import LIVE
from api.latest.routes import LATEST_OF_DEVICE
from api.pages.openapi import OPENAPI
from api.records.export import EXPORT
from api.records.range_query import RECORDS
from api.requests import device_path
from api.sign_in.routes import SESSION
from api.sql.routes import SQL
from api.status.box_history import BOX
from api.status.probe_operations import METRICS, READYZ
from api.status.status_page import STATUS
from collector.http import openapi

RouteGroup = Callable[[], Sequence[BaseRoute]]
"""Returns the routes of one subject, once the path type `device` is registered."""

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


def app(groups: Sequence[RouteGroup]) -> Starlette:
    """The query program's application, with the routes of all groups."""
    device_path.register()
    return Starlette(routes=[route for routes in groups for route in routes()], exception_handlers=HANDLERS)
