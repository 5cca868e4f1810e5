"""Facts about forwards and alerts: the courier's notes, and stale or missing ones."""

from __future__ import annotations

import redis

from api.status.redis_facts import STALE_S, Entries, courier_of
from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import AlertProgress, ForwardProgress
from telemetry.system import clock

ENTRIES = Entries(("hq", "lake"), ("desk",))


def test_what_was_noted_is_said_of_the_entries_of_the_settings(client: redis.Redis) -> None:
    now_ms = clock.now_ms()
    noted = [ForwardProgress(name, "s3://a/b", now_ms, 7, trouble="S3: no") for name in ("lake", "hq", "gone")]
    shared_state.note_forwards(client, noted)
    shared_state.note_alerts(client, [AlertProgress("desk", "https://a", now_ms, 3)])
    found = courier_of(client, ENTRIES, clock.now_ms)
    assert found.forwards == [noted[1], noted[0]]
    assert [(one.name, one.pending_events) for one in found.alerts] == [("desk", 3)]
    assert courier_of(client, Entries(), clock.now_ms).forwards == []


def test_a_courier_that_says_nothing_is_a_trouble(client: redis.Redis) -> None:
    found = courier_of(client, ENTRIES, clock.now_ms)
    assert [(one.name, one.version, one.trouble) for one in found.forwards] == [
        (name, -1, "the courier has not reported on it: see its log") for name in ("hq", "lake")
    ]
    assert found.alerts[0].trouble == "the courier has not reported on it: see its log"


def test_a_courier_that_says_nothing_any_more_is_one_too(client: redis.Redis) -> None:
    at_ms = clock.now_ms()
    shared_state.note_forwards(client, [ForwardProgress("hq", "s3://a/b", at_ms, 7)])
    entries = Entries(("hq",))
    assert courier_of(client, entries, lambda: at_ms + STALE_S * 1_000).forwards[0].trouble == ""
    later = courier_of(client, entries, lambda: at_ms + STALE_S * 1_000 + 5_000).forwards[0]
    assert (later.trouble, later.version) == ("the courier has not reported for 65 s: see its log", 7)
