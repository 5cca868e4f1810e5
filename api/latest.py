"""The newest record of devices, from Redis alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import redis
import redis.asyncio
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api import answers, bound, params
from api.answers import RecordAnswer
from api.bound import Devices
from api.params import DEVICE_CURSOR, DEVICE_ID, LIMIT
from collector.http import Content, Operation, Parameter, ProblemError, names, refuse_unknown
from telemetry import problem
from telemetry.asking import Asks
from telemetry.entries import Latest, decode_latest
from telemetry.hot import Keys, shard_of

VARY = {"Vary": "Accept"}
MORE = ("format", "at", "within_days", "bbox", "near")
"""Parameters of `/v1/latest` that the query program answers, which has what it takes."""

DEVICE_SCHEMA = {"type": "string", "minLength": 1}

_OTHER = re.compile(r"(?i)csv|ndjson|geo\+json|arrow|parquet|gpx|kml")
"""What is in `Accept` where another form than JSON may be wanted."""


class LatestAnswer(RecordAnswer, frozen=True, gc=False):
    """A device's newest record, when it was last seen, and its newest record with a fix."""

    last_seen: datetime
    position: RecordAnswer | None


class LatestPage(Struct, frozen=True):
    """Devices in the order of their ids; `next_cursor` is null at the end."""

    records: list[LatestAnswer]
    next_cursor: str | None


PARAMETERS = (DEVICE_ID, LIMIT, DEVICE_CURSOR)
"""Of questions to all devices."""

LATEST_OF_DEVICE = Operation(
    "GET",
    "/v1/devices/{device_id:device}/latest",
    "get_latest_of_device",
    "The newest record of a device",
    "latest",
    {200: Content("The record, and where the device was last", {"application/json": LatestAnswer})},
    (Parameter("device_id", "The device; a `/` in it is written %2F.", DEVICE_SCHEMA, str, default="", place="path"),),
    problems=(problem.INVALID_PARAMETER, problem.UNKNOWN_DEVICE),
)


def answer_of(device_id: str, value: bytes) -> LatestAnswer:
    """The answer that a device's latest in Redis makes."""
    latest = decode_latest(value)
    newest, position = latest.newest, latest.position
    if newest is None:
        raise ValueError(f"device {device_id} was seen but never sent a record")
    record = answers.of_stored(newest.stored(device_id))
    where = None
    if position is not None:
        where = record if position is newest else answers.of_stored(position.stored(device_id))
    return with_position(record, answers.moment(latest.last_seen_ms * 1_000), where)


def with_position(record: RecordAnswer, last_seen: datetime, position: RecordAnswer | None) -> LatestAnswer:
    """The answer for a device whose newest record this is."""
    values = {name: getattr(record, name) for name in RecordAnswer.__struct_fields__}
    return LatestAnswer(**values, last_seen=last_seen, position=position)


def is_plain(request: Request) -> bool:
    """Whether plain JSON is asked for, which needs Redis alone."""
    accepted = request.headers.get("accept", "*/*")
    return not any(name in request.query_params for name in MORE) and not _OTHER.search(accepted)


class LatestRoutes:
    """`GET /v1/devices/{id}/latest` and `GET /v1/latest`."""

    def __init__(self, client: redis.asyncio.Redis, asker: Asks, shards: int, max_page_records: int) -> None:
        self._client = client
        self._asker = asker
        self._shards = shards
        self._keys = [Keys(number) for number in range(shards)]
        self._max_page_records = max_page_records

    async def get_device(self, request: Request) -> Response:
        """The latest of one device."""
        refuse_unknown(request, ())
        device_id = request.path_params["device_id"]
        bound.allow(request.scope, (device_id,))
        value = await self.value(device_id)
        if value is None:
            raise ProblemError(problem.UNKNOWN_DEVICE, f"no record of device {device_id} was ever received")
        return answers.json(answer_of(device_id, value))

    async def get_all(self, request: Request) -> Response:
        """The latest of the devices named, or a page of all."""
        refuse_unknown(request, [*names(PARAMETERS), *MORE])
        limit, asked, after = self.asked(request)
        devices = await self.devices(asked, after, limit + 1)
        found = await self.answers(devices[:limit])
        return answers.json(LatestPage(found, devices[limit - 1] if len(devices) > limit else None), headers=VARY)

    def asked(self, request: Request) -> tuple[int, Devices, str]:
        """How many devices a request asks for, which, and behind which. Raises `ProblemError`."""
        after = DEVICE_CURSOR.of(request)
        return params.limit(request, self._max_page_records), bound.devices(request), after

    async def devices(self, asked: Devices, after: str, count: int) -> list[str]:
        """The first of those named, or of all that may be asked for, behind one, in the order of their ids."""
        if asked.named:
            return sorted(device for device in asked.named if device > after)[:count]
        return await self._devices(after, asked.prefix, count)

    async def answers(self, devices: Sequence[str]) -> list[LatestAnswer]:
        """The latest of those devices that are known."""
        values = await self._values(devices)
        return [answer_of(device, value) for device, value in zip(devices, values, strict=True) if value is not None]

    async def latest(self, device_id: str) -> Latest | None:
        """What Redis knows of one device."""
        value = await self.value(device_id)
        return None if value is None else decode_latest(value)

    async def value(self, device_id: str) -> bytes | None:
        """The bytes of one device's latest."""
        keys = self._keys[shard_of(device_id, self._shards)]
        return await ask(self._asker.ask("HGET", keys.latest, device_id))  # type: ignore[no-any-return]

    async def _devices(self, after: str, prefix: str, count: int) -> list[str]:
        """The first devices behind one, of those whose id begins so."""
        start = f"({after}" if after.encode() >= prefix.encode() and after else f"[{prefix}" if prefix else "-"
        end = b"(" + prefix.encode() + b"\xff" if prefix else b"+"  # no UTF-8 has such a byte
        found: list[str] = []
        for keys in self._keys:
            page = await ask(self._client.zrangebylex(keys.devices, start, end, 0, count))
            found += [device.decode() for device in page]
        return sorted(found, key=str.encode)[:count]

    async def _values(self, devices: Sequence[str]) -> list[bytes | None]:
        values: dict[str, bytes | None] = {}
        for number, keys in enumerate(self._keys):
            mine = [device for device in devices if shard_of(device, self._shards) == number]
            if mine:
                found = await ask(self._client.hmget(keys.latest, mine))
                values.update(zip(mine, found, strict=True))
        return [values[device] for device in devices]


async def ask(question: Any) -> Any:
    """Await what Redis answers; that it is away becomes a problem."""
    try:
        return await question
    except redis.RedisError as error:
        raise ProblemError(problem.BUSY, f"cannot reach Redis: {error}", {"Retry-After": "1"}) from None
