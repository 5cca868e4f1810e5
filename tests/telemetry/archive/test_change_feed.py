"""The archive's log as forwards read it: which version brought which records."""

from __future__ import annotations

import json
from datetime import date

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.compaction import Compactor
from compactor.plan import Limits
from telemetry.archive import commit_log
from telemetry.archive.change_feed import Change, change_at, digest_at, parse
from telemetry.archive.operations import commits
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ArchiveError
from telemetry.system import clock
from tests.worker.conftest import Ledger
from worker.saving.saver import Saver

DAY_MS = 86_400_000


def all_changes(archive: Archive) -> list[Change]:
    log = commit_log.folder(archive.root)
    found = [change_at(log, version) for version in commit_log.entries(log)]
    assert None not in found
    return [change for change in found if change is not None]


def test_saves_bring_records_and_nothing_else_does(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    ledger, saver = Ledger(), Saver(archive, connection, clock.now_ms)
    for count in (3, 5, 2):
        ledger.append(shard, ["a"] * count, days=2)
        saver.save(shard)
    compactor = Compactor(archive, lambda: connection, clock.now_us, Limits(retention_max_bytes=1), is_all=True)
    while compactor.compact():
        pass
    commits.fence(archive, archive.open(), date(2020, 1, 1))
    assert compactor.retain()
    changes = all_changes(archive)
    assert [change.rows for change in changes if change.is_save] == [3, 5, 2]
    assert sum(change.rows for change in changes) == 10
    others = [change for change in changes if not change.is_save]
    assert any(change.added and change.removed for change in others), "a merge"
    assert any(change.removed and not change.added for change in others), "retention"
    for change in changes:
        assert abs(change.at_ms - clock.now_ms()) < DAY_MS
        assert [file.size_bytes for file in change.added] == [
            (archive.root / file.path).stat().st_size for file in change.added
        ]


def test_a_digest_tells_entries_apart(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    ledger, saver = Ledger(), Saver(archive, connection, clock.now_ms)
    for _ in range(2):
        ledger.append(shard, ["a"])
        saver.save(shard)
    changes, log = all_changes(archive), commit_log.folder(archive.root)
    assert len({change.digest for change in changes}) == len(changes)
    assert [digest_at(log, change.version) for change in changes] == [change.digest for change in changes]
    assert change_at(log, 99) is None
    assert digest_at(log, 99) is None


@pytest.mark.parametrize(
    "entry", [b"{", b"[]", b'{"add": {}}', b'{"add": {"path": 1, "size": 1}}', b'{"txn": 3}', b"\xff"]
)
def test_an_entry_that_is_none_is_an_error_of_the_archive(entry: bytes) -> None:
    with pytest.raises(ArchiveError, match="cannot read entry 7"):
        parse(7, entry)


@settings(deadline=None)
@given(
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: st.dictionaries(
            st.sampled_from(["add", "remove", "txn", "commitInfo", "path", "size", "stats", "appId"]), x
        ),
    )
    .map(json.dumps)
    .map(str.encode)
)
def test_noise_is_read_or_refused(entry: bytes) -> None:
    try:
        found = parse(1, entry)
    except ArchiveError:
        return
    assert found.version == 1
