"""What the courier notes of itself for the other programs."""

from __future__ import annotations

import redis

from telemetry.coordination import shared_state
from telemetry.coordination.shared_state import KEPT_S, AlertProgress, ForwardProgress


def test_what_was_noted_last_is_read(client: redis.Redis) -> None:
    assert shared_state.forwards(client) == []
    old = ForwardProgress("old", "s3://b/p", 1_000)
    hq = ForwardProgress(
        "hq", "whimbrel://hq:9999", 61_000, 7, 3, 100, 2_000, 60.0, 1_000, 50, trouble="it has no room"
    )
    shared_state.note_forwards(client, [old, hq])
    assert shared_state.forwards(client) == [hq, old]
    shared_state.note_forwards(client, [hq])
    assert shared_state.forwards(client) == [hq]
    told = AlertProgress("desk", "https://x", 5, 3, 2, 1)
    shared_state.note_alerts(client, [told])
    assert shared_state.alerts(client) == [told]
    assert KEPT_S - 60 < client.ttl(shared_state.FORWARD) <= KEPT_S


def test_samples_are_bounded_and_read_from_the_oldest(client: redis.Redis) -> None:
    assert shared_state.samples(client) == []
    for number in range(5):
        shared_state.keep_sample(client, b"%d" % number, 3)
    assert shared_state.samples(client) == [b"2", b"3", b"4"]


def test_subscriptions_are_noted_by_session(client: redis.Redis) -> None:
    assert shared_state.subscriptions(client, "b:1883/box") == frozenset()
    shared_state.note_subscriptions(client, "b:1883/box", ["a/+", "b"])
    shared_state.note_subscriptions(client, "other:1883/box", ["c"])
    assert shared_state.subscriptions(client, "b:1883/box") == {"a/+", "b"}
    shared_state.note_subscriptions(client, "b:1883/box", ["b"])
    assert shared_state.subscriptions(client, "b:1883/box") == {"b"}


def test_stored_messages_are_noted_by_topic_and_bounded(client: redis.Redis) -> None:
    shared_state.note_stored_messages(client, {b"a": b"1", b"b": b"2"}, max_topics=5)
    shared_state.note_stored_messages(client, {b"a": b"3"}, max_topics=5)
    assert shared_state.stored_messages(client, [b"a", b"b", b"c"]) == [b"3", b"2", None]
    shared_state.note_stored_messages(client, {b"%d" % number: b"x" for number in range(20)}, max_topics=5)
    assert client.hlen(shared_state.MQTT_STORED) == 5
