"""Changes: whoever reads, however slowly, ends with the newest state of each device, and an area finds its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.geo.area import Area, Circle, around
from api.latest import change_log
from api.latest.change_log import Changes, Place, Places
from api.latest.live_stream import Filter, Wanted
from api.requests.key_devices import Devices

NAMES = [f"d{number}" for number in range(12)]
AREA = Area(170.0, -1.0, -170.0, 1.0)
INSIDE, ACROSS, OUTSIDE = (0.5, 179.0), (-0.5, -179.0), (40.0, 10.0)

Next = Callable[[Changes, int], tuple[bytes, int]]


def all_of_it(found: Changes, number: int) -> tuple[bytes, int]:
    """As readers of all are given it, sharing events."""
    span = found.next_span(number)
    texts = found.shared(span)
    if texts is None:
        texts = found.event(found.states_in(span), span.reached)
        found.share(span, texts)
    [text] = texts or [b""]
    return text, span.reached


def filtered(wanted: Wanted) -> Next:
    """As a reader that wants some is given them."""
    kept = Filter(wanted)

    def next_event(found: Changes, number: int) -> tuple[bytes, int]:
        shown, reached = kept.next_states(found, number)
        return b"".join(found.event(shown, reached)), reached

    return next_event


def records(text: bytes) -> list[dict[str, object]]:
    """The states of an event, oldest change first."""
    return json.loads(text.split(b"data: ")[1].split(b"\n")[0])["records"] if text else []


def gone(text: bytes) -> list[str]:
    """The devices that an event says were deleted."""
    return json.loads(text.split(b"data: ")[1].split(b"\n")[0]).get("gone", []) if text else []


class Model:
    """Devices that change, and a reader that is slow as it likes."""

    def __init__(self, next_event: Next) -> None:
        self.changes = Changes("epoch")
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
        """Read one event; returns whether there was any to read."""
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
    """Events and logs so small that all that may happen happens."""
    monkeypatch.setattr(change_log, "AN_EVENT", 3)
    monkeypatch.setattr("api.latest.live_stream.AN_EVENT", 3)
    monkeypatch.setattr(change_log, "LEAST_LOG", 8)
    monkeypatch.setattr(change_log, "SHARED", 2)


@settings(deadline=None)
@given(STEPS)
def test_who_wants_all_has_what_is_newest(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(all_of_it)
    run(model, steps)
    assert {name: model.seen[name] for name in model.newest} == {
        name: value for name, (value, _) in model.newest.items()
    }


@settings(deadline=None)
@given(STEPS)
def test_who_wants_some_has_what_is_newest_of_them(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(filtered(Wanted(Devices(NAMES[:3]), None, 1.0)))
    run(model, steps)
    wanted = {name: value for name, (value, _) in model.newest.items() if name in NAMES[:3]}
    assert model.seen == wanted


@settings(deadline=None)
@example(
    [("change", NAMES[0], INSIDE), ("read", "", None), ("change", NAMES[0], OUTSIDE), ("read", "", None), FORGOTTEN]
)
@given(STEPS)
def test_who_wants_an_area_has_what_is_in_it_and_hears_of_what_leaves(steps: list[tuple[str, str, Place]]) -> None:
    model = Model(filtered(Wanted(Devices([]), AREA, 1.0)))
    run(model, steps)
    for name, (value, place) in model.newest.items():
        if place in (INSIDE, ACROSS):
            assert model.seen[name] == value
    inside = {name for name, value in model.seen.items() if model.places[value] in (INSIDE, ACROSS)}
    assert not inside & model.gone, "who has seen a device leave is not notified of its deletion"
    shown = {name for name in model.newest if model.newest[name][0] == model.seen.get(name)}
    left = {name for name in model.seen.keys() & model.newest.keys() if name not in shown}
    assert not left or all(model.newest[name][1] in (OUTSIDE, None) for name in left)


def test_a_reader_that_goes_on_hears_of_what_left_its_area_meanwhile() -> None:
    found = Changes("e")
    for name in ("stays", "leaves", "far"):
        found.add(name, OUTSIDE if name == "far" else INSIDE, b"0")
    seen = found.number
    found.add("leaves", OUTSIDE, b"1")
    found.add("stays", ACROSS, b"1")
    kept = Filter(Wanted(Devices([]), AREA, 1.0), goes_on=True)
    shown, seen = kept.next_states(found, seen)
    assert [state.place for _, state in shown] == [OUTSIDE, ACROSS]
    found.add("far", OUTSIDE, b"2")
    found.add("stays", OUTSIDE, b"2")
    shown, _ = kept.next_states(found, seen)
    assert [state.number for _, state in shown] == [found.number], "what leaves, and not what was never there"


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
def test_an_area_finds_all_that_is_in_it(places: list[tuple[float, float]], area: Area) -> None:
    found = Places()
    for number, place in enumerate(places):
        found.move(str(number), None, place)
    near = set(found.near(area))
    assert near >= {str(number) for number, place in enumerate(places) if area.holds(*place)}
    for number, place in enumerate(places):
        found.move(str(number), place, None)
    assert set(found.near(Area(-180, -90, 180, 90))) == set()


def test_readers_that_are_as_far_share_an_event() -> None:
    found = Changes("e")
    for number in range(5):
        found.add(f"d{number}", None, b"%d" % number)
    first, reached = all_of_it(found, 0)
    assert first == b'event: latest\ndata: {"records":[0,1,2]}\nid: e-3\n\n'
    assert all_of_it(found, 0)[0] is first
    assert all_of_it(found, 2) == (b'event: latest\ndata: {"records":[2]}\nid: e-3\n\n', 3)
    assert all_of_it(found, reached) == (b'event: latest\ndata: {"records":[3,4]}\nid: e-5\n\n', 5)
    assert all_of_it(found, 5) == (b"", 5)


def test_who_was_deleted_is_told_of_until_it_is_dropped() -> None:
    found = Changes("e")
    for name in ("a", "b"):
        found.add(name, None, b"1")
    found.forget("a")
    found.forget("a")
    found.forget("nobody")
    assert all_of_it(found, 2) == (b'event: latest\ndata: {"records":[],"gone":["a"]}\nid: e-3\n\n', 3)
    assert all_of_it(found, 0)[0] == b'event: latest\ndata: {"records":[1],"gone":["a"]}\nid: e-3\n\n'
    found.add("a", None, b"2")
    found.forget("b")
    found.forget("a")
    found.drop_gone(5)
    assert gone(all_of_it(found, 3)[0]) == ["a"]
    found.drop_gone(6)
    assert all_of_it(found, 3) == (b"", 6)


def test_the_same_state_is_no_change() -> None:
    found = Changes("e")
    found.add("a", None, b"1")
    found.add("a", None, b"1")
    assert found.number == 1


def test_the_log_stays_short() -> None:
    found = Changes("e")
    for number in range(10_000):
        found.add(f"d{number % 4}", None, b"%d" % number)
        assert len(found._devices) <= change_log.LEAST_LOG + 1
    assert [device for device, _ in found.since(0)] == ["d0", "d1", "d2", "d3"]
