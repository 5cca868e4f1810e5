"""The archive's Parquet files: their rows' order, and which of them a question needs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from telemetry.archive.data_files import DataFiles, LiveFile
from telemetry.archive.schema import columns, is_sorted
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import Record, Stored
from telemetry.model.utc import DAY_US, day_of
from telemetry.system.failpoints import no_step_reporter

NOW_US = 1_795_500_000_000_000


@pytest.mark.parametrize("order", ["sorted", "reversed", "mixed"])
def test_files_are_sorted_however_the_records_come(tmp_path: Path, order: str) -> None:
    """Of enough records that a file has several row groups."""
    made = [
        Stored(f"d{n // 100:04}", n, NOW_US // 1_000, Record(NOW_US + n % 7, "http", "json")) for n in range(30_000)
    ]
    made.sort(key=lambda one: (one.device_id, one.record.timestamp_us, one.id), reverse=order == "reversed")
    records = columns(map(Block.of, Random(1).sample(made, len(made)) if order == "mixed" else made))
    [file] = DataFiles(tmp_path, no_step_reporter).write(records, "1")
    found = pq.ParquetFile(tmp_path / file.path)
    assert found.num_row_groups > 1
    assert found.metadata.num_rows == len(made)
    assert is_sorted(found.read(columns=["device_id", "timestamp", "id"]))


def test_a_file_that_the_log_says_nothing_of_may_hold_all_of_its_day() -> None:
    file = LiveFile("x", day_of(NOW_US), None, 1, 0, None, None, None, None, None)
    midnight_us = NOW_US - NOW_US % DAY_US
    assert file.may_hold(midnight_us + DAY_US - 1, midnight_us + DAY_US, ["a"])
    assert not file.may_hold(midnight_us - DAY_US, midnight_us, [])
    assert not file.may_hold(midnight_us + DAY_US, midnight_us + 2 * DAY_US, ["a"])
