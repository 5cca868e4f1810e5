"""The spool's files: what was kept is there after a cut at any byte, in order, once, under its number."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_client import Batch, Refused, Spool, SpoolError, SpoolFull, SpoolInUse
from whimbrel_client.batch import joined

ROOM = 2**20


def keep(spool: Spool, *altitudes: int) -> Batch:
    """Keep a record for each of these."""
    return spool.append(joined([json.dumps({"device_id": "d", "altitude_m": one}).encode() for one in altitudes]))


def drained(spool: Spool) -> list[Batch]:
    """All that waits, given up one after the other."""
    found = []
    while (batch := spool.head()) is not None:
        found.append(batch)
        spool.settle(batch)
    return found


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with Spool(tmp_path / "a" / "spool") as spool:
            keep(spool, 1)
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "a").rglob("*")} == {0}


def test_batches_come_back_in_order_under_their_numbers(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        kept = [keep(spool, number, -number) for number in range(10)]
        assert spool.waiting_records == 20
    with Spool(tmp_path) as spool:
        assert spool.waiting_records == 20
        assert spool.head() == spool.head() == kept[0], "it stays until it is settled"
        assert drained(spool) == kept
        assert spool.waiting_records == 0
    assert [batch.number for batch in kept] == list(range(1, 11))
    assert len({batch.sender_id for batch in kept}) == 1


def test_a_number_is_never_used_again(tmp_path: Path) -> None:
    numbers, senders = [], set()
    for _ in range(4):
        with Spool(tmp_path) as spool:
            numbers.append(keep(spool, 1).number)
            senders.add(spool.sender_id)
            drained(spool)
        assert not list(tmp_path.glob("*.batches"))
    assert numbers == [1, 2, 3, 4]
    assert len(senders) == 1


def test_one_process_has_it(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(SpoolInUse, match="another process"):
        Spool(tmp_path)
    spool = Spool(tmp_path)
    spool.close()
    spool.close()
    for use in (spool.head, lambda: keep(spool, 1)):
        with pytest.raises(SpoolError, match="was closed"):
            use()


def test_a_note_that_can_not_be_read_stops_it_and_leaves_it_free(tmp_path: Path) -> None:
    (tmp_path / "done").write_text("{")
    with pytest.raises(SpoolError, match="sent twice"):
        Spool(tmp_path)
    (tmp_path / "done").unlink()
    Spool(tmp_path).close()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError):
        Spool(tmp_path / "file")


def test_what_was_refused_is_kept_for_people(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for number in range(2):
            spool.settle(keep(spool, number), [Refused({"device_id": "d"}, "no", "latitude", "urn:x")])
    lines = [json.loads(line) for line in (tmp_path / "refused.ndjson").read_text().splitlines()]
    assert lines == [{"record": {"device_id": "d"}, "reason": "no", "field": "latitude", "type": "urn:x"}] * 2


def test_a_full_spool_refuses(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10_000) as spool:
        kept: list[Batch] = []
        with pytest.raises(SpoolFull):  # noqa: PT012
            while True:
                kept.append(keep(spool, *range(len(kept), len(kept) + 50)))
        assert sum(file.stat().st_size for file in tmp_path.glob("*.batches")) <= 10_000
        spool.settle(kept[0])
        assert drained(spool) == kept[1:]
        keep(spool, *range(50))


def test_a_full_spool_drops_its_oldest_if_told_to(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10_000, when_full="drop_oldest") as spool:
        kept = [keep(spool, *range(number, number + 50)) for number in range(200)]
        assert sum(file.stat().st_size for file in tmp_path.glob("*.batches")) <= 10_000
        in_flight = spool.head()
        assert in_flight is not None
        kept += [keep(spool, *range(number, number + 50)) for number in range(100)]
        spool.settle(in_flight)  # answered after it was dropped
    with Spool(tmp_path, max_bytes=10_000, when_full="drop_oldest") as again:
        left = drained(again)
    assert left == kept[-len(left) :]
    assert 0 < len(left) < 100
    assert spool.dropped_records == 50 * (300 - len(left))


def test_a_batch_that_is_too_large_for_it(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=2_000, when_full="drop_oldest") as spool, pytest.raises(SpoolFull):
        keep(spool, *(number * 7919 % 104_729 for number in range(5_000)))


# Cut off ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6), cut=st.floats(0, 1), settled=st.integers(0, 3))
def test_a_file_that_is_cut_anywhere(sizes: list[int], cut: float, settled: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Spool(folder, ROOM) as spool:
            kept, ends = [], []
            for size in sizes:
                kept.append(keep(spool, *range(size)))
                [segment] = Path(folder).glob("*.batches")
                ends.append(segment.stat().st_size)
            settled = min(settled, len(kept) - 1)
            for batch in kept[:settled]:
                spool.settle(batch)
        at = round(cut * ends[-1])
        os.truncate(segment, at)
        whole = [batch for batch, end in zip(kept, ends, strict=True) if end <= at]
        with Spool(folder, ROOM) as spool:
            new = keep(spool, 7)
            assert drained(spool) == [*whole[settled:], new]
            assert new.number == max(settled, len(whole)) + 1
        assert not list(Path(folder).glob("*.broken")), "a torn end is no fault of the disk"


@settings(deadline=None, max_examples=200)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_flips_costs_what_is_behind_it_and_is_told(where: float, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Spool(folder, ROOM) as spool:
            kept = [keep(spool, *range(number)) for number in range(1, 6)]
        [segment] = Path(folder).glob("*.batches")
        data = bytearray(segment.read_bytes())
        data[int(where * len(data))] ^= 1 << bit
        segment.write_bytes(data)
        with Spool(folder, ROOM) as spool:
            found = [batch._replace(sender_id="") for batch in drained(spool)]
            assert found == [batch._replace(sender_id="") for batch in kept[: len(found)]]
            keep(spool, 1)


def test_a_broken_segment_is_set_aside_and_the_next_ones_are_read(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10_000) as spool:
        kept = [keep(spool, *range(number, number + 50)) for number in range(20)]
    first, *others = sorted(tmp_path.glob("*.batches"))
    assert others
    data = bytearray(first.read_bytes())
    data[80] ^= 1
    first.write_bytes(data)
    with Spool(tmp_path, max_bytes=10_000) as spool:
        found = drained(spool)
    assert found == kept[-len(found) :]
    assert first.with_suffix(".broken").stat().st_size > 0


KEEPING = """
import sys
from whimbrel_client import Spool
from whimbrel_client.batch import joined
with Spool(sys.argv[1], max_bytes=200_000) as spool:
    for number in range(1_000_000):
        batch = spool.append(joined([b'{"altitude_m": %d}' % number] * 20))
        print("kept", batch.number, flush=True)
        if number % 3 == 2:
            head = spool.head()
            print("settling", head.number, flush=True)
            spool.settle(head)
            print("settled", head.number, flush=True)
        if number % 50 == 49:
            while spool.waiting_records > 100:
                spool.settle(spool.head())
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 2, 3, 7, 40, 333, 500])
def test_a_kill_loses_nothing_that_was_kept(tmp_path: Path, lines: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPING, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    said += rest.splitlines()
    kept = max([int(line.split()[1]) for line in said if line.startswith("kept")], default=0)
    done = max([int(line.split()[1]) for line in said if line.startswith("settled")], default=0)
    with Spool(tmp_path, max_bytes=200_000) as spool:
        found = [batch.number for batch in drained(spool)]
        assert found == list(range(found[0], found[-1] + 1))
        assert found[0] > done, "what was given up does not come again"
        assert kept <= found[-1] <= kept + 1
        assert keep(spool, 1).number == found[-1] + 1
    shutil.rmtree(tmp_path)
