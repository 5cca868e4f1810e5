"""`whimbrel devices delete`: what it says, and that it does nothing without being told to."""

from __future__ import annotations

import io
import threading

import pytest
import redis

from cli.main import main
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import known_devices
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.shard import Shard
from telemetry.system import clock
from tests.worker.conftest import Ledger
from worker.device_erasure import Eraser
from worker.saving.saver import Saver

DEVICE = "a/b"


@pytest.fixture(autouse=True)
def _box(settings: Settings, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds this Redis, where a device has a record."""
    monkeypatch.setenv("WHIMBREL__REDIS__URL", settings.redis.url)
    monkeypatch.setenv("WHIMBREL__DATA__DIR", str(settings.data_dir))
    Ledger().append(shard, [DEVICE, "b"])


def erase(shard: Shard, archive: Archive) -> None:
    connection = open_duckdb()
    Eraser(archive, lambda: connection, Saver(archive, connection, clock.now_ms), clock.now_ms).erase(shard)


def test_without_yes_it_says_what_there_is(shard: Shard, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "delete", DEVICE]) == 1
    assert "nothing is deleted without --yes" in capsys.readouterr().out
    assert shard.unsaved() == 2
    assert deletions.pending(shard) == []


def test_a_device_that_never_was(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--yes"]):
        assert main(["devices", "delete", "nobody", *more]) == 1
        assert "there is no device nobody" in capsys.readouterr().err


def test_it_asks_and_leaves_the_rest_to_the_worker(
    shard: Shard, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices", "delete", DEVICE, "--yes", "--no-wait"]) == 0
    [mark] = deletions.pending(shard)
    assert mark.device_id == DEVICE
    assert mark.name in capsys.readouterr().out
    assert shard.unsaved() == 1


def test_it_waits_until_it_is_done(
    shard: Shard, archive: Archive, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        while not deletions.pending(shard):
            pass
        erase(shard, archive)

    worker = threading.Thread(target=work)
    worker.start()
    assert main(["devices", "delete", DEVICE, "--yes"]) == 0
    worker.join()
    assert "done: 1 records of 0 days are removed" in capsys.readouterr().out


# Known devices ---------------------------------------------------------------------------------------


def test_devices_are_made_known_and_taken_back(
    client: redis.Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("356307042441014\n\n 356307042441015 \n"))
    assert main(["devices", "add", "356307042441013", "-"]) == 0
    assert "3 of 3 devices are added" in capsys.readouterr().out
    assert known_devices.are_known(client, 1, ["356307042441013", "356307042441015", "b", "x"]) == [
        *(True, True),
        *(True, False),
    ]
    assert main(["devices", "remove", "356307042441013", "356307042441014", "x"]) == 0
    assert "2 of 3 devices are removed" in capsys.readouterr().out
    assert main(["devices", "added"]) == 0
    assert capsys.readouterr().out == "356307042441015\n"


def test_what_is_no_id_is_not_added(client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "add", "good", "x" * 256]) == 1
    assert "device_id" in capsys.readouterr().err
    assert list(known_devices.added(client)) == []
