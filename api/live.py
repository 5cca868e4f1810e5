"""`GET /v1/live`: changes of latest as server-sent events (WHATWG HTML, 9.2), each device's newest state and no other.

The functions in Redis announce whose latest has changed. While anybody reads, the newest state of each device is held
here as JSON, in the order of its last change, and each change has a number. A reader is a number: whatever changed
since comes next, so a slow one costs no memory, misses states in between, and never the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

import redis
import redis.asyncio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import answers, bound
from api.area import PARAMETERS as AREA
from api.area import Area, area
from api.bound import Devices
from api.latest import LatestAnswer, LatestRoutes
from api.params import DEVICE_ID
from collector.http import Content, Operation, ProblemError, flag, names, refuse_unknown, whole
from telemetry import problem
from telemetry.notes import CHANGED

log = logging.getLogger(__name__)

INTERVAL_MS, LEAST_INTERVAL_MS, MOST_INTERVAL_MS = 500, 100, 60_000
TICK_S = 0.1
HEARTBEAT_S = 15.0
LISTEN_S = 1.0
RETRY_MS = 1_000

DEVICES_AT_ONCE = 250
"""Devices whose states are read and encoded before others have their turn, and most of one event: some 2 ms."""

SHARED = 8
"""Stretches of changes whose text is kept for readers that are as far."""

_EVENT_ID = re.compile(r"([0-9a-f]{16})-(\d{1,16})", re.ASCII)


class State(NamedTuple):
    """A device's newest state: the number of its last change, where it was, and its JSON."""

    number: int
    latitude: float | None
    longitude: float | None
    json: bytes


class States:
    """The newest state of each device, while anybody reads."""

    def __init__(self, latest: LatestRoutes, client: redis.asyncio.Redis) -> None:
        self._latest = latest
        self._client = client
        self._states: OrderedDict[str, State] = OrderedDict()
        self._changed: set[str] = set()
        self._readers = 0
        self._following: asyncio.Task[None] | None = None
        self._texts: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self.epoch = ""  # of the numbers: those of another time say nothing
        self.number = 0
        self.is_whole = False  # whether all devices were looked at
        self._ticked = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many read."""
        return self._readers

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Within this states are followed."""
        self._readers += 1
        try:
            if self._following is None:
                self.epoch, self.number, self.is_whole = secrets.token_hex(8), 0, False
                self._following = asyncio.create_task(self._follow_for_ever())
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and self._following is not None:
                self._following.cancel()
                self._following = None
                self._states.clear()
                self._texts.clear()

    async def tick(self) -> None:
        """Wait for the next look at what has changed."""
        await self._ticked.wait()

    def wake(self) -> None:
        """Let all who wait go on, though nothing has changed."""
        self._ticked.set()
        self._ticked = asyncio.Event()

    def since(self, number: int) -> Iterator[tuple[str, State]]:
        """What has changed since a number, the newest change first; not what a look under way has found."""
        for device in reversed(self._states):
            state = self._states[device]
            if state.number <= number:
                return
            if state.number <= self.number:
                yield device, state

    def text_since(self, number: int) -> list[bytes]:
        """All that has changed since a number, as events; made once for all readers that are as far."""
        key = (number, self.number)
        if key not in self._texts:
            self._texts[key] = events([state.json for _, state in self.since(number)], self.id_of(self.number))
            if len(self._texts) > SHARED:
                self._texts.popitem(last=False)
        return self._texts[key]

    def id_of(self, number: int) -> str:
        """How an event names a number."""
        return f"{self.epoch}-{number}"

    # Following

    async def _follow_for_ever(self) -> None:
        while True:
            try:
                await self._follow()
            except (redis.RedisError, ProblemError) as error:
                log.warning("changes can't be followed: %s; trying again", error)
            await asyncio.sleep(1)

    async def _follow(self) -> None:
        """Follow until the connection ends. All devices are looked at first: nobody told what changed before."""
        async with self._client.pubsub() as heard:
            await heard.subscribe(CHANGED)
            hearing = asyncio.create_task(self._hear(heard))
            try:
                await self._look_at_all()
                while not hearing.done():
                    await asyncio.sleep(TICK_S)
                    taken, self._changed = sorted(self._changed), set()
                    await self._look_at(taken)
                await hearing
            finally:
                hearing.cancel()

    async def _hear(self, heard: redis.asyncio.client.PubSub) -> None:
        """Raises `redis.ConnectionError` if the connection was another meanwhile: what was told then nobody heard."""
        subscribed = 0
        while True:
            message = await heard.get_message(timeout=LISTEN_S)
            if message is not None and message["type"] == "message":
                self._changed.update(message["data"].decode().split("\0"))
            elif message is not None and message["type"] == "subscribe":
                subscribed += 1
                if subscribed > 1:
                    raise redis.ConnectionError("the connection was lost for a moment")

    async def _look_at_all(self) -> None:
        after = ""
        while devices := await self._latest.devices(Devices([]), after, DEVICES_AT_ONCE):
            await self._take(devices)
            after = devices[-1]
        self.is_whole = True
        self._tell()

    async def _look_at(self, devices: list[str]) -> None:
        for start in range(0, len(devices), DEVICES_AT_ONCE):
            await self._take(devices[start : start + DEVICES_AT_ONCE])
        if devices:
            self._tell()

    async def _take(self, devices: list[str]) -> None:
        found = await self._latest.answers(devices)
        if len(found) < len(devices):
            self._forget(set(devices).difference(one.device_id for one in found))
        for one in found:
            json = answers.encode(one)
            known = self._states.get(one.device_id)
            if known is None or known.json != json:
                self._states[one.device_id] = State(self.number + 1, *_place(one), json)
                self._states.move_to_end(one.device_id)

    def _forget(self, deleted: Iterable[str]) -> None:
        """Nobody is shown these any more, not even by a text that is kept for others."""
        for device in deleted:
            self._states.pop(device, None)
        self._texts.clear()

    def _tell(self) -> None:
        """Let all who wait have what a look has found."""
        self.number += 1
        self.wake()


def _place(one: LatestAnswer) -> tuple[float | None, float | None]:
    return (None, None) if one.position is None else (one.position.latitude, one.position.longitude)


def events(states: list[bytes], event_id: str) -> list[bytes]:
    """States as events. Only the last has the id: a reader that was cut off before it gets them all again."""
    pieces = [states[at : at + DEVICES_AT_ONCE] for at in range(0, len(states), DEVICES_AT_ONCE)]
    texts = [b'event: latest\ndata: {"records":[' + b",".join(piece) + b"]}\n" for piece in pieces]
    return [text + b"\n" for text in texts[:-1]] + [text + f"id: {event_id}\n\n".encode() for text in texts[-1:]]


Sender = Callable[[bytes], Awaitable[None]]
"""Sends text to a reader; returns when there is room for more."""


class Wanted(NamedTuple):
    """What a reader wants to know, and how often."""

    devices: Devices
    area: Area | None
    interval_s: float

    @property
    def is_all(self) -> bool:
        """Whether every device is meant."""
        return self.area is None and not self.devices.named and not self.devices.prefix


class Filter:
    """Leaves out what a reader doesn't want. A device that leaves an area is shown once more, where it is now."""

    def __init__(self, wanted: Wanted) -> None:
        self._named = frozenset(wanted.devices.named)
        self._prefix = wanted.devices.prefix
        self._area = wanted.area
        self._inside: set[str] = set()

    def keeps(self, device: str, state: State) -> bool:
        """Whether a device's new state is shown."""
        is_meant = device in self._named or (bool(self._prefix) and device.startswith(self._prefix))
        if not is_meant and (self._named or self._prefix):
            return False
        if self._area is None:
            return True
        was_inside = device in self._inside
        is_inside = (
            state.latitude is not None
            and state.longitude is not None
            and self._area.holds(state.latitude, state.longitude)
        )
        if is_inside:
            self._inside.add(device)
        else:
            self._inside.discard(device)
        return is_inside or was_inside


INTERVAL = whole(
    "interval_ms",
    "The least time between two looks at what has changed.",
    INTERVAL_MS,
    LEAST_INTERVAL_MS,
    MOST_INTERVAL_MS,
)
SNAPSHOT = flag("snapshot", "Whether what is now comes first.", True)

LIVE = Operation(
    "GET",
    "/v1/live",
    "get_live",
    "Changes of latest as server-sent events",
    "latest",
    {200: Content("Events, for as long as the client reads", {"text/event-stream": {"type": "string"}})},
    (DEVICE_ID, INTERVAL, SNAPSHOT, *AREA),
    problems=(problem.INVALID_PARAMETER,),
    description="`data` of each event is a `LatestPage` without its cursor. `Last-Event-ID` goes on behind an event.",
)


class LiveRoutes:
    """`GET /v1/live`."""

    def __init__(self, states: States, most_readers: int) -> None:
        self._states = states
        self._most_readers = most_readers
        self._is_over = asyncio.Event()

    def end(self) -> None:
        """Let all readers go: they come again, to whoever answers then."""
        self._is_over.set()
        self._states.wake()

    async def get_live(self, request: Request) -> Response:
        """Changes from now on, or since the event that the reader saw last; what is now comes first."""
        refuse_unknown(request, names(LIVE.parameters))
        wanted = Wanted(bound.devices(request), area(request), INTERVAL.of(request) / 1_000)
        has_snapshot = SNAPSHOT.of(request)
        if self._states.readers >= self._most_readers:
            raise ProblemError(problem.BUSY, "too many read changes already", {"Retry-After": "5"})
        seen = request.headers.get("last-event-id", "")
        return _Stream(lambda send: self._serve(wanted, seen, has_snapshot, send))

    async def _serve(self, wanted: Wanted, seen: str, has_snapshot: bool, send: Sender) -> None:
        await send(f"retry: {RETRY_MS}\n\n".encode())
        with self._states.read():
            while not self._states.is_whole and not self._is_over.is_set():
                await self._changed(send)
            kept, number = Filter(wanted), self._begin(seen, has_snapshot)
            while not self._is_over.is_set():
                reached = self._states.number
                for text in self._texts(wanted, kept, number):
                    await send(text)
                number = reached
                await self._sleep(wanted.interval_s)
                while self._states.number == number and not self._is_over.is_set():
                    await self._changed(send)

    def _begin(self, seen: str, has_snapshot: bool) -> int:
        """The number to begin behind. Of an event of another time it can't be told what changed since."""
        found = _EVENT_ID.fullmatch(seen)
        if found and found[1] == self._states.epoch and int(found[2]) <= self._states.number:
            return int(found[2])
        return 0 if has_snapshot or found else self._states.number

    def _texts(self, wanted: Wanted, kept: Filter, number: int) -> list[bytes]:
        if wanted.is_all:
            return self._states.text_since(number)
        states = [state.json for device, state in self._states.since(number) if kept.keeps(device, state)]
        return events(states, self._states.id_of(self._states.number))

    async def _changed(self, send: Sender) -> None:
        """Wait until something has changed; say meanwhile that all is well."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._states.tick()
        except TimeoutError:
            await send(b": nothing has changed\n\n")

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()


class _Stream(Response):
    """An answer that goes on until its reader leaves or is let go."""

    def __init__(self, serve: Callable[[Sender], Awaitable[None]]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(
            {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._serve = serve

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer."""

        async def send_text(text: bytes) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._serve(send_text)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
