"""`GET /v1/live`: changes of latest records as server-sent events (WHATWG HTML, 9.2), only newest states.

While there is a reader, state_tracker.py keeps the newest state of each device, and numbers each change. The position
of a reader is a number: the next event contains the states that have changed since. So a slow reader uses no memory; it
misses intermediate states, but never the newest.

`retry` and heartbeats are lines without an empty line after them: an empty line ends an event, and several clients
report events without data.
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
from api.latest.change_log import EVENT_BYTES, MAX_EVENT_STATES, ChangeLog, State, Texts
from api.latest.reader_limits import Readers
from api.latest.routes import LatestRoutes
from api.latest.state_tracker import StateTracker
from api.requests import key_devices
from api.requests.key_devices import Devices
from api.requests.params import DEVICE_ID
from api.responses.shared_text import send_texts
from telemetry.hot_store import corruption
from telemetry.http.operations import Content, Operation, flag, names, whole
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.model import problems
from telemetry.model.errors import BusyError

INTERVAL_MS, MIN_INTERVAL_MS, MAX_INTERVAL_MS = 500, 100, 60_000
HEARTBEAT_S = 15.0
RETRY_MS = 1_000

_EVENT_ID = re.compile(r"([0-9a-f]{16})-(\d{1,16})", re.ASCII)

log = logging.getLogger(__name__)

Sender = Callable[[Sequence[bytes]], Awaitable[None]]
"""Sends texts to a reader; returns when there is room for more. Raises `BusyError` if there is no room for them."""


class Subscription(NamedTuple):
    """The devices or area that a reader follows, and the minimum interval of events."""

    devices: Devices
    area: Area | None
    interval_s: float

    @property
    def is_all(self) -> bool:
        """True if it includes every device."""
        return self.area is None and not self.devices.named and not self.devices.prefix


class Filter:
    """Selects the states for a reader. A device that leaves the area is included once more, with its new position.

    For a reader that `is_resumed`, the devices that it has seen in its area are unknown: until it has caught up, all
    changed devices are included.
    """

    def __init__(self, subscription: Subscription, is_resumed: bool = False) -> None:
        self._named = frozenset(subscription.devices.named)
        self._prefix = subscription.devices.prefix
        self._area = subscription.area
        self._inside: set[str] = set()
        self._is_resumed = is_resumed

    def next_states(self, changes: ChangeLog, number: int) -> tuple[list[tuple[str, State]], int]:
        """The states of the next event after a number, and the number that the reader has reached with it."""
        shown, size = list[tuple[str, State]](), 0
        for device, state in self._candidates(changes, number):
            if self.matches(device, state):
                shown.append((device, state))
                size += state.size
            if len(shown) == MAX_EVENT_STATES or size >= EVENT_BYTES:
                return shown, state.number
        self._is_resumed = False
        return shown, changes.number

    def _candidates(self, changes: ChangeLog, number: int) -> Iterable[tuple[str, State]]:
        if self._named and not self._prefix:
            return changes.among(self._named, number)
        if self._area is not None and not self._prefix and not self._is_resumed:
            return changes.among(self._inside.union(changes.near(self._area)), number)
        return changes.since(number)

    def matches(self, device: str, state: State) -> bool:
        """True if a device's new state is sent to the reader."""
        is_selected = device in self._named or (bool(self._prefix) and device.startswith(self._prefix))
        if not is_selected and (self._named or self._prefix):
            return False
        if self._area is None:
            return True
        was_inside = self._is_resumed or device in self._inside
        is_inside = state.place is not None and self._area.holds(*state.place)
        if is_inside:
            self._inside.add(device)
        else:
            self._inside.discard(device)
        return is_inside or was_inside


INTERVAL = whole(
    "interval_ms",
    "Minimum time between two events, ms.",
    INTERVAL_MS,
    MIN_INTERVAL_MS,
    MAX_INTERVAL_MS,
)
SNAPSHOT = flag("snapshot", "Send the current state of all devices first.", True)

LIVE = Operation(
    "GET",
    "/v1/live",
    "get_live",
    "Changes of latest records as server-sent events",
    "latest",
    {200: Content("Events, for as long as the client reads", {"text/event-stream": {"type": "string"}})},
    (DEVICE_ID, INTERVAL, SNAPSHOT, *AREA),
    problems=(problems.INVALID_PARAMETER,),
    description="`data` of each event is a `LatestPage` without its cursor; `gone` in it names devices that were "
    "deleted. `Last-Event-ID` resumes after an event.",
)


class LiveRoutes:
    """Handler of `GET /v1/live`."""

    def __init__(self, tracker: StateTracker, latest: LatestRoutes, readers: Readers) -> None:
        self._tracker = tracker
        self._latest = latest
        self._readers = readers
        self._is_over = asyncio.Event()
        self._turns = asyncio.Lock()

    def end(self) -> None:
        """End all streams; the clients reconnect, for example to the restarted program."""
        self._is_over.set()
        self._tracker.wake()

    def routes(self) -> list[Route]:
        """The route."""
        return [LIVE.route(CancelOnDisconnect(request_response(self.get_live)))]

    async def get_live(self, request: Request) -> Response:
        """Changes from now on, or since the reader's last event; by default, the current states come first."""
        refuse_unknown(request, names(LIVE.parameters))
        subscription = Subscription(key_devices.devices(request), area(request), INTERVAL.of(request) / 1_000)
        has_snapshot = SNAPSHOT.of(request)
        last_id = request.headers.get("last-event-id", "")
        return _Stream(self._readers, lambda send: self._serve(subscription, last_id, has_snapshot, send))

    async def _serve(self, subscription: Subscription, last_id: str, has_snapshot: bool, send: Sender) -> None:
        """Send events until the streams end, or there is no room for the next event: then the client reconnects."""
        try:
            await self._send_events(subscription, last_id, has_snapshot, send)
        except (ProblemError, BusyError) as error:
            log.warning("a stream of changes ends early: %s", error)

    async def _send_events(self, subscription: Subscription, last_id: str, has_snapshot: bool, send: Sender) -> None:
        await send((f"retry: {RETRY_MS}\n".encode(),))
        with self._tracker.read():
            while not self._tracker.is_complete and not self._is_over.is_set():
                await self._wait_for_change(send)
            number = self._start_number(last_id, has_snapshot)
            selected = Filter(subscription, is_resumed=bool(last_id) and number > 0)
            while not self._is_over.is_set():
                newest = self._tracker.changes.number
                while number < newest and not self._is_over.is_set():
                    async with self._turns:  # one reader at a time creates an event
                        await asyncio.sleep(0)
                        event, number = await self._next_event(subscription, selected, number)
                    if event:
                        await send(event)
                await self._sleep(subscription.interval_s)
                while self._tracker.changes.number == number and not self._is_over.is_set():
                    await self._wait_for_change(send)

    def _start_number(self, last_id: str, has_snapshot: bool) -> int:
        """The number after which to begin. An event ID of another epoch is as if no event had been received."""
        match = _EVENT_ID.fullmatch(last_id)
        if match and match[1] == self._tracker.changes.epoch and int(match[2]) <= self._tracker.changes.number:
            return int(match[2])
        return 0 if has_snapshot or match else self._tracker.changes.number

    async def _next_event(self, subscription: Subscription, selected: Filter, number: int) -> tuple[Texts, int]:
        changes = self._tracker.changes
        if not subscription.is_all:
            shown, reached = selected.next_states(changes, number)
            return await self._event(changes, shown, reached), reached
        span = changes.next_span(number)
        texts = changes.shared(span)
        if texts is None:
            texts = await self._event(changes, changes.states_in(span), span.reached)
            changes.share(span, texts)
        return texts, span.reached

    async def _event(self, changes: ChangeLog, states: Sequence[tuple[str, State]], reached: int) -> Texts:
        """States as an event. JSON that is not in memory is read from Redis, and may be newer than the state."""
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

    async def _wait_for_change(self, send: Sender) -> None:
        """Wait until a state has changed, or send a heartbeat after `HEARTBEAT_S`."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._tracker.tick()
        except TimeoutError:
            await send((b": nothing has changed\n",))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()


class _Stream(Response):
    """A response that continues until the client disconnects or all streams end."""

    def __init__(self, readers: Readers, serve: Callable[[Sender], Awaitable[None]]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(
            {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._readers = readers
        self._serve = serve

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the stream. Raises `ProblemError` if there are too many readers."""
        with self._readers.admitted(scope):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._serve(lambda texts: send_texts(scope, send, texts))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
