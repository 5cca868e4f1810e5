"""Routes of the older service that need no archive: the post, and the latest record of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from api.latest.routes import LatestRoutes, decode_or_problem
from api.legacy.wire import request_body
from api.legacy.wire.responses import PARSES, TO_POST, Answer, Handler, OlderError, Resource, readable, redirect
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING, RecordSet, Shown
from api.requests import key_devices
from collector.http.request_headers import HttpLimits, off_loop
from collector.http.routes import store
from collector.ingest.authorization import admit
from collector.ingest.group_commit import Intake
from telemetry.codec import legacy_fields
from telemetry.codec.record_parser import Arrival
from telemetry.model.record import Sent


class OlderRoutes:
    """`POST /tracking/data/`, and the latest record of a device in both record sets."""

    def __init__(
        self, intake: Intake, limits: HttpLimits, arrival: Callable[[], Arrival], latest: LatestRoutes
    ) -> None:
        self._intake = intake
        self._limits = limits
        self._arrival = arrival
        self._latest = latest

    def routes(self) -> list[Route]:
        """All routes."""
        data = Resource("Tracking Data", TO_POST, self.post_data, PARSES)
        return [
            Route("/tracking/data/", data),
            Route("/tracking/data", redirect),
            Route("/tracking/data", data),
            *self._of_set(TRACKING),
            *self._of_set(TCP_TRACKING),
        ]

    def _of_set(self, records: RecordSet) -> list[Route]:
        return readable(f"{records.path}/data/latest/{{device_id}}", "Latest", self._latest_of(records))

    async def post_data(self, request: Request) -> Answer:
        """Store one record or a list; 202 means stored and visible."""
        value, size_bytes = await request_body.read(request, self._limits)
        now = self._arrival()
        echo, records = await off_loop(size_bytes, lambda: _check(value, self._limits.max_records, now))
        owner = self._intake.shares.of_caller(admit(request.scope, records))
        await store(self._intake, records, size_bytes, owner=owner)
        return Answer(202, {"message": legacy_fields.RECEIVED, "data": echo})

    def _latest_of(self, records: RecordSet) -> Handler:
        async def get_latest(request: Request) -> Answer:
            device_id = request.path_params["device_id"]
            key_devices.allow(request.scope, (device_id,))
            latest = await self._latest.latest(device_id)
            slot = None if latest is None else records.newest(latest)
            if slot is None:
                return Answer(404, {"message": "No data found"})
            stored = decode_or_problem(device_id, lambda: slot.stored(device_id))
            return Answer(200, records.show(Shown.of(stored)))

        return get_latest


def _check(value: object, max_records: int, now: Arrival) -> tuple[list[dict[str, Any]], list[Sent]]:
    values = value if isinstance(value, list) else [value]
    if len(values) > max_records:
        raise OlderError(413, {"detail": f"A request may hold {max_records} records, not {len(values)}."})
    results = [legacy_fields.check(item, "http", now) for item in values]
    if any(result.errors for result in results):
        raise OlderError(400, [result.errors for result in results])
    return [result.echo for result in results], [result.sent for result in results if result.sent is not None]
