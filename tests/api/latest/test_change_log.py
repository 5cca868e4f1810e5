"""Each reader, however slow, receives the newest state of each device; an area finds its devices."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.geo.area import Area, Circle, around
from api.latest import change_log
from api.latest.change_log import ChangeLog, Place, PlaceIndex
from api.latest.live_stream import Filter, Subscription
from api.requests.key_devices import Devices

NAMES = [f"d{number}" for number in range(12)]
AREA = Area(170.0, -1.0, -170.0, 1.0)
INSIDE, ACROSS, OUTSIDE = (0.5, 179.0), (-0.5, -179.0), (40.0, 10.0)

Next = Callable[[ChangeLog, int], tuple[bytes, int]]


def all_of_it(log: ChangeLog, number: int) -> tuple[bytes, int]:
    """The next event for readers of all devices, which share events."""
    span = log.next_span(number)
    texts = log.shared(span)
    if texts is None:
        texts = log.event(log.states_in(span), span.reached)
        log.share(span, texts)
    [text] = texts or [b""]
    return text, span.reached


def filtered(subscription: Subscription) -> Next:
    """A function for the next event of a reader with a filter."""
    selected = Filter(subscription)

    def next_event(log: ChangeLog, number: int) -> tuple[bytes, int]:
        shown, reached = selected.next_states(log, number)
        return b"".join(log.event(shown, reached)), reached

    return next_event


def records(text: bytes) -> list[dict[str, object]]:
    """The states of an event, oldest change first."""
    return json.loads(text.split(b"data: ")[1].split(b"\n")[0])["records"] if text else []


def gone(text: bytes) -> list[str]:
    """The deleted devices in an event."""
    return json.loads(text.split(b"data: ")[1].split(b"\n")[0]).get("gone", []) if text else []


class Model:
    """Devices that change, and a reader of any speed."""

    def __init__(self, next_event: Next) -> None:
        self.changes = ChangeLog("epoch")
        self.newest: dict[str, tuple[int, Place]] = {}
        self.gone: set[str] = set()
        self.seen: dict[str, int] = {}
        self.places: dict[int, Place] = {}
        self._next_event = next_event
        self._number = self._value = 0

    def change(self, device: str, place: Place) -> None:
        self._value += 1
        self.newest[device] = self._value, place
        self.places[self._value] = place
        self.gone.discard(device)
        text = json.dumps({"device_id": device, "value": self._value})
        self.changes.add(device, place, text.encode())

    def forget(self, device: str) -> None:
        if self.newest.pop(device, None):
            self.gone.add(device)
        self.changes.forget(device)

    def read(self) -> bool:
        """Read one event; False if there is none."""
        if self._number == self.changes.number:
            return False
        text, reached = self._next_event(self.changes, self._number)
        assert reached > self._number
        for device in gone(text):
            self.seen.pop(device, None)
        for one in records(text):
            device, value = str(one["device_id"]), one["value"]
            assert isinstance(value, int)
            assert value > self.seen.get(device, 0), "a state comes once, and none after a newer one"
            self.seen[device] = value
        self._number = reached
        return True


PLACES = st.sampled_from([INSIDE, ACROSS, OUTSIDE, None])
CHANGE = st.tuples(st.just("change"), st.sampled_from(NAMES), PLACES)
FORGET = st.tuples(st.just("forget"), st.sampled_from(NAMES), st.none())
READ = st.tuples(st.just("read"), st.just(""), st.none())
FORGOTTEN = ("forget", NAMES[0], None)
STEPS = st.lists(st.one_of(CHANGE, CHANGE, CHANGE, READ, FORGET), max_size=80)


def run(model: Model, steps: list[tuple[str, str, Place]]) -> None:
    for what, device, place in steps:
        if what == "change":
            model.change(device, place)
        elif what == "forget":
            model.forget(device)
        else:
            model.read()
    while model.read():
        pass


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small events and logs, so that each case occurs."""
    monkeypatch.setattr(change_log, "MAX_EVENT_STATES", 3)
    monkeypatch.setattr("api.latest.live_stream.MAX_EVENT_STATES", 3)
    monkeypatch.setattr(change_log, "MIN_LOG", 8)
    monkeypatch.setattr(change_log, "MAX_SHARED", 2)


@settings(deadline=None)
@given(STEPS)
def test_a_reader_of_all_has_the_newest_states(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(all_of_it)
    run(model, steps)
    assert {name: model.seen[name] for name in model.newest} == {
        name: value for name, (value, _) in model.newest.items()
    }


@settings(deadline=None)
@given(STEPS)
def test_a_reader_of_named_devices_has_their_newest_states(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(filtered(Subscription(Devices(NAMES[:3]), None, 1.0)))
    run(model, steps)
    wanted = {name: value for name, (value, _) in model.newest.items() if name in NAMES[:3]}
    assert model.seen == wanted


@settings(deadline=None)
@example(
    [("change", NAMES[0], INSIDE), ("read", "", None), ("change", NAMES[0], OUTSIDE), ("read", "", None), FORGOTTEN]
)
@given(STEPS)
def test_a_reader_of_an_area_is_notified_of_devices_that_leave_it(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(filtered(Subscription(Devices([]), AREA, 1.0)))
    run(model, steps)
    for name, (value, place) in model.newest.items():
        if place in (INSIDE, ACROSS):
            assert model.seen[name] == value
    inside = {name for name, value in model.seen.items() if model.places[value] in (INSIDE, ACROSS)}
    assert not inside & model.gone, "a reader that has seen a device leave is not notified of its deletion"
    shown = {name for name in model.newest if model.newest[name][0] == model.seen.get(name)}
    left = {name for name in model.seen.keys() & model.newest.keys() if name not in shown}
    assert not left or all(model.newest[name][1] in (OUTSIDE, None) for name in left)


def test_a_resumed_reader_is_notified_of_devices_that_left_its_area() -> None:
    log = ChangeLog("e")
    for name in ("stays", "leaves", "far"):
        log.add(name, OUTSIDE if name == "far" else INSIDE, b"0")
    seen = log.number
    log.add("leaves", OUTSIDE, b"1")
    log.add("stays", ACROSS, b"1")
    selected = Filter(Subscription(Devices([]), AREA, 1.0), is_resumed=True)
    shown, seen = selected.next_states(log, seen)
    assert [state.place for _, state in shown] == [OUTSIDE, ACROSS]
    log.add("far", OUTSIDE, b"2")
    log.add("stays", OUTSIDE, b"2")
    shown, _ = selected.next_states(log, seen)
    assert [state.number for _, state in shown] == [log.number], "a device that leaves, not one that was never there"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=30),
    st.one_of(
        st.builds(
            lambda a, b, west, east: Area(west, min(a, b), east, max(a, b)),
            *(st.floats(-90, 90), st.floats(-90, 90), st.floats(-180, 180), st.floats(-180, 180)),
        ),
        st.builds(
            lambda latitude, longitude, radius_m: around(Circle(latitude, longitude, radius_m)),
            *(st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 20_000_000)),
        ),
    ),
)
def test_an_area_finds_all_devices_in_it(places: list[tuple[float, float]], area: Area) -> None:
    log = PlaceIndex()
    for number, place in enumerate(places):
        log.move(str(number), None, place)
    near = set(log.near(area))
    assert near >= {str(number) for number, place in enumerate(places) if area.holds(*place)}
    for number, place in enumerate(places):
        log.move(str(number), place, None)
    assert set(log.near(Area(-180, -90, 180, 90))) == set()


def test_readers_that_are_equally_far_share_an_event() -> None:
    log = ChangeLog("e")
    for number in range(5):
        log.add(f"d{number}", None, b"%d" % number)
    first, reached = all_of_it(log, 0)
    assert first == b'event: latest\ndata: {"records":[0,1,2]}\nid: e-3\n\n'
    assert all_of_it(log, 0)[0] is first
    assert all_of_it(log, 2) == (b'event: latest\ndata: {"records":[2]}\nid: e-3\n\n', 3)
    assert all_of_it(log, reached) == (b'event: latest\ndata: {"records":[3,4]}\nid: e-5\n\n', 5)
    assert all_of_it(log, 5) == (b"", 5)


def test_a_deletion_is_in_events_until_it_is_dropped() -> None:
    log = ChangeLog("e")
    for name in ("a", "b"):
        log.add(name, None, b"1")
    log.forget("a")
    log.forget("a")
    log.forget("unknown")
    assert all_of_it(log, 2) == (b'event: latest\ndata: {"records":[],"gone":["a"]}\nid: e-3\n\n', 3)
    assert all_of_it(log, 0)[0] == b'event: latest\ndata: {"records":[1],"gone":["a"]}\nid: e-3\n\n'
    log.add("a", None, b"2")
    log.forget("b")
    log.forget("a")
    log.drop_deleted(5)
    assert gone(all_of_it(log, 3)[0]) == ["a"]
    log.drop_deleted(6)
    assert all_of_it(log, 3) == (b"", 6)


def test_the_same_state_is_no_change() -> None:
    log = ChangeLog("e")
    log.add("a", None, b"1")
    log.add("a", None, b"1")
    assert log.number == 1


def test_the_log_stays_short() -> None:
    log = ChangeLog("e")
    for number in range(10_000):
        log.add(f"d{number % 4}", None, b"%d" % number)
        assert len(log._devices) <= change_log.MIN_LOG + 1
    assert [device for device, _ in log.since(0)] == ["d0", "d1", "d2", "d3"]
