"""Entries that no save can read, put into Redis while everything is killed: quarantined once, and replayed once.

They lack the number of their first record, as no release writes them; `whimbrel quarantine replay` gives them one.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import redis

from benchmarks.crash_ledger.ledger import Entry, Ledger
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import pack_array
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.model.record import Record, encode
from tests.box import Box

DEVICE = "poison/0"
RECORDS = 3
"""In each entry."""

COMMAND_S = 30.0


class Counts(NamedTuple):
    """Entries that came into quarantine, and that left it."""

    quarantined: int = 0
    replayed: int = 0


class Poison:
    """Puts them there, and has them replayed."""

    def __init__(self, settings: Settings, box: Box, ledger: Ledger) -> None:
        self._settings = settings
        self._shard = shard_of(DEVICE, settings.redis.shards)
        self._box = box
        self._ledger = ledger
        self._certain: list[Entry] = []
        self._records = 0

    def put(self) -> None:
        """Put one entry there. If Redis did not answer it may be there or not."""
        entries = [self._entry() for _ in range(RECORDS)]
        for entry in entries:
            self._ledger.will_send(entry)
        try:
            self._put(entries)
        except redis.RedisError:
            return
        self._certain += entries

    def _put(self, entries: Sequence[Entry]) -> None:
        keys = Keys(self._shard)
        with connect(self._settings, timeout_s=2) as client:
            pipe = client.pipeline(transaction=True)
            pipe.xadd(keys.stream(DEVICE), {"r": pack_array([encode(record(entry)) for entry in entries])})
            pipe.zadd(keys.dirty, {DEVICE: time.time_ns() // 1_000_000}, nx=True)
            pipe.incr(keys.unsaved)
            pipe.execute()

    def _entry(self) -> Entry:
        self._records += 1
        return Entry(f"poison#{self._records}", DEVICE, time.time_ns() // 1_000, self._records)

    def replay(self) -> None:
        """Have what is in quarantine replayed, in a process of its own, whatever becomes of that."""
        threading.Thread(target=self._command, args=("replay", "--all"), name="replay", daemon=True).start()

    def replay_all(self) -> None:
        """Have the rest replayed, in quiet. What Redis had taken for certain is to be found from now on."""
        done = self._command("replay", "--all")
        if done is None or done.returncode != 0:
            self._ledger.anomaly("not replayed", "no answer" if done is None else done.stdout + done.stderr)
        self._ledger.acknowledge(self._certain)

    def counts(self) -> Counts:
        """As the command counts them."""
        done = self._command("list")
        if done is None or done.returncode != 0:
            return Counts()
        found = json.loads(done.stdout)["shards"][self._shard]
        return Counts(found["kept"], found["replayed"])

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str] | None:
        try:
            return self._box.whimbrel("quarantine", *arguments, "--json", timeout_s=COMMAND_S)
        except subprocess.TimeoutExpired:
            return None


def record(entry: Entry) -> Record:
    """A record as it rests. Its key comes back as an attribute."""
    attributes = json.dumps({"key": entry.key})
    return Record(entry.timestamp_us, "tcp", "json", altitude_m=float(entry.number), attributes=attributes)
