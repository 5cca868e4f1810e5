"""The library of Redis functions, joined from its files."""

from __future__ import annotations

from pathlib import Path

import redis

from telemetry.hot_store import function_library
from telemetry.hot_store.entry_codec import Moved, decode_latest, pack_array
from telemetry.hot_store.operations.append import require_writable
from telemetry.hot_store.operations.recovery import replace_entries
from telemetry.hot_store.shard import Shard

FOLDER = Path(function_library.__file__).with_name("lua")


def test_each_file_is_in_the_library_once() -> None:
    assert sorted(function_library.SUBJECTS) == sorted(path.stem for path in FOLDER.glob("*.lua"))


def test_a_redis_that_lost_the_library_gets_it_again(client: redis.Redis, shard: Shard) -> None:
    client.function_flush()
    require_writable(shard)
    assert [library[1].decode() for library in client.function_list()] == [function_library.NAME]


def test_an_entry_that_cannot_be_read_still_shows_when_its_device_was_seen(client: redis.Redis, shard: Shard) -> None:
    unreadable = pack_array([b"\xc1"])
    for arrival_ms in (1_700_000_000_000, 1_700_000_000_005):
        replace_entries(shard, "vehicle", "0-0", 0, 0, [Moved(arrival_ms, 1, unreadable, b"")])
        [latest] = shard.latest([b"vehicle"])
        assert latest is not None
        assert decode_latest(latest).last_seen_ms == arrival_ms
        assert decode_latest(latest).newest is None
