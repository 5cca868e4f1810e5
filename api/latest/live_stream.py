"""`GET /v1/live`: changes of latest as server-sent events (WHATWG HTML, 9.2), each device's newest state and no other.

While anybody reads, state_tracker.py keeps the newest state of each device, and each change has a number. A reader is a
number: whatever changed since comes next, so a slow one costs no memory, misses states in between, and never the
newest.

What is no event, the pause before a reader comes again and the sign of life, is a line without an empty one behind it:
an empty line ends an event, and several clients hand out one without data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import Receive, Scope, Send

from api.execution.client_disconnect import CancelOnDisconnect
from api.geo.area import PARAMETERS as AREA
from api.geo.area import Area, area
from api.latest.change_log import AN_EVENT, EVENT_BYTES, Changes, State, Texts
from api.latest.reader_limits import Readers
from api.latest.routes import LatestRoutes
from api.latest.state_tracker import States
from api.requests import key_devices
from api.requests.key_devices import Devices
from api.requests.params import DEVICE_ID
from api.responses.shared_text import send_texts
from telemetry.hot_store import corruption
from telemetry.http.operations import Content, Operation, flag, names, whole
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.errors import BusyError

INTERVAL_MS, LEAST_INTERVAL_MS, MOST_INTERVAL_MS = 500, 100, 60_000
HEARTBEAT_S = 15.0
RETRY_MS = 1_000

_EVENT_ID = re.compile(r"([0-9a-f]{16})-(\d{1,16})", re.ASCII)

log = logging.getLogger(__name__)

Sender = Callable[[Sequence[bytes]], Awaitable[None]]
"""Sends texts to a reader; returns when there is room for more. Raises `BusyError` if there is no room for them."""


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
    """Leaves out what a reader doesn't want. A device that leaves an area is shown once more, where it is now.

    Which devices a reader that `goes_on` has seen in its area isn't known: until it has caught up it is shown all.
    """

    def __init__(self, wanted: Wanted, goes_on: bool = False) -> None:
        self._named = frozenset(wanted.devices.named)
        self._prefix = wanted.devices.prefix
        self._area = wanted.area
        self._inside: set[str] = set()
        self._goes_on = goes_on

    def next_states(self, changes: Changes, number: int) -> tuple[list[tuple[str, State]], int]:
        """The next of what has changed since a number and is shown, and the number that is reached with it."""
        shown, size = list[tuple[str, State]](), 0
        for device, state in self._candidates(changes, number):
            if self.keeps(device, state):
                shown.append((device, state))
                size += state.size
            if len(shown) == AN_EVENT or size >= EVENT_BYTES:
                return shown, state.number
        self._goes_on = False
        return shown, changes.number

    def _candidates(self, changes: Changes, number: int) -> Iterable[tuple[str, State]]:
        if self._named and not self._prefix:
            return changes.among(self._named, number)
        if self._area is not None and not self._prefix and not self._goes_on:
            return changes.among(self._inside.union(changes.near(self._area)), number)
        return changes.since(number)

    def keeps(self, device: str, state: State) -> bool:
        """Whether a device's new state is shown."""
        is_meant = device in self._named or (bool(self._prefix) and device.startswith(self._prefix))
        if not is_meant and (self._named or self._prefix):
            return False
        if self._area is None:
            return True
        was_inside = self._goes_on or device in self._inside
        is_inside = state.place is not None and self._area.holds(*state.place)
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
    problems=(problems.INVALID_PARAMETER,),
    description="`data` of each event is a `LatestPage` without its cursor; `gone` in it names devices that were "
    "deleted. `Last-Event-ID` goes on behind an event.",
)


class LiveRoutes:
    """`GET /v1/live`."""

    def __init__(self, states: States, latest: LatestRoutes, readers: Readers) -> None:
        self._states = states
        self._latest = latest
        self._readers = readers
        self._is_over = asyncio.Event()
        self._turns = asyncio.Lock()

    def end(self) -> None:
        """Let all readers go: they come again, to whoever answers then."""
        self._is_over.set()
        self._states.wake()

    def routes(self) -> list[Route]:
        """The route."""
        return [LIVE.route(CancelOnDisconnect(request_response(self.get_live)))]

    async def get_live(self, request: Request) -> Response:
        """Changes from now on, or since the event that the reader saw last; what is now comes first."""
        refuse_unknown(request, names(LIVE.parameters))
        wanted = Wanted(key_devices.devices(request), area(request), INTERVAL.of(request) / 1_000)
        has_snapshot = SNAPSHOT.of(request)
        seen = request.headers.get("last-event-id", "")
        return _Stream(self._readers, lambda send: self._serve(wanted, seen, has_snapshot, send))

    async def _serve(self, wanted: Wanted, seen: str, has_snapshot: bool, send: Sender) -> None:
        """Send events until the reader is let go, or there is no room for its next event: then it comes again."""
        try:
            await self._send_events(wanted, seen, has_snapshot, send)
        except (ProblemError, BusyError) as error:
            log.warning("a stream of changes ends early: %s", error)

    async def _send_events(self, wanted: Wanted, seen: str, has_snapshot: bool, send: Sender) -> None:
        await send((f"retry: {RETRY_MS}\n".encode(),))
        with self._states.read():
            while not self._states.is_whole and not self._is_over.is_set():
                await self._changed(send)
            number = self._begin(seen, has_snapshot)
            kept = Filter(wanted, goes_on=bool(seen) and number > 0)
            while not self._is_over.is_set():
                newest = self._states.changes.number
                while number < newest and not self._is_over.is_set():
                    async with self._turns:  # of the readers that are at this point, one goes on at a time
                        await asyncio.sleep(0)
                        event, number = await self._next_event(wanted, kept, number)
                    if event:
                        await send(event)
                await self._sleep(wanted.interval_s)
                while self._states.changes.number == number and not self._is_over.is_set():
                    await self._changed(send)

    def _begin(self, seen: str, has_snapshot: bool) -> int:
        """The number to begin behind. Of an event of another time it can't be told what changed since."""
        found = _EVENT_ID.fullmatch(seen)
        if found and found[1] == self._states.changes.epoch and int(found[2]) <= self._states.changes.number:
            return int(found[2])
        return 0 if has_snapshot or found else self._states.changes.number

    async def _next_event(self, wanted: Wanted, kept: Filter, number: int) -> tuple[Texts, int]:
        changes = self._states.changes
        if not wanted.is_all:
            shown, reached = kept.next_states(changes, number)
            return await self._event(changes, shown, reached), reached
        span = changes.next_span(number)
        texts = changes.shared(span)
        if texts is None:
            texts = await self._event(changes, changes.states_in(span), span.reached)
            changes.share(span, texts)
        return texts, span.reached

    async def _event(self, changes: Changes, states: Sequence[tuple[str, State]], reached: int) -> Texts:
        """States as an event; JSON that is missing is read, and may be newer than the state."""
        missing = [device for device, state in states if state.is_missing]
        read = dict[str, Texts]()
        async for batch in self._latest.batches(missing):
            for device, value in batch:
                try:
                    if value is not None:
                        read[device] = self._latest.shared.of(device, value)
                except corruption.ERRORS as error:
                    corruption.skip("latest", device, error)
        return changes.event(states, reached, read)

    async def _changed(self, send: Sender) -> None:
        """Wait until something has changed; say meanwhile that all is well."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._states.tick()
        except TimeoutError:
            await send((b": nothing has changed\n",))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()


class _Stream(Response):
    """An answer that goes on until its reader leaves or is let go."""

    def __init__(self, readers: Readers, serve: Callable[[Sender], Awaitable[None]]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(
            {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._readers = readers
        self._serve = serve

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer. Raises `ProblemError` if there are too many readers."""
        with self._readers.admitted(scope):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._serve(lambda texts: send_texts(scope, send, texts))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
