"""Batching of requests into one call: each device's records in order, from any number of senders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from collector.ingest.batching import Load, apart, together
from telemetry.hot_store.entry_codec import Entry
from telemetry.hot_store.operations.append import UNLIMITED, Owner
from telemetry.model.record import MAX_ENTRY_SPAN_US, Sent, decode_rows
from tests.collector.conftest import sent


class Request(NamedTuple):
    load: Load
    name: str = ""
    body_hash: bytes = b""
    number: int = 0
    owner: Owner = UNLIMITED


def order(entries: Sequence[Entry]) -> dict[str, list[int]]:
    """Device → what tells its records apart, in their order."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        rows = decode_rows(entry.records)
        assert len(rows) == entry.size
        found.setdefault(entry.device_id, []).extend(int(row[6]) for row in rows)
    return found


def requests(shapes: list[tuple[str, list[str]]]) -> tuple[list[Request], list[list[Sent]]]:
    number, made, bodies = 0, [], []
    for at, (name, devices) in enumerate(shapes, 1):
        body = [sent(device, number + place) for place, device in enumerate(devices)]
        number += len(body)
        made.append(Request(Load.of(body), name, b"", at if name else 0))
        bodies.append(body)
    return made, bodies


shapes = st.lists(
    st.tuples(st.sampled_from(["", "s", "t"]), st.lists(st.sampled_from("aaab"), max_size=12)), max_size=6
)


@given(shapes)
def test_records_of_a_device_keep_their_order_and_rest_together(shapes: list[tuple[str, list[str]]]) -> None:
    made, bodies = requests(shapes)
    first, *named = together(made)
    assert order(first.entries) == order_of(bodies)
    assert [(one.name, one.number, one.entries) for one in named] == [
        (one.name, one.number, ()) for one in made if one.name
    ]


@given(shapes)
def test_apart_each_that_has_a_name_has_its_own(shapes: list[tuple[str, list[str]]]) -> None:
    made, bodies = requests(shapes)
    together(made)  # it was tried first, and must have changed nothing
    first, *named = apart(made)
    pairs = list(zip(made, bodies, strict=True))
    assert order(first.entries) == order_of([body for one, body in pairs if not one.name])
    assert [order(one.entries) for one in named] == [order_of([body]) for one, body in pairs if one.name]


def order_of(bodies: list[list[Sent]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for body in bodies:
        for one in body:
            found.setdefault(one.device_id, []).append(int(one.record.altitude_m or 0))
    return found


def test_records_of_many_devices_wait_to_be_put_together() -> None:
    some, other = Load.of([sent("a", 1), sent("b", 2)]), Load.of([sent("b", 3), sent("c", 4)])
    [batch] = together([Request(some), Request(other)])
    assert [(entry.device_id, entry.size) for entry in batch.entries] == [("a", 1), ("b", 2), ("c", 1)]
    assert Load.of([sent("a", number) for number in range(4)]).entries, "those of few are packed at once"


def test_a_request_may_have_two_entries_of_a_device_that_an_earlier_one_has() -> None:
    far_apart = [sent("a", number * 2 * MAX_ENTRY_SPAN_US) for number in range(1, 5)]
    [batch] = together([Request(Load.of([sent("a")])), Request(Load.of(far_apart))])
    assert [entry.size for entry in batch.entries] == [1, 1, 1, 1, 1]
    assert order(batch.entries) == order_of([[sent("a")], far_apart])
