"""Devices, the times of their records, and whether they are online: `GET /v1/devices` and `GET /v1/devices/{id}`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.devices.record_counts import Count, Counts
from api.execution.query_pool import Queries
from api.latest.routes import DEVICE_IN_PATH, PARAMETERS, LatestRoutes, Seen
from api.requests import key_devices
from api.requests.device_path import DeviceRoute
from api.responses import record_schema
from telemetry.http.operations import Content, Operation, choice, names, number
from telemetry.http.problem_responses import ProblemError, invalid_parameter, refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import TimeText, iso
from telemetry.system import clock

SILENT_AFTER_S, OFFLINE_AFTER_S = 300.0, 86_400.0
MAX_SILENCE_S = 366 * 86_400.0

State = Literal["online", "silent", "offline"]
STATES: tuple[State, ...] = ("online", "silent", "offline")


class DeviceAnswer(Struct, frozen=True):
    """A device. `records` counts its stored records; `first_seen` is the arrival of the first, or its time of
    measurement if it was imported. `transport` and `source` are from the newest record."""

    device_id: str
    state: State
    first_seen: TimeText | None
    last_seen: TimeText
    records: int
    transport: str
    source: str


class DevicesPage(Struct, frozen=True):
    """Devices in the order of their ids; `next_cursor` is null on the last page."""

    devices: list[DeviceAnswer]
    next_cursor: str | None


STATE = choice("state", "Only devices in this state.", STATES, None)
SILENT = number("silent_after_s", "Maximum silence of an online device, in seconds.", SILENT_AFTER_S, 0, MAX_SILENCE_S)
OFFLINE = number(
    "offline_after_s",
    "Maximum silence of a silent device, in seconds; beyond it the device is offline.",
    OFFLINE_AFTER_S,
    0,
    MAX_SILENCE_S,
)

DEVICES = Operation(
    "GET",
    "/v1/devices",
    "get_devices",
    "List devices and their states",
    "latest",
    {200: Content("A page, ordered by id", {"application/json": DevicesPage})},
    (*PARAMETERS, STATE, SILENT, OFFLINE),
    problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
    description="With `state`, a page may be short or empty although more follow: continue with `next_cursor`.",
)


DEVICE = Operation(
    "GET",
    "/v1/devices/{device_id:device}",
    "get_device",
    "One device and its state",
    "latest",
    {200: Content("The device", {"application/json": DeviceAnswer})},
    (DEVICE_IN_PATH, SILENT, OFFLINE),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE, problems.NOT_TOGETHER),
)


class DeviceRoutes:
    """The routes `GET /v1/devices` and `GET /v1/devices/{id}`."""

    def __init__(self, latest: LatestRoutes, counts: Counts, queries: Queries) -> None:
        self._latest = latest
        self._counts = counts
        self._queries = queries

    def routes(self) -> list[Route]:
        """All routes."""
        return [DEVICES.route(self.get_devices), DeviceRoute(DEVICE.path, self.get_device, methods=["GET"])]

    async def get_devices(self, request: Request) -> Response:
        """The named devices, or a page of all, limited to a state if the request has one."""
        refuse_unknown(request, names(DEVICES.parameters))
        limit, selection, after = self._latest.page_parameters(request)
        states = _States.of(request)
        matching, has_more = list[Seen](), False
        async for ids in self._latest.scan(selection, after, limit):
            batch = await self._latest.seen(ids.devices)
            matching += [device for device in batch if states.is_wanted(device.last_seen_us)]
            after, has_more = ids.devices[-1], ids.has_more
            if len(matching) > limit:
                break
        shown = matching[:limit]
        cursor = shown[-1].device_id if len(matching) > limit else after if has_more else None
        counts = await self._count([device.device_id for device in shown])
        return record_schema.json(DevicesPage([_answer(device, states, counts) for device in shown], cursor))

    async def get_device(self, request: Request) -> Response:
        """One device; 404 if it has no records."""
        refuse_unknown(request, names(DEVICE.parameters))
        device_id = request.path_params["device_id"]
        key_devices.allow(request.scope, (device_id,))
        states = _States.of(request)
        devices = await self._latest.seen([device_id])
        if not devices:
            raise ProblemError(problems.UNKNOWN_DEVICE, f"no device {device_id}: the box never received a record of it")
        return record_schema.json(_answer(devices[0], states, await self._count([device_id])))

    async def _count(self, devices: list[str]) -> dict[str, Count]:
        if not devices:
            return {}
        return await self._queries.run(lambda connection: self._counts.of(connection, devices))


class _States:
    """Derives a device's state from its silence, by the limits of a request."""

    def __init__(self, silent_after_s: float, offline_after_s: float, wanted: str | None) -> None:
        self._now_us = clock.now_us()
        self._silent_after_us = round(silent_after_s * 1e6)
        self._offline_after_us = round(offline_after_s * 1e6)
        self._wanted = wanted

    @classmethod
    def of(cls, request: Request) -> _States:
        """From the parameters of a request. Raises `ProblemError`."""
        silent_after_s, offline_after_s = SILENT.of(request), OFFLINE.of(request)
        if offline_after_s == OFFLINE.default:  # generated clients also send defaults
            offline_after_s = max(offline_after_s, silent_after_s)
        if offline_after_s < silent_after_s:
            raise invalid_parameter(OFFLINE.name, "must not be less than silent_after_s")
        return cls(silent_after_s, offline_after_s, STATE.of(request))

    def state(self, last_seen_us: int) -> State:
        """State of a device whose newest record arrived at `last_seen_us`."""
        silence_us = self._now_us - last_seen_us
        if silence_us <= self._silent_after_us:
            return "online"
        return "silent" if silence_us <= self._offline_after_us else "offline"

    def is_wanted(self, last_seen_us: int) -> bool:
        """True if the request includes a device whose newest record arrived at `last_seen_us`."""
        return self._wanted is None or self.state(last_seen_us) == self._wanted


def _answer(device: Seen, states: _States, counts: dict[str, Count]) -> DeviceAnswer:
    count = counts.get(device.device_id)
    # imports may keep other transports; the first record is never after the last one
    return DeviceAnswer(
        device.device_id,
        states.state(device.last_seen_us),
        iso(min(count.first_seen_us, device.last_seen_us)) if count else None,
        iso(device.last_seen_us),
        count.records if count else 0,
        device.transport,
        device.source,
    )
