"""Each part of the benchmarks on a real box, for a moment: it runs to its end, and what it counts adds up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import (
    append,
    archives,
    boxes,
    cluster,
    cores,
    days,
    exports,
    forwards,
    idle,
    imports,
    ingest,
    latest,
    memory,
    messages,
    past,
    scale,
    single,
    slow_disk,
    sustained,
)
from benchmarks.cpu import PROGRAMS
from benchmarks.report import Finding, Missing, Result
from benchmarks.sending import Connection, send
from telemetry.system.process import allow_open_files
from tests.box import Box

SMALL = ingest.Size(2_000, 1)
DAY_RECORDS = 4
"""Of each of the 1,000 devices."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with boxes.box(collector__processes="2", **exports.TAIL) as found:
        yield found


def values(findings: Iterator[Finding] | list[Result]) -> dict[str, float]:
    """Id → figure; none twice, none missing."""
    found = list(findings)
    assert not [one for one in found if isinstance(one, Missing)]
    by_id = {one.id: one.value for one in found if isinstance(one, Result)}
    assert len(by_id) == len(found)
    return by_id


def assert_adds_up(found: dict[str, float], name: str, total: str = "") -> None:
    """The programs' parts are the whole."""
    parts = {program: found[f"{name}_{program}"] for program in PROGRAMS}
    assert sum(parts.values()) == pytest.approx(found[total or name])


def test_one_devices_day(box: Box) -> None:
    """The first test: the archive is still empty, and so it counts whose records of which day come."""
    found = values(days.measure(box, archives.one_day(1_000, DAY_RECORDS), days.Size(DAY_RECORDS, 1, 2, 5, 1)))
    assert found["day_ratio"] == pytest.approx(found["day_100m"] / found["day_10m"])
    assert found["day_10m"] <= found["day_10m_p99"]
    with pytest.raises(RuntimeError, match=f"{DAY_RECORDS} records of"):
        days.check(box, days.Asked("sim-000001", "2026-01-01"), 1)


def test_the_fleet_and_exports(box: Box) -> None:
    """Of the day that the test before wrote. Routes that are not there are not measured; all else is."""
    found = list(exports.measure(box, DAY_RECORDS * 1_000, exports.Size(DAY_RECORDS, 1, 2)))
    assert boxes.unsaved(box) == exports.TAIL_RECORDS
    boxes.wait_saved(box)
    missing = {one.id for one in found if isinstance(one, Missing)}
    measured = {one.id: one.value for one in found if isinstance(one, Result)}
    assert missing | measured.keys() >= {"fleet_hour", "export_parquet", "export_csv"}
    assert not missing & measured.keys()
    for name in ("fleet_hour", "export_parquet", "export_csv"):
        assert measured[f"{name}_bare_duckdb"] > 0


@pytest.mark.parametrize("name", ["cpu_msgpack", "cpu_json_tcp", "cpu_json_http"])
def test_ingest(name: str, box: Box) -> None:
    way, a_device, target_us = ingest.KINDS[name]
    before = boxes.saved(box)
    found = values(
        ingest.rows(name, ingest.kind(box, way, a_device, SMALL, 10 * list(ingest.KINDS).index(name)), target_us)
    )
    assert boxes.saved(box) == before + SMALL.records
    assert_adds_up(found, name)
    assert found[f"{name}_rate"] > 100


def test_what_was_saved_twice_is_merged(box: Box) -> None:
    source = ingest.Source(box, ingest.FRAMES, messages.batches(2_000), "twice")
    archive, day = boxes.archive_of(box), messages.day(300)
    for _ in range(2):
        send(source.connections(300))
        boxes.wait_saved(box)
        assert boxes.unsaved(box) == 0
    assert [one.records for one in archive.days(archive.open()) if one.day == day] == [4_000]
    boxes.wait_merged(box)
    assert [one.files for one in archive.days(archive.open()) if one.day == day] == [1]


def test_append(box: Box) -> None:
    found = values(append.measure(box, SMALL))
    assert found["append_ratio"] > 0
    assert found["append_ratio"] == pytest.approx(found["append_rate"] / found["append_bare_rate"])
    assert found["append_group"] in (1_000, 2_000)


def test_single(box: Box) -> None:
    allow_open_files(single.TCP_CONNECTIONS + 100)
    before = boxes.saved(box)
    found = values(single.measure(box, single.Size(0.5, 1, 2_000)))
    for name in ("single_http", "single_tcp"):
        assert_adds_up(found, name, f"{name}_cpu")
        assert found[f"{name}_collector"] > found[f"{name}_redis"] > found[f"{name}_api"]
        assert 0 < found[f"{name}_p50"] <= found[f"{name}_p99"]
    assert boxes.saved(box) > before + found["single_http"] * 0.3


def test_latest(box: Box) -> None:
    found = values(latest.measure(box, latest.Size(50, 1, 0.5)))
    assert 0 < found["latest_idle"] <= found["latest_idle_p99"]
    assert found["latest_idle"] > found["latest_idle_bare_redis"] / 2
    assert 0 < found["latest_busy"] <= found["latest_busy_p99"]


def test_sustained(box: Box) -> None:
    boxes.wait_saved(box)
    before = boxes.saved(box)
    found = values(sustained.measure(box, sustained.Size(2.5, 4_000, 20_000)))
    boxes.wait_saved(box)
    acknowledged = boxes.saved(box) - before
    assert 8_000 <= acknowledged <= 10_000
    assert found["sustained_acknowledged"] <= 4_100
    assert found["sustained"] <= found["sustained_acknowledged"]
    assert_adds_up(found, "sustained", "sustained_cpu")


def test_a_tail_that_grows() -> None:
    tail = sustained.Tail.__new__(sustained.Tail)
    tail.unsaved = [n * 100 for n in range(40)]
    assert tail.growth_per_s == pytest.approx(100)
    tail.unsaved = [0, 20_000, 5_000, 20_000] * 10
    assert tail.growth_per_s == pytest.approx(0, abs=1_000)


def test_scale(box: Box) -> None:
    size = scale.Size(1_500, 2_000, 1, 2, 2_000)
    found = values(scale.of_devices(box, size)) | values(scale.of_days(box, size))
    assert found["scale_devices"] == pytest.approx(found["scale_devices_large"] / found["scale_devices_small"])
    assert found["scale_days"] > 0


def test_idle(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SAMPLE_S", 0.5)
    found = values(idle.measure(box, 1.2))
    parts = [value for name, value in found.items() if name.startswith("idle_memory_")]
    assert sum(parts) == pytest.approx(found["idle_memory"])
    assert len(parts) == 8
    assert 0 < found["idle_cpu"] < 100


def test_imports(box: Box, tmp_path: Path) -> None:
    before = boxes.saved(box)
    found = values(imports.measure(box, imports.write(tmp_path, 2_000), 2_000))
    assert boxes.saved(box) == before + 2_000 * len(imports.KINDS)
    for kind in imports.KINDS:
        assert 0 < found[f"import_{kind}"] < 100
        assert found[f"import_{kind}_memory"] > 50


def test_two_collector_processes(box: Box) -> None:
    loads, costs = cores.rounds(box, messages.batches(2_000), 1)
    assert loads[0].records == 2_000
    assert costs[0].by_program.keys() == set(PROGRAMS)


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace is installed: scripts/install-strace")
@pytest.mark.thorough
def test_a_slow_disk_is_slow() -> None:
    with slow_disk.box(slow_disk.FSYNC_US) as box:
        bodies = messages.msgpack_bodies(messages.batches(5_000))
        made = [messages.frame("single", number + 1, body) for number, body in enumerate(bodies)]
        load = send([Connection(("127.0.0.1", box.tcp_port), made, ingest.FRAMES.answers())])
        assert min(load.taken_ms) >= slow_disk.FSYNC_US / 1_000
        assert slow_disk.written_bytes(box) > 5_000 * 50


@pytest.mark.slow
@pytest.mark.thorough
def test_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "DEVICES", 20)
    monkeypatch.setattr(forwards, "QUICK_A_DAY", 10)
    found = {one.id: one.value for one in forwards.run(quick=True) if isinstance(one, Result)}
    assert found["forward_whimbrel"] > 0
    assert found["forward_http_cpu"] > 0


def test_a_cluster_is_measured_beside_one_server() -> None:
    found = {result.id: result.value for result in cluster.measure(ingest.Size(20_000, 1))}
    assert found["cluster"] == pytest.approx(found["cluster_three_nodes"] / found["cluster_one_server"])


def test_where_the_fleet_was(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of days that other tests may have written to, too."""
    size = past.Size(DAY_RECORDS, 2, 50, 1, 1)
    some = {name: asked for name, asked in past.kinds(size).items() if name in ("past_fleet", "past_unknown")}
    monkeypatch.setattr(past, "kinds", lambda _: some)
    found = values(past.measure(box, archives.one_day(1_000, DAY_RECORDS), size))
    assert found.keys() >= {"past_fleet", "past_fleet_first", "past_unknown", "past_unknown_query"}
    with pytest.raises(RuntimeError, match="2 devices, not 3"):
        past.check(box, some["past_unknown"]._replace(seen=3), "2026-01-02T12:00:00Z")
