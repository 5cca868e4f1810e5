"""Batches of an import: records as columns until they are enough for a commit, and the commits, one behind the other.

While one batch is committed in a thread of its own, the next is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import pyarrow as pa
from msgspec.structs import astuple

from cli.imports.rows.reader import Piece
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.schema import COLUMNS
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Sent
from telemetry.model.utc import DAY_US
from worker.bulk_import import Importer

BATCH_ROWS, MOST_ROWS = 250_000, 500_000
DAY_ROWS = 4_000
"""A batch has `BATCH_ROWS`, or more where it would bring its days fewer than `DAY_ROWS` each: files should be few."""

_NAMES = [name for name in COLUMNS.names if name not in ("id", "received_at")]
_SCHEMA = pa.schema([COLUMNS.field(name) for name in _NAMES])


def columns_of(sent: Sequence[Sent]) -> pa.RecordBatch:
    """Records as columns, without what they get on arrival."""
    times, *rest = zip(*[astuple(one.record) for one in sent], strict=True)
    values = ([one.device_id for one in sent], times, *rest)
    return pa.record_batch([pa.array(v, type=f.type) for v, f in zip(values, _SCHEMA, strict=True)], schema=_SCHEMA)


class Batches:
    """Gathers pieces and commits them; `committed` hears of each commit's records, in the thread that made it."""

    def __init__(self, importer: Importer, shards: Sequence[Shard], before_commit: Callable[[], None]) -> None:
        self._importer = importer
        self._shards = shards
        self._before_commit = before_commit
        for shard in shards:
            importer.settle(shard)
        self._progress = {shard.shard: importer.progress(shard) for shard in shards}
        self._gathered: dict[int, list[pa.RecordBatch]] = {shard.shard: [] for shard in shards}
        self._first = 0
        self._rows = 0
        self._days: set[int] = set()
        self._pool = ThreadPoolExecutor(1)
        self._committing: Future[None] | None = None
        self.days: set[int] = set()
        self.imported = 0
        self.already = 0

    @property
    def is_whole(self) -> bool:
        """Whether all of the source is in the archive."""
        return all(progress.is_whole for progress in self._progress.values())

    @property
    def done_rows(self) -> int:
        """Rows of the source that are done in every shard."""
        return min(progress.rows for progress in self._progress.values())

    def add(self, piece: Piece) -> None:
        """Take a piece; what of it was committed before is left out."""
        for shard in self._shards:
            self._add(shard.shard, piece.sent, piece.behind(self._progress_of(shard.shard) - self._first).sent)
        self._first += piece.rows
        if self._rows >= (MOST_ROWS if len(self._days) * DAY_ROWS > self._rows else BATCH_ROWS):
            self._commit(is_whole=False)

    def _progress_of(self, shard: int) -> int:
        return self._progress[shard].rows

    def _add(self, shard: int, every: Sequence[Sent], new: Sequence[Sent]) -> None:
        many = len(self._shards)
        if many > 1:
            every = [one for one in every if shard_of(one.device_id, many) == shard]
            new = [one for one in new if shard_of(one.device_id, many) == shard]
        self.already += len(every) - len(new)
        if new:
            self._gathered[shard].append(columns_of(new))
            self._rows += len(new)
            self._days |= {one.record.timestamp_us // DAY_US for one in new}

    def end(self) -> None:
        """Commit what is left, and that it is all."""
        self._commit(is_whole=True)
        self.wait()

    def _commit(self, is_whole: bool) -> None:
        self.wait()
        batch = {shard: pa.Table.from_batches(found, _SCHEMA) for shard, found in self._gathered.items()}
        after, days = Progress(self._first, is_whole), self._days
        self._gathered = {shard: [] for shard in batch}
        self._rows, self._days = 0, set()
        self._committing = self._pool.submit(self._bring, batch, after, days)

    def _bring(self, batch: dict[int, pa.Table], after: Progress, days: set[int]) -> None:
        self._before_commit()
        for shard in self._shards:
            before = self._progress[shard.shard]
            if before.version < after.version:
                self._importer.bring(shard, batch[shard.shard], before, after)
                self._progress[shard.shard] = after
                self.imported += batch[shard.shard].num_rows
        self.days |= days

    def wait(self) -> None:
        """Wait for the commit under way."""
        if self._committing is not None:
            committing, self._committing = self._committing, None
            committing.result()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
