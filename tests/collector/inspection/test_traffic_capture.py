"""Traffic capture: bounded, and without secrets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgspec
import pytest
import redis

from collector.framing.decoder import Rejected
from collector.inspection import traffic_capture
from collector.inspection.traffic_capture import MAX_RAW_BYTES, MAX_WAITING, Seen
from telemetry.coordination import shared_state
from telemetry.model import api_keys, problems
from telemetry.system import clock
from tests.collector.conftest import Connect

PORT = 5027


@pytest.fixture(autouse=True)
def unwatched() -> Iterator[None]:
    yield
    traffic_capture._waiting.clear()
    traffic_capture._ports, traffic_capture._lost = frozenset(), 0


def shown(client: redis.Redis, connect: Connect, count: int) -> list[Seen]:
    """What those hear who look while so many pieces come at once."""
    frames = shared_state.Frames(client, PORT)
    shared_state.request_frames(client, PORT, clock.now_ms(), 30_000)

    async def come() -> None:
        async with traffic_capture.shown(connect):
            while not traffic_capture.is_watched(PORT):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            for number in range(count):
                traffic_capture.see(Seen("frame", number, PORT))
            await asyncio.sleep(0.5)

    asyncio.run(come())
    found: list[Seen] = []
    stop_s = time.monotonic() + 5
    while time.monotonic() < stop_s and (raw := frames.next(0.5)) is not None:
        found.append(msgspec.json.decode(raw, type=Seen))
    frames.close()
    return found


def test_what_comes_too_fast_is_left_out_and_counted(client: redis.Redis, connect_shared: Connect) -> None:
    found = shown(client, connect_shared, MAX_WAITING + 5)
    assert [one.at_ms for one in found[:-1]] == list(range(5, MAX_WAITING + 5))
    assert (found[-1].event, found[-1].raw_bytes) == ("lost", 5)


def test_a_long_piece_is_shown_in_part() -> None:
    rejected = Rejected(problems.INVALID_RECORD, "why", b"")
    traffic_capture.see_request(PORT, "h:1", b"POST /pub?u=a&P=secret&x=1", b"p=kept" * 1_000, rejected, 400)
    [seen] = traffic_capture._waiting
    raw = bytes.fromhex(seen.raw)
    assert raw.startswith(b"POST /pub?u=a&P=***&x=1\np=kept")
    assert len(raw) == MAX_RAW_BYTES < seen.raw_bytes
    assert (seen.lines[0].reason, seen.status) == ("why", 400)


@pytest.mark.parametrize(
    ("peer", "text"), [(None, ""), (("::1", 5, 0, 0), "[::1]:5"), (("127.0.0.1", 5), "127.0.0.1:5")]
)
def test_addresses(peer: tuple[object, ...] | None, text: str) -> None:
    assert traffic_capture.address(peer) == text


def test_no_key_is_shown() -> None:
    raw = b'{"token": "wk_abcdefgh_' + b"a" * 26 + b'"}'
    piece = traffic_capture._piece("frame", PORT, "tcp", "", raw)
    assert bytes.fromhex(piece.raw) == b'{"token": "wk_abcdefgh_***"}'
    assert api_keys.redacted(b"wd_abcdefgh_" + b"a" * 26 + b"_dmFuLTc=") == b"wd_abcdefgh_***="
