"""`whimbrel doctor` on real folders, sockets and servers."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import duckdb
import pytest
import redis

from cli.doctor import machine
from cli.doctor import redis as check_redis
from cli.doctor.command import CHECKS, COMMAND, worst
from cli.doctor.finding import Finding, failure, ok, warning
from cli.doctor.machine import differing, kind_of_file_system, listeners
from telemetry.archive.table import Archive
from telemetry.config.settings import Collector, Data, Settings
from telemetry.config.settings import Redis as RedisSection
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.system import clock
from tests.box import Box, free_ports
from tests.cli.conftest import Run
from tests.conftest import RedisServer, settings_of
from worker.saving.saver import Saver


@pytest.fixture
def ports() -> dict[str, str]:
    """Ports of a box that nobody listens on."""
    api, http, tcp = free_ports(3)
    return {"api__port": str(api), "collector__http_port": str(http), "collector__tcp_port": str(tcp)}


def of(folder: Path, **more: object) -> Settings:
    """Settings of a box that keeps its data in `folder`."""
    return Settings(data=Data(dir=str(folder)), **more)  # type: ignore[arg-type]


def levels(findings: Iterator[Finding]) -> list[str]:
    return [finding.level for finding in findings]


# The command -----------------------------------------------------------------------------------------


def test_a_box_that_was_never_started(tmp_path: Path, ports: dict[str, str], call: Run) -> None:
    settings = settings_of("", tmp_path, **ports)
    done = call(COMMAND, settings)
    assert done.status == 0, done.out
    assert "it would start" in done.out
    assert not settings.data_dir.exists(), "looking makes nothing"
    assert list(tmp_path.iterdir()) == []


def test_json_has_every_check(shard: Shard, settings: Settings, call: Run) -> None:
    found = call(COMMAND, settings, "--json").json
    assert {one["check"] for one in found["checks"]} == set(CHECKS)
    assert all(one["advice"] for one in found["checks"] if one["level"] != "ok")
    assert found["status"] in ("ok", "warning", "failure")


def test_a_failure_fails_it_and_a_warning_does_not(tmp_path: Path, ports: dict[str, str], call: Run) -> None:
    with socket.create_server(("127.0.0.1", int(ports["api__port"]))):
        done = call(COMMAND, settings_of("", tmp_path, **ports))
    assert done.status == 1
    assert f"api.port: {ports['api__port']} is held by process {os.getpid()}" in done.out
    assert "set api.port to a free port" in done.out


def test_the_worst_counts() -> None:
    assert worst([]) == worst([ok("")]) == "ok"
    assert worst([ok(""), warning("", "")]) == "warning"
    assert worst([failure("", ""), warning("", "")]) == "failure"


@pytest.mark.slow
def test_a_box_that_runs(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        found = box.json("doctor")
        box.whimbrel("simulate", "--records", "100", "--quiet")
        status = box.json("status")
        assert box.json("drain")["saved"] <= 100
        assert sum(one["records"] for one in box.json("files")["files"]) == 100
    by_check = {name: [one for one in found["checks"] if one["check"] == name] for name in CHECKS}
    assert [one["text"].endswith("is this box's") for one in by_check["ports"]] == [True] * 3
    for name in ("Redis", "archive", "folders"):
        assert all(one["level"] == "ok" for one in by_check[name]), by_check[name]
    assert status["status"] == "ready"
    assert status["devices"] == 100


# The machine -----------------------------------------------------------------------------------------


def test_writes_are_timed(tmp_path: Path) -> None:
    [found] = machine.disk_writes(of(tmp_path))
    assert found.level in ("ok", "warning")
    assert "median of 50; worst" in found.text
    assert "answers a second" in found.text
    assert list(tmp_path.iterdir()) == []


def test_the_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 27 0:21 / / rw,relatime - ext4 /dev/vda rw\n"
        f"23 27 0:21 / {tmp_path.resolve()!s}/a\\040b rw shared:1 - nfs4 server:/ rw\n"
    )
    inside = tmp_path / "a b" / "data"
    inside.mkdir(parents=True)
    assert kind_of_file_system(inside, mounts) == "nfs4"
    assert kind_of_file_system(tmp_path, mounts) == "ext4"
    assert kind_of_file_system(tmp_path, tmp_path / "none") == ""


def test_memory_is_no_disk() -> None:
    if kind_of_file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    assert levels(machine.file_system(of(Path("/dev/shm/data")))) == ["warning"]


def test_a_disk_without_room_is_a_failure(tmp_path: Path) -> None:
    assert levels(machine.disk_space(Settings(data=Data(dir=str(tmp_path), min_free_bytes=1))))[0] == "ok"
    assert levels(machine.disk_space(Settings(data=Data(dir=str(tmp_path), min_free_bytes=2**60))))[0] == "failure"


@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok"), (0o755, "ok"), (0o775, "warning"), (0o777, "failure")])
def test_a_folder_that_others_can_change(mode: int, level: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    [data, *_] = machine.folders(of(tmp_path / "data"))
    assert data.level == level


def test_too_few_files_are_warned_of(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    some = of(tmp_path, collector=Collector(max_connections=800, max_http_connections=1))
    assert levels(machine.open_files(some)) == ["ok"]
    many = of(tmp_path, collector=Collector(max_connections=max(hard, soft) + 1))
    expected = "ok" if hard == resource.RLIM_INFINITY else "warning"
    assert levels(machine.open_files(many)) == [expected]


def test_who_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listeners(server.getsockname()[1]) == [os.getpid()]
    assert listeners(free_ports(1)[0]) == []


def test_libraries_are_compared_with_the_lock() -> None:
    lock = (
        "redis==0.1 \\\n    --hash=sha256:00\n"
        "nobody-made-this==1.0 \\\n"
        "only-elsewhere==1.0 ; sys_platform == 'win32' \\\n"
    )
    wrong = list(differing(lock))
    assert len(wrong) == 2
    assert wrong[0].endswith("not 0.1")
    assert wrong[1] == "nobody-made-this is missing"


def test_a_library_is_locked_once_for_each_python_and_only_ours_counts() -> None:
    found = metadata.version("redis")
    assert list(differing(f"redis=={found} ; python_version >= '3'\nredis==0.1 ; python_version < '3'\n")) == []
    assert list(differing("redis==0.1 ; python_version >= '3' \\\n")) == [f"redis is {found}, not 0.1"]
    assert list(differing("nobody-made-this==1 ; python_version >= '3'\n")) == ["nobody-made-this is missing"]
    [unreadable] = differing(f"redis=={found} ; nosuch == 'x'\n")
    assert unreadable.startswith("redis: cannot read")


def test_an_install_from_the_lock_is_as_in_the_lock(settings: Settings) -> None:
    """The libraries here are those of the lock for tests, which holds all of those of the other."""
    [found] = machine.versions(settings)
    assert found.level == "ok", found.text


def test_a_clock_behind_the_newest_record_fails(shard: Shard, settings: Settings, client: redis.Redis) -> None:
    assert levels(machine.time_of_day(settings))[0] in ("ok", "warning")
    client.hset(shard.keys.store, "newest_ms", clock.now_ms() + 3_600_000)
    assert levels(machine.time_of_day(settings)) == ["failure"]


# Redis and the archive -------------------------------------------------------------------------------


def test_a_server_that_could_lose_records(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    with own_redis.client() as client:
        client.config_set("maxmemory", 2**30)
        client.config_set("auto-aof-rewrite-min-size", "1gb")
        assert levels(check_redis.server(settings)) == ["ok"]
        client.config_set("aof-load-truncated", "no")
        [found, _] = check_redis.server(settings)
        assert (found.level, found.text.split(":")[0]) == ("warning", "aof-load-truncated is no")
        client.config_set("aof-load-truncated", "yes")
        client.config_set("no-appendfsync-on-rewrite", "yes")
        client.config_set("stream-node-max-bytes", 4_096)
        client.config_set("auto-aof-rewrite-min-size", "64mb")
        client.config_set("maxmemory", 0)
        assert levels(check_redis.server(settings)) == ["failure", "warning", "warning", "warning"]
        client.config_set("appendfsync", "everysec")
        [found] = check_redis.server(settings)
        assert found.level == "failure"
        assert "appendfsync is everysec" in found.text


def test_a_redis_of_others_that_is_away_is_a_failure(tmp_path: Path) -> None:
    [found] = check_redis.server(settings_of(f"unix://{tmp_path}/nobody.sock", tmp_path))
    assert found.level == "failure"
    assert "cannot reach Redis" in found.text


def test_no_server_to_start_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis" / "kind").write_text("keydb")
    [found] = check_redis.server(of(tmp_path, redis=RedisSection(server="system")))
    assert found.level == "failure"


def test_redis_and_archive_belong_together_or_not(
    shard: Shard, settings: Settings, archive: Archive, connection: duckdb.DuckDBPyConnection, client: redis.Redis
) -> None:
    assert levels(check_redis.together(settings)) == ["ok"]
    append_batches(shard, [Batch(pack([Sent("a", Record(clock.now_us(), "tcp", "json"))]))], Limits())
    Saver(archive, connection, clock.now_ms).save(shard)
    [found] = check_redis.together(settings)
    assert (found.level, found.text) == ("ok", "the archive has 1 files, and Redis belongs to it")
    client.set(shard.keys.committed, str(99 << 32))
    [found] = check_redis.together(settings)
    assert found.level == "failure"
    assert "whimbrel recover" in found.advice
    settings.archive_dir.rename(settings.data_dir / "elsewhere")
    assert levels(check_redis.together(settings)) == ["failure"]
    assert not settings.archive_dir.exists()


def test_a_port_of_this_boxs_unit_is_its_own(tmp_path: Path) -> None:
    settings = of(tmp_path)
    unit = {"WHIMBREL__DATA__DIR": str(settings.data_dir)}
    assert machine._is_ours(unit, "", settings)
    assert not machine._is_ours({"WHIMBREL__DATA__DIR": "/elsewhere"}, "", settings)
    assert not machine._is_ours(unit | {"WHIMBREL_SUPERVISED": "7"}, "8", settings)
    assert machine._is_ours({"WHIMBREL_SUPERVISED": "8"}, "8", settings)
