"""`GET /v1/devices/{id}/latest` and `GET /v1/latest` as plain JSON, read from Redis only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.latest.latest_page import Batch, page
from api.latest.latest_texts import SharedTexts, Texts
from api.latest.representation import LatestAnswer, answer_if_decodable, newest_of
from api.requests import key_devices, params
from api.requests.device_path import LatestRoute
from api.requests.key_devices import Devices
from api.requests.params import DEVICE_CURSOR, DEVICE_ID, LIMIT
from api.responses.shared_text import TextsResponse
from telemetry.hot_store import corruption
from telemetry.hot_store.async_query import Asks
from telemetry.hot_store.entry_codec import Latest, decode_latest
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.http.operations import Content, Operation, Parameter, names
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems

MORE = ("format", "csv_safe", "at", "within_days", "bbox", "near")
"""Parameters of `/v1/latest` that only the query program supports."""

DEVICE_IN_PATH = Parameter(
    "device_id",
    "The device; encode a `/` in its id as %2F.",
    {"type": "string", "minLength": 1},
    str,
    default="",
    place="path",
)

READ_DEVICES = 32
READ_BYTES = 2**20
"""Maximum devices and approximate bytes of one read from Redis: a latest record may have several megabytes."""

SCAN_STEP_DEVICES = 1_000
MAX_SCAN_DEVICES = 20_000
"""Maximum devices that are examined for a page at a time, and in total. A page may end with fewer than `limit`
devices; its cursor continues after the last one examined."""

MAX_CONCURRENT_READS = 64
"""Maximum concurrent reads of one device: Redis buffers the replies to all of them."""

T = TypeVar("T")

_OTHER = re.compile(r"(?i)csv|ndjson|geo\+json|arrow|parquet|gpx|kml")
"""Values of `Accept` that may request another format than JSON."""


PARAMETERS = (DEVICE_ID, LIMIT, DEVICE_CURSOR)
"""Parameters of requests for several devices."""

LATEST_OF_DEVICE = Operation(
    "GET",
    "/v1/devices/{device_id:device}/latest",
    "get_latest_of_device",
    "The newest record of a device",
    "latest",
    {200: Content("The newest record, and the newest one with a position", {"application/json": LatestAnswer})},
    (DEVICE_IN_PATH,),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE),
)


def is_plain(request: Request) -> bool:
    """True if plain JSON is requested, which needs only Redis."""
    accepted = request.headers.get("accept", "*/*")
    return not any(name in request.query_params for name in MORE) and not _OTHER.search(accepted)


class Seen(NamedTuple):
    """The time when a device was last seen, and the transport and source of its newest record."""

    device_id: str
    last_seen_us: int
    transport: str
    source: str


class DeviceIds(NamedTuple):
    """At least one device, in the order of ids, and a flag if more follow."""

    devices: list[str]
    has_more: bool


class LatestRoutes:
    """Handlers of `GET /v1/devices/{id}/latest` and `GET /v1/latest`.

    `asker` reads one device. `pages` reads many over another connection, because their replies are longer.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asker: Asks,
        shards: int,
        max_page_records: int,
        pages: Asks | None = None,
    ) -> None:
        self._client = client
        self._asker = asker
        self._pages = pages or asker
        self._shards = shards
        self._keys = [Keys(number) for number in range(shards)]
        self._max_page_records = max_page_records
        self._reads = asyncio.Semaphore(MAX_CONCURRENT_READS)
        self._reading = asyncio.Lock()
        self._count = READ_DEVICES
        self.shared = SharedTexts()

    def routes(self) -> list[Route]:
        """The route."""
        return [LatestRoute(LATEST_OF_DEVICE.path, self.get_device, methods=["GET"])]

    async def get_device(self, request: Request) -> Response:
        """The latest record of one device."""
        refuse_unknown(request, ())
        device_id = request.path_params["device_id"]
        key_devices.allow(request.scope, (device_id,))
        value = await self.value(device_id)
        if value is None:
            raise ProblemError(problems.UNKNOWN_DEVICE, f"no record of device {device_id} was ever received")
        return TextsResponse(self.texts(device_id, value))

    async def get_all(self, request: Request) -> Response:
        """The latest records of the named devices, or a page of all devices."""
        refuse_unknown(request, [*names(PARAMETERS), *MORE])
        limit, selection, after = self.page_parameters(request)
        devices = await self.devices(selection, after, limit + 1)
        return await page(self.batches(devices[:limit]), devices[limit - 1] if len(devices) > limit else None)

    def page_parameters(self, request: Request) -> tuple[int, Devices, str]:
        """A request's limit, selected devices, and cursor. Raises `ProblemError`."""
        after = DEVICE_CURSOR.of(request)
        return params.limit(request, self._max_page_records), key_devices.devices(request), after

    async def devices(self, selection: Devices, after: str, count: int) -> list[str]:
        """The first selected devices after the id `after`, in the order of ids."""
        if selection.named:
            return sorted(device for device in selection.named if device > after)[:count]
        return await self._devices(after, selection.prefix, count)

    async def scan(self, selection: Devices, after: str, limit: int) -> AsyncGenerator[DeviceIds, None]:
        """The selected devices after the id `after`, in batches, for pages that show only some of them.

        The first batch has up to `limit` devices, later ones more. Ends after `MAX_SCAN_DEVICES`.
        """
        step, count, has_more = limit, 0, True
        while has_more and count < MAX_SCAN_DEVICES:
            devices = await self.devices(selection, after, step + 1)
            has_more = len(devices) > step
            if not devices:
                return
            ids = DeviceIds(devices[:step], has_more)
            yield ids
            after, count = ids.devices[-1], count + len(ids.devices)
            step = max(step, min(4 * step, SCAN_STEP_DEVICES))

    async def answers(self, devices: Sequence[str]) -> list[LatestAnswer]:
        """The latest records of the given devices; unknown devices are omitted."""
        records = list[LatestAnswer]()
        async for batch in self.batches(devices):
            answers = (answer_if_decodable(device, value) for device, value in batch)
            records += [answer for answer in answers if answer is not None]
        return records

    async def seen(self, devices: Sequence[str]) -> list[Seen]:
        """The times when the given devices were last seen; unknown devices are omitted."""
        known = list[Seen]()
        async for batch in self.batches(devices):
            seen = (_seen(device, value) for device, value in batch if value is not None)
            known += [device for device in seen if device is not None]
        return known

    async def latest(self, device_id: str) -> Latest | None:
        """The latest record of one device. Raises `ProblemError` if it cannot be decoded."""
        value = await self.value(device_id)
        return None if value is None else decode_or_problem(device_id, lambda: decode_latest(value))

    def texts(self, device_id: str, value: bytes) -> Texts:
        """JSON of one device's latest record. Raises `ProblemError` if it cannot be decoded."""
        return decode_or_problem(device_id, lambda: self.shared.of(device_id, value))

    async def value(self, device_id: str) -> bytes | None:
        """One device's latest record as bytes; None if it is unknown."""
        keys = self._keys[shard_of(device_id, self._shards)]
        async with self._reads:
            return await reply(self._asker.ask("HGET", keys.latest, device_id))  # type: ignore[no-any-return]

    async def batches(self, devices: Sequence[str]) -> AsyncGenerator[Batch, None]:
        """Each device with its latest record as bytes, None if it is unknown; about `READ_BYTES` at a time.

        The size of previous records determines the number of devices of the next read. Only one caller reads at a time,
        so that a batch of unexpectedly large records is in memory only once.
        """
        at = 0
        while at < len(devices):
            async with self._reading:
                wanted = devices[at : at + self._count]
                batch = _up_to(READ_BYTES, zip(wanted, await self._values(wanted), strict=True))
                mean_bytes = sum(len(value) for _, value in batch if value is not None) // len(batch) + 1
                self._count = max(1, min(READ_DEVICES, READ_BYTES // mean_bytes))
            at += len(batch)
            yield batch
            await asyncio.sleep(0)

    async def _devices(self, after: str, prefix: str, count: int) -> list[str]:
        """The first devices after the id `after` whose id starts with `prefix`."""
        start = f"({after}" if after.encode() >= prefix.encode() and after else f"[{prefix}" if prefix else "-"
        end = b"(" + prefix.encode() + b"\xff" if prefix else b"+"  # the byte 0xFF does not occur in UTF-8
        devices: list[str] = []
        for keys in self._keys:
            members = await reply(self._client.zrangebylex(keys.devices, start, end, 0, count))
            devices += [member.decode() for member in members]
        return sorted(devices, key=str.encode)[:count]

    async def _values(self, devices: Sequence[str]) -> list[bytes | None]:
        values: dict[str, bytes | None] = {}
        for number, keys in enumerate(self._keys):
            of_shard = [device for device in devices if shard_of(device, self._shards) == number]
            if of_shard:
                replies = await reply(self._pages.ask("HMGET", keys.latest, *of_shard))
                values.update(zip(of_shard, replies, strict=True))
        return [values[device] for device in devices]


def decode_or_problem(device_id: str, decode: Callable[[], T]) -> T:
    """The result of `decode` for a request of one device. Raises `ProblemError` if its record cannot be decoded."""
    try:
        return decode()
    except corruption.ERRORS as error:
        corruption.skip("latest", device_id, error)
        raise ProblemError(problems.INTERNAL, f"cannot decode the latest record of device {device_id}") from None


def _seen(device_id: str, value: bytes) -> Seen | None:
    """None for a value that cannot be decoded, which is counted."""
    try:
        latest = decode_latest(value)
        newest = newest_of(device_id, latest).stored(device_id).record
        return Seen(device_id, latest.last_seen_ms * 1_000, newest.transport, newest.source)
    except corruption.ERRORS as error:
        corruption.skip("latest", device_id, error)
        return None


def _up_to(max_bytes: int, values: Iterable[tuple[str, bytes | None]]) -> Batch:
    """The first devices whose records have at most `max_bytes` in total, but at least one device."""
    batch, size = Batch(), 0
    for device, value in values:
        size += len(value or b"")
        if batch and size > max_bytes:
            break
        batch.append((device, value))
    return batch


async def reply(command: Any) -> Any:
    """Await a reply of Redis. Raises `ProblemError` if Redis cannot be reached."""
    try:
        return await command
    except redis.RedisError as error:
        raise ProblemError(problems.BUSY, f"cannot reach Redis: {error}", {"Retry-After": "1"}) from None
