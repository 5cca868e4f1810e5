"""What a power cut leaves of a spool, at each of its calls: what was kept is there, and a number means one batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash_states import Disk, State
from tests.strace import Call, read_trace, traced
from whimbrel_client import Spool
from whimbrel_client.batch import joined

pytestmark = pytest.mark.slow

PROGRAM = """
import os, sys
from whimbrel_client import Spool
from whimbrel_client.batch import joined

def say(*words):
    os.write(1, (" ".join(map(str, words)) + " .").encode())

def drain(spool, left):
    while spool.waiting_records > left:
        batch = spool.head()
        say("sent", batch.sender_id, batch.number)
        spool.settle(batch)
        say("settled", batch.sender_id, batch.number)

for life in range(3):
    with Spool(sys.argv[1], max_bytes=3_000) as spool:
        for number in range(9):
            batch = spool.append(joined([b'{"altitude_m":%d}' % (life * 100 + number)] * 3))
            say("kept", batch.sender_id, batch.number)
            drain(spool, 12)
        drain(spool, 9 * (life % 2))
"""


class Said(NamedTuple):
    """What the program had said: batches kept, given to the box, and given up, by sender and number."""

    kept: frozenset[tuple[str, int]] = frozenset()
    sent: frozenset[tuple[str, int]] = frozenset()
    settled: frozenset[tuple[str, int]] = frozenset()

    def with_words(self, text: bytes) -> Said:
        word, sender_id, number, _ = text.decode().split()
        before: frozenset[tuple[str, int]] = getattr(self, word)
        return self._replace(**{word: before | {(sender_id, int(number))}})


def is_said(call: Call) -> bool:
    return call.name == "write" and call.texts[0].endswith(b" .")


def moments(disk: Disk, calls: list[Call]) -> Iterator[tuple[str, State, Said]]:
    """What the disk may hold behind each call that changed it, and what had been said by then."""
    said = Said()
    for call in calls:
        if is_said(call):
            said = said.with_words(call.texts[0])
        elif disk.apply(call):
            for state in disk.states():
                yield f"{call.name} {call.files} {state.kind}", state, said


def test_a_power_cut_at_each_call(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder = root / "above" / "spool"
    disk = Disk(root, ("above",))
    command = traced(tmp_path / "trace", [sys.executable, "-c", PROGRAM, str(folder)])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert process.wait(60) == 0
    calls = read_trace(tmp_path / "trace", process.pid)
    found = list(moments(disk, calls))
    assert len(found) > 200
    assert sum(len(said.settled) > 3 for _, _, said in found) > 100
    for number, (where, state, said) in enumerate(found):
        left = tmp_path / f"left {number}"
        state.write(left)
        with Spool(left / "above" / "spool") as spool:
            waiting = []
            while (batch := spool.head()) is not None:
                waiting.append((batch.sender_id, batch.number))
                assert len(batch.records) == 3
                spool.settle(batch)
            new = spool.append(joined([b"{}"]))
        gone = said.kept - set(waiting)
        assert gone <= said.sent, f"{where}: what was kept is there"
        assert len(gone - said.settled) <= 1, f"{where}: but for one that was being given up"
        assert waiting == sorted(waiting, key=lambda one: one[1]), f"{where}: in order"
        senders = {sender for sender, _ in said.kept}
        assert not senders or {sender for sender, _ in waiting} <= senders, f"{where}: under the old name"
        assert (new.sender_id, new.number) not in said.sent | said.kept, f"{where}: a number means one batch"
        numbers = [one for sender, one in said.sent if sender == new.sender_id]
        assert new.number > max(numbers, default=0), f"{where}: and is above those that the box has seen"
