"""What events come of: devices that fall silent and are heard again, and a box that isn't ready, across restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from telemetry.config.settings import Alert, SilenceRule
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import StoreUnavailable
from telemetry.system import clock
from tests.worker.conftest import Ledger
from worker.courier.alerts.monitors import Devices, Readiness
from worker.courier.delivery.state_db import Store

LOOK_S = 30.0
MINUTE_MS = 60_000


class Box:
    """A box whose time the test moves on, and which may not hear."""

    def __init__(self, shard: Shard, store: Store) -> None:
        self.shard, self.store = shard, store
        self.now_ms = clock.now_ms()
        self.can_hear, self.has_redis = True, True
        self.ledger = Ledger()

    def devices(self, *alerts: Alert, most_waiting: int = 1_000) -> Devices:
        """As after a start of the program."""
        return Devices(
            alerts, self.store, self.attach, lambda: self.can_hear, LOOK_S, most_waiting, lambda: self.now_ms
        )

    def attach(self) -> list[Shard]:
        if not self.has_redis:
            raise StoreUnavailable("cannot reach Redis")
        return [self.shard]

    def hear(self, *names: str) -> None:
        """The store sees these now, by the true clock, which time that went by here has left behind."""
        self.ledger.append(self.shard, names)

    def pass_by(self, devices: Devices, minutes: float) -> None:
        """Time goes by, and it is looked at every half minute."""
        for _ in range(int(minutes * 2)):
            self.now_ms += MINUTE_MS // 2
            devices.look()

    def events(self, alert: str = "desk") -> list[tuple[str, str]]:
        """What waits: event and device."""
        found = [json.loads(event.body) for event in self.store.events(alert, 1_000)]
        return [(one["event"], one.get("device_id", "")) for one in found]


@pytest.fixture
def box(shard: Shard, store: Store) -> Box:
    return Box(shard, store)


def desk(**more: Any) -> Alert:
    return Alert(**{"name": "desk", "url": "http://a/b", "silent_after_s": 120, **more})


def test_a_device_is_silent_once_and_back_once(box: Box) -> None:
    box.hear("a", "b")
    devices = box.devices(desk())
    box.pass_by(devices, 2)
    assert box.events() == []
    box.pass_by(devices, 10)
    assert sorted(box.events()) == [("device.silent", "a"), ("device.silent", "b")]
    box.hear("b")
    devices.look()
    assert box.events()[2:] == [("device.back", "b")]


def test_what_an_event_says(box: Box) -> None:
    box.hear("ä")
    [seen_ms] = [ms for piece in box.shard.seen() for _, ms in piece]
    devices = box.devices(desk())
    box.pass_by(devices, 3)
    box.hear("ä")
    devices.look()
    silent, back = (json.loads(event.body) for event in box.store.events("desk", 9))
    assert (silent["device_id"], silent["silent_after_s"]) == ("ä", 120)
    assert silent["last_seen"] == back["last_seen_before"]
    assert silent["last_seen"] < back["last_seen"]
    assert silent["id"] != back["id"]
    assert len(silent["id"]) == 32
    assert seen_ms > 0


def test_a_device_that_was_deleted_is_forgotten(box: Box) -> None:
    box.hear("a", "b")
    devices = box.devices(desk())
    box.pass_by(devices, 4)
    assert deletions.ask(box.shard, "a")
    devices.look()
    assert box.store.silent("desk").keys() == {b"b"}
    box.hear("b")
    devices.look()
    assert box.events()[2:] == [("device.back", "b")]


def test_rules_give_devices_their_own_time_outs(box: Box) -> None:
    box.hear("car", "truck-1", "truck-7")
    rules = (SilenceRule(prefix="truck-", silent_after_s=600), SilenceRule(device="truck-7"))
    devices = box.devices(desk(rules=rules))
    box.pass_by(devices, 5)
    assert box.events() == [("device.silent", "car")]
    box.pass_by(devices, 10)
    assert box.events()[1:] == [("device.silent", "truck-1")]


def test_a_restart_tells_nothing_twice_and_forgets_nothing(box: Box) -> None:
    box.hear("a", "b")
    box.pass_by(box.devices(desk()), 4)
    assert len(box.events()) == 2
    box.pass_by(box.devices(desk()), 4)
    assert len(box.events()) == 2
    box.hear("a")
    box.devices(desk()).look()
    assert box.events()[2:] == [("device.back", "a")]


def test_each_receiver_hears_what_it_wants(box: Box) -> None:
    box.hear("a")
    only_back = desk(name="log", events=("device.back",))
    devices = box.devices(desk(silent_after_s=0), only_back)
    box.pass_by(devices, 5)
    box.hear("a")
    devices.look()
    assert box.events() == []
    assert box.events("log") == [("device.back", "a")]


@pytest.mark.parametrize("outage", ["deaf", "no Redis", "not running"])
def test_time_in_which_devices_could_not_be_heard_does_not_count(outage: str, box: Box) -> None:
    box.hear("a")
    devices = box.devices(desk())
    box.pass_by(devices, 1)
    if outage == "not running":
        box.now_ms += 60 * MINUTE_MS
        devices = box.devices(desk())
    else:
        box.can_hear, box.has_redis = outage != "deaf", outage != "no Redis"
        box.pass_by(devices, 60)
        box.can_hear = box.has_redis = True
    box.pass_by(devices, 1.5)
    assert box.events() == []
    box.pass_by(devices, 2)
    assert box.events() == [("device.silent", "a")]


def test_more_than_may_wait_is_told_when_there_is_room(box: Box) -> None:
    names = [f"d{number}" for number in range(50)]
    box.hear(*names)
    devices = box.devices(desk(), most_waiting=20)
    box.pass_by(devices, 5)
    seen = box.events()
    assert len(seen) == 20
    while waiting := box.store.events("desk", 100):
        box.store.told("desk", waiting)
        devices.look()
        seen += box.events()
    assert sorted(device for _, device in seen) == sorted(names)


# The box itself --------------------------------------------------------------------------------------


class Asked:
    """Reasons that the test sets, and seconds that it lets go by."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.now_s = 0.0

    def __call__(self) -> list[str]:
        return self.reasons


def readiness(store: Store, asked: Asked, *alerts: Alert) -> Readiness:
    return Readiness(alerts or (desk(),), store, asked, 30, clock.now_ms, lambda: asked.now_s)


def looks(found: Readiness, asked: Asked, seconds: int) -> None:
    for _ in range(seconds // 10):
        asked.now_s += 10
        found.look()


def box_events(store: Store) -> list[tuple[str, list[str]]]:
    found = [json.loads(event.body) for event in store.events("desk", 100)]
    return [(one["event"], one["reasons"]) for one in found]


def test_a_box_that_is_not_ready_for_a_while_is_told_and_so_is_its_return(store: Store) -> None:
    asked = Asked()
    found = readiness(store, asked)
    looks(found, asked, 100)
    asked.reasons = ["the disk is full"]
    looks(found, asked, 20)
    asked.reasons = []
    looks(found, asked, 100)
    assert box_events(store) == []
    asked.reasons = ["the disk is full"]
    looks(found, asked, 200)
    assert box_events(store) == [("box.not_ready", ["the disk is full"])]
    asked.reasons = []
    looks(found, asked, 200)
    assert box_events(store)[1:] == [("box.ready", [])]


def test_a_restart_of_the_courier_neither_repeats_nor_forgets_it(store: Store) -> None:
    asked = Asked()
    asked.reasons = ["x"]
    looks(readiness(store, asked), asked, 60)
    looks(readiness(store, asked), asked, 60)
    assert len(box_events(store)) == 1
    asked.reasons = []
    looks(readiness(store, asked), asked, 60)
    assert [event for event, _ in box_events(store)] == ["box.not_ready", "box.ready"]


def test_only_who_wants_it_hears_of_the_box(store: Store) -> None:
    asked = Asked()
    asked.reasons = ["x"]
    looks(readiness(store, asked, desk(events=("device.silent",)), desk(name="ops")), asked, 60)
    assert (store.waiting("desk"), store.waiting("ops")) == (0, 1)


def test_what_is_seen_is_kept_with_what_is_told(box: Box, tmp_path: Path) -> None:
    """The event and the device's state are one transaction: who is killed between them has neither."""
    box.hear("a")
    devices = box.devices(desk())
    box.pass_by(devices, 5)
    box.store.close()
    other = Store(tmp_path / "courier")
    assert other.silent("desk").keys() == {b"a"}
    assert len(other.events("desk", 9)) == 1
    other.close()
