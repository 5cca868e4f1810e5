"""The newest record of devices, from Redis alone."""

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
"""Parameters of `/v1/latest` that the query program answers, which has what it takes."""

DEVICE_IN_PATH = Parameter(
    "device_id",
    "The device; a `/` in it is written %2F.",
    {"type": "string", "minLength": 1},
    str,
    default="",
    place="path",
)

READ_DEVICES = 32
READ_BYTES = 2**20
"""Devices, and about how many bytes, whose latest are read at once: a latest may have 3 MB."""

SCAN_STEP_DEVICES = 1_000
MAX_SCAN_DEVICES = 20_000
"""Devices that a page looks through at a time and in total for those that are shown. It may end with fewer than
`limit`: its cursor goes on."""

MAX_QUESTIONS = 64
"""Questions for one device under way: Redis keeps the answers to all of them."""

T = TypeVar("T")

_OTHER = re.compile(r"(?i)csv|ndjson|geo\+json|arrow|parquet|gpx|kml")
"""What is in `Accept` where another form than JSON may be wanted."""


PARAMETERS = (DEVICE_ID, LIMIT, DEVICE_CURSOR)
"""Of questions to all devices."""

LATEST_OF_DEVICE = Operation(
    "GET",
    "/v1/devices/{device_id:device}/latest",
    "get_latest_of_device",
    "The newest record of a device",
    "latest",
    {200: Content("The record, and where the device was last", {"application/json": LatestAnswer})},
    (DEVICE_IN_PATH,),
    problems=(problems.INVALID_PARAMETER, problems.UNKNOWN_DEVICE),
)


def is_plain(request: Request) -> bool:
    """Whether plain JSON is asked for, which needs Redis alone."""
    accepted = request.headers.get("accept", "*/*")
    return not any(name in request.query_params for name in MORE) and not _OTHER.search(accepted)


class Seen(NamedTuple):
    """A device's latest without its records: when the device was last seen, and how its newest record came."""

    device_id: str
    last_seen_us: int
    transport: str
    source: str


class Ids(NamedTuple):
    """Some devices, at least one, in the order of their ids, and whether there are more."""

    devices: list[str]
    are_more: bool


class LatestRoutes:
    """`GET /v1/devices/{id}/latest` and `GET /v1/latest`.

    `asker` asks for one device; `pages`, over another connection, for many: their answers are longer.
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
        self._asking = asyncio.Semaphore(MAX_QUESTIONS)
        self._reading = asyncio.Lock()
        self._count = READ_DEVICES
        self.shared = SharedTexts()

    def routes(self) -> list[Route]:
        """The route."""
        return [LatestRoute(LATEST_OF_DEVICE.path, self.get_device, methods=["GET"])]

    async def get_device(self, request: Request) -> Response:
        """The latest of one device."""
        refuse_unknown(request, ())
        device_id = request.path_params["device_id"]
        key_devices.allow(request.scope, (device_id,))
        value = await self.value(device_id)
        if value is None:
            raise ProblemError(problems.UNKNOWN_DEVICE, f"no record of device {device_id} was ever received")
        return TextsResponse(self.texts(device_id, value))

    async def get_all(self, request: Request) -> Response:
        """The latest of the devices named, or a page of all."""
        refuse_unknown(request, [*names(PARAMETERS), *MORE])
        limit, asked, after = self.asked(request)
        devices = await self.devices(asked, after, limit + 1)
        return await page(self.batches(devices[:limit]), devices[limit - 1] if len(devices) > limit else None)

    def asked(self, request: Request) -> tuple[int, Devices, str]:
        """How many devices a request asks for, which, and behind which. Raises `ProblemError`."""
        after = DEVICE_CURSOR.of(request)
        return params.limit(request, self._max_page_records), key_devices.devices(request), after

    async def devices(self, asked: Devices, after: str, count: int) -> list[str]:
        """The first of those named, or of all that may be asked for, behind one, in the order of their ids."""
        if asked.named:
            return sorted(device for device in asked.named if device > after)[:count]
        return await self._devices(after, asked.prefix, count)

    async def scan(self, asked: Devices, after: str, limit: int) -> AsyncGenerator[Ids, None]:
        """The devices named, or all that may be asked for, behind one: for pages that show only some of them.

        `limit` of them first, then more at a time; it ends after `MAX_SCAN_DEVICES`.
        """
        step, count, are_more = limit, 0, True
        while are_more and count < MAX_SCAN_DEVICES:
            devices = await self.devices(asked, after, step + 1)
            are_more = len(devices) > step
            if not devices:
                return
            found = Ids(devices[:step], are_more)
            yield found
            after, count = found.devices[-1], count + len(found.devices)
            step = max(step, min(4 * step, SCAN_STEP_DEVICES))

    async def answers(self, devices: Sequence[str]) -> list[LatestAnswer]:
        """The latest of those devices that are known."""
        found = list[LatestAnswer]()
        async for batch in self.batches(devices):
            answers = (answer_if_decodable(device, value) for device, value in batch)
            found += [answer for answer in answers if answer is not None]
        return found

    async def seen(self, devices: Sequence[str]) -> list[Seen]:
        """When those devices that are known were last seen."""
        found = list[Seen]()
        async for batch in self.batches(devices):
            seen = (_seen(device, value) for device, value in batch if value is not None)
            found += [one for one in seen if one is not None]
        return found

    async def latest(self, device_id: str) -> Latest | None:
        """What Redis knows of one device. Raises `ProblemError` if it cannot be decoded."""
        value = await self.value(device_id)
        return None if value is None else sole(device_id, lambda: decode_latest(value))

    def texts(self, device_id: str, value: bytes) -> Texts:
        """JSON of one device's latest. Raises `ProblemError` if it cannot be decoded."""
        return sole(device_id, lambda: self.shared.of(device_id, value))

    async def value(self, device_id: str) -> bytes | None:
        """The bytes of one device's latest."""
        keys = self._keys[shard_of(device_id, self._shards)]
        async with self._asking:
            return await ask(self._asker.ask("HGET", keys.latest, device_id))  # type: ignore[no-any-return]

    async def batches(self, devices: Sequence[str]) -> AsyncGenerator[Batch, None]:
        """Each device with the bytes of its latest, None if it is unknown: about `READ_BYTES` at a time.

        How many are read at once depends on how large those before were. Only one caller reads at a time, so that a
        batch of unexpectedly large ones is in memory once.
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
                found = await ask(self._pages.ask("HMGET", keys.latest, *mine))
                values.update(zip(mine, found, strict=True))
        return [values[device] for device in devices]


def sole(device_id: str, decode: Callable[[], T]) -> T:
    """The decoded latest of the only device that is asked for. Raises `ProblemError` if that cannot be done."""
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


def _up_to(max_bytes: int, found: Iterable[tuple[str, bytes | None]]) -> Batch:
    """The first devices whose latest have so many bytes together, at least one device."""
    batch, size = Batch(), 0
    for device, value in found:
        size += len(value or b"")
        if batch and size > max_bytes:
            break
        batch.append((device, value))
    return batch


async def ask(question: Any) -> Any:
    """Await what Redis answers; that it is away becomes a problem."""
    try:
        return await question
    except redis.RedisError as error:
        raise ProblemError(problems.BUSY, f"cannot reach Redis: {error}", {"Retry-After": "1"}) from None
