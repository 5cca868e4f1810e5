"""Filters of topics: what they hear, and which device a topic names."""

from __future__ import annotations

import pytest

from telemetry.model.mqtt_topics import Filter


@pytest.mark.parametrize(
    ("text", "topic", "device"),
    [
        ("fleet/{device_id}/position", "fleet/v1/position", "v1"),
        ("fleet/{device_id}/position", "fleet/v1/status", None),
        ("fleet/{device_id}/position", "fleet/v1/position/x", None),
        ("fleet/{device_id}/position", "fleet", None),
        ("+/{device_id}/#", "a/b/c/d", "b"),
        ("{device_id}", "v1", "v1"),
        ("#", "a/b", ""),
        ("a/+", "a/b", ""),
        ("$share/boxes/fleet/{device_id}", "fleet/v1", "v1"),
        ("$share/boxes/fleet/{device_id}", "fleet/v1/x", None),
        ("$queue/fleet/{device_id}", "fleet/v1", "v1"),
        ("$exclusive/#", "fleet/v1", ""),
        ("$SYS/#", "$SYS/broker/uptime", ""),
    ],
)
def test_a_filter_names_the_device(text: str, topic: str, device: str | None) -> None:
    assert Filter.of(text).device_of(topic) == device


def test_the_broker_knows_no_device() -> None:
    assert Filter.of("fleet/{device_id}/position").subscription == "fleet/+/position"


@pytest.mark.parametrize("text", ["", "#/a", "a#", "a+/b", "a/{id}", "{device_id}/{device_id}", "a/{device_id}x"])
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(ValueError, match=r"matches all|whole level|only one {device_id}"):
        Filter.of(text)
