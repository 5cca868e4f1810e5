"""Room on disks: real small ones, of which the fullest counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from telemetry.config.loader import load
from telemetry.system.disk_space import Room, in_words
from tests.small_disk import SmallDisk

MIB = 2**20


def test_a_disk_is_short_below_the_mark_and_until_a_quarter_above_it(disk: SmallDisk) -> None:
    room = Room((disk.path,), 16 * MIB)
    assert not room.is_short()
    for free, is_short, stays_short in ((22, False, False), (18, False, True), (14, True, True)):
        disk.leave(free * MIB)
        assert (room.is_short(), room.is_short(was_short=True)) == (is_short, stays_short)
    disk.fill()
    assert room.fullest().free == 0
    assert room.is_short()


def test_the_fullest_disk_counts(disk: SmallDisk, tmp_path: Path) -> None:
    disk.leave(MIB)
    room = Room((tmp_path, disk.path / "redis", tmp_path / "archive"), 2 * MIB)
    assert room.fullest() == (96 * MIB, shutil.disk_usage(disk.path).free)
    assert room.is_short()


def test_nothing_asked_for_is_never_short(disk: SmallDisk) -> None:
    disk.fill()
    assert not Room((disk.path,), 0).is_short(was_short=True)
    assert not Room().is_short()


def test_a_box_has_room_for_its_data_archive_and_redis(disk: SmallDisk) -> None:
    settings = load(environ={"WHIMBREL__DATA__DIR": str(disk.path / "data")})
    room = Room.of(settings)
    assert room.min_free_bytes == 2**30
    assert {folder.relative_to(disk.path / "data").as_posix() for folder in room.folders} == {".", "archive", "redis"}
    assert room.is_short(), "this whole disk is smaller"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (10 * 1024, "10 KiB"),
        (31 * MIB, "31 MiB"),
        (2**30 - 1, "1.0 GiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**28, "1.3 GiB"),
        (11_403_436_032, "10.6 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
