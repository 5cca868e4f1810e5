"""Devices, when they were heard, and whether they still are: `GET /v1/devices` and `GET /v1/devices/{id}`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.devices.record_counts import Count, Counts
from api.execution.query_pool import Queries
from api.latest.routes import DEVICE_IN_PATH, PARAMETERS, LatestRoutes, Seen
from api.requests import key_devices
from api.responses import record_schema
from telemetry.http.operations import Content, Operation, choice, names, number
from telemetry.http.problem_responses import ProblemError, invalid_parameter, refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import TimeText, iso
from telemetry.system import clock

SILENT_AFTER_S, OFFLINE_AFTER_S = 300.0, 86_400.0
MOST_S = 366 * 86_400.0

State = Literal["online", "silent", "offline"]
STATES: tuple[State, ...] = ("online", "silent", "offline")


class DeviceAnswer(Struct, frozen=True):
    """A device: `records` are those that are kept, `first_seen` is when the first of them arrived, or was measured if
    it was imported. `transport` and `source` are the newest record's."""

    device_id: str
    state: State
    first_seen: TimeText | None
    last_seen: TimeText
    records: int
    transport: str
    source: str


class DevicesPage(Struct, frozen=True):
    """Devices in the order of their ids; `next_cursor` is null at the end."""

    devices: list[DeviceAnswer]
    next_cursor: str | None


STATE = choice("state", "Only devices of this state.", STATES, None)
SILENT = number("silent_after_s", "Silence up to which a device is online.", SILENT_AFTER_S, 0, MOST_S)
OFFLINE = number("offline_after_s", "Silence up to which it is silent, beyond it offline.", OFFLINE_AFTER_S, 0, MOST_S)

DEVICES = Operation(
    "GET",
    "/v1/devices",
    "get_devices",
    "Which devices there are, and whether they are heard",
    "latest",
    {200: Content("A page, in the order of ids", {"application/json": DevicesPage})},
    (*PARAMETERS, STATE, SILENT, OFFLINE),
    problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
    description="A page for which many devices of another state were passed over may be short, or empty: "
    "`next_cursor` goes on.",
)


DEVICE = Operation(
    "GET",
    "/v1/devices/{device_id:device}",
    "get_device",
    "One device, and whether it is heard",
    "latest",
    {200: Content("The device", {"application/json": DeviceAnswer})},
    (DEVICE_IN_PATH, SILENT, OFFLINE),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE, problems.NOT_TOGETHER),
)


class DeviceRoutes:
    """`GET /v1/devices` and `GET /v1/devices/{id}`."""

    def __init__(self, latest: LatestRoutes, counts: Counts, queries: Queries) -> None:
        self._latest = latest
        self._counts = counts
        self._queries = queries

    async def get_devices(self, request: Request) -> Response:
        """The devices named, or a page of all; of a state, if one is asked for."""
        refuse_unknown(request, names(DEVICES.parameters))
        limit, asked, after = self._latest.asked(request)
        states = _States.of(request)
        found, are_more = list[Seen](), False
        async for ids in self._latest.scan(asked, after, limit):
            answered = await self._latest.seen(ids.devices)
            found += [one for one in answered if states.is_wanted(one.last_seen_us)]
            after, are_more = ids.devices[-1], ids.are_more
            if len(found) > limit:
                break
        shown = found[:limit]
        cursor = shown[-1].device_id if len(found) > limit else after if are_more else None
        counts = await self._counted([one.device_id for one in shown])
        return record_schema.json(DevicesPage([_answer(one, states, counts) for one in shown], cursor))

    async def get_device(self, request: Request) -> Response:
        """One device."""
        refuse_unknown(request, names(DEVICE.parameters))
        device_id = request.path_params["device_id"]
        key_devices.allow(request.scope, (device_id,))
        states = _States.of(request)
        found = await self._latest.seen([device_id])
        if not found:
            raise ProblemError(problems.UNKNOWN_DEVICE, f"no record of device {device_id} was ever received")
        return record_schema.json(_answer(found[0], states, await self._counted([device_id])))

    async def _counted(self, devices: list[str]) -> dict[str, Count]:
        if not devices:
            return {}
        return await self._queries.run(lambda connection: self._counts.of(connection, devices))


class _States:
    """What the silence of a device means."""

    def __init__(self, silent_after_s: float, offline_after_s: float, wanted: str | None) -> None:
        self._now_us = clock.now_us()
        self._silent_after_us = round(silent_after_s * 1e6)
        self._offline_after_us = round(offline_after_s * 1e6)
        self._wanted = wanted

    @classmethod
    def of(cls, request: Request) -> _States:
        """As a request has it. Raises `ProblemError`."""
        silent_after_s, offline_after_s = SILENT.of(request), OFFLINE.of(request)
        if offline_after_s == OFFLINE.default:  # generated clients send defaults, too
            offline_after_s = max(offline_after_s, silent_after_s)
        if offline_after_s < silent_after_s:
            raise invalid_parameter(OFFLINE.name, "must not be less than silent_after_s")
        return cls(silent_after_s, offline_after_s, STATE.of(request))

    def state(self, last_seen_us: int) -> State:
        """That of a device that was heard then."""
        silence_us = self._now_us - last_seen_us
        if silence_us <= self._silent_after_us:
            return "online"
        return "silent" if silence_us <= self._offline_after_us else "offline"

    def is_wanted(self, last_seen_us: int) -> bool:
        """Whether such a device is asked for."""
        return self._wanted is None or self.state(last_seen_us) == self._wanted


def _answer(one: Seen, states: _States, counts: dict[str, Count]) -> DeviceAnswer:
    count = counts.get(one.device_id)
    return DeviceAnswer(
        one.device_id,
        states.state(one.last_seen_us),
        iso(min(count.first_seen_us, one.last_seen_us)) if count else None,  # an import may keep other transports
        iso(one.last_seen_us),
        count.records if count else 0,
        one.transport,
        one.source,
    )
