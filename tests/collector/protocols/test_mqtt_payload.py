"""Decoder of MQTT payloads."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collector.framing.frame_decoder import Options
from collector.http_protocols.protocol import MAX_ASIDE
from collector.protocols.mqtt_payload import DecodedPayload, read
from telemetry.model.mqtt_topics import Filter
from telemetry.model.record import decode, encode
from tests.collector.protocols.three_ways import ARRIVAL

OPTIONS = Options(transport="mqtt")
FILTERS = [Filter.of("fleet/{device_id}/position"), Filter.of("owntracks/+/+"), Filter.of("all/#")]


def decoded(topic: str, value: object, options: Options = OPTIONS) -> DecodedPayload:
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read(topic, payload, FILTERS, options, ARRIVAL)


def test_a_record_of_the_topic_s_device() -> None:
    (sent,) = decoded("fleet/v1/position", {"lat": 1.5, "lon": 2.5, "speed": 10, "fuel": 5}).records
    assert (sent.device_id, sent.record.transport, sent.record.source) == ("v1", "mqtt", "mqtt")
    assert (sent.record.latitude, sent.record.speed_kmh, sent.record.attributes) == (1.5, 10, '{"fuel":5}')


def test_a_message_may_say_its_device_and_hold_several() -> None:
    found = decoded("fleet/gateway/position", [{"device_id": "a", "lat": 1, "lon": 2}, {"lat": 3, "lon": 4}])
    assert [sent.device_id for sent in found.records] == ["a", "gateway"]


def test_names_in_another_case() -> None:
    (sent,) = decoded("fleet/gateway/position", {"Device_ID": "a", "Lat": 1, "LON": 2, "Time": 1_772_366_400}).records
    assert (sent.device_id, sent.record.latitude, sent.record.longitude) == ("a", 1, 2)
    assert (sent.record.timestamp_us, sent.record.attributes) == (1_772_366_400_000_000, None)


def test_the_unit_is_the_listener_s() -> None:
    (sent,) = decoded("fleet/v1/position", {"speed": 10}, OPTIONS._replace(speed_unit="ms")).records
    assert sent.record.speed_kmh == 36


def test_owntracks_is_told_by_its_type() -> None:
    location = {"_type": "location", "lat": 1.5, "lon": 2.5, "tst": 1772366400, "tid": "xx"}
    (sent,) = decoded("owntracks/ann/phone", location).records
    assert (sent.device_id, sent.record.source) == ("owntracks/ann/phone", "owntracks")
    assert decoded("owntracks/ann/phone", {"_type": "lwt", "tst": 1}) == DecodedPayload([])


@pytest.mark.parametrize(
    ("topic", "value"),
    [("fleet/v1/position", b"{"), ("fleet/v1/position", {"lat": 91, "lon": 1}), ("all/x", {"lat": 1})],
)
def test_what_can_never_be_taken_is_set_aside(topic: str, value: object) -> None:
    found = decoded(topic, value)
    assert found.records == []
    (aside,) = found.aside
    assert aside.device_id == ("v1" if topic.startswith("fleet") else topic)
    assert aside.reason.startswith(f"{topic}: ")


def test_a_topic_that_no_filter_matches_says_nothing() -> None:
    assert (
        decoded("other/v1", {"device_id": "v1", "lat": 1, "lon": 2}) == decoded("other/v1", b"{") == DecodedPayload([])
    )


def test_nothing_is_said_by_an_empty_message() -> None:
    assert decoded("fleet/v1/position", b"") == DecodedPayload([])


@settings(deadline=None)
@given(st.text(max_size=20).map("all/{}".format), st.binary(min_size=1, max_size=50))
def test_bytes_that_are_no_json_are_set_aside(topic: str, payload: bytes) -> None:
    assume(not is_json(payload))
    found = decoded(topic, payload)
    assert (found.records, found.refused) == ([], 1)
    assert [(one.device_id, one.raw) for one in found.aside] == [(topic, payload)]


def is_json(payload: bytes) -> bool:
    """Whether Python's own reader takes it."""
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


members = st.dictionaries(
    st.sampled_from(["device_id", "lat", "lon", "speed", "x"]), st.integers() | st.text(max_size=5)
)


@settings(deadline=None)
@given(st.lists(members, min_size=1, max_size=5))
def test_each_of_any_messages_is_taken_or_refused(messages: list[dict[str, object]]) -> None:
    found = decoded("fleet/v1/position", messages)
    assert len(found.records) + found.refused == len(messages)
    assert len(found.aside) == min(found.refused, MAX_ASIDE)
    for sent in found.records:
        assert decode(encode(sent.record)) == sent.record
