"""Delivers one version to a receiver: its records in batches, or its files and its log entry."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from telemetry.archive.change_feed import Change
from telemetry.model.errors import RecordError, SenderError
from telemetry.system.failpoints import Step, no_step_reporter
from worker.courier.delivery.record_batches import Piece, pieces
from worker.courier.delivery.state_db import Progress, Store
from worker.courier.forwarding.log_position import Snapshot
from worker.courier.targets.target import Batch, BatchRefused, RecordTarget, TableTarget

log = logging.getLogger(__name__)

DELETED_AT_ONCE = 100

Keep = Callable[[Progress], object]


class Delivery(Protocol):
    """Delivery of versions. `can_skip`: a version may be omitted without harm to later ones."""

    can_skip: bool

    def deliver(self, change: Change, progress: Progress, is_again: bool, keep: Keep) -> Progress:
        """Send it, or the rest of it; returns the progress afterwards. `is_again`: parts may have been sent before."""

    def newest(self) -> int | None:
        """The version of an existing copy with the same history as this archive; None if there is none."""

    def begin(self, now: Snapshot) -> None:
        """Send the current table."""

    def rewind(self, version: int) -> bool:
        """Go back to a version after a restore of the archive. False if a copy must start again."""

    def due(self, removed: Iterable[str], now_ms: int) -> Sequence[tuple[str, int]]:
        """Removed files that must be deleted, and when."""

    def tidy(self, progress: Progress) -> None:
        """Delete files that are due."""

    def close(self) -> None:
        """Close the connection to the receiver."""


class Records:
    """Numbered batches of records, identical when they are sent again."""

    can_skip = True

    def __init__(
        self, target: RecordTarget, root: Path, on_refused: str, name: str, reached: Step = no_step_reporter
    ) -> None:
        self._target, self._root, self._name, self._reached = target, root, name, reached
        self._skips = on_refused == "skip"

    def deliver(self, change: Change, progress: Progress, is_again: bool, keep: Keep) -> Progress:
        """See `Delivery`."""
        target = self._target
        batches = pieces(self._root, change.saved, progress.done_rows, target.encode, *target.bounds)
        for piece in batches:
            progress = self._send(piece, progress, is_again, keep)
            self._reached("keep")
            keep(progress)
        return progress

    def _send(self, piece: Piece, progress: Progress, is_again: bool, keep: Keep) -> Progress:
        """Send one piece; returns the progress afterwards."""
        items = list(piece.items)
        while items:
            try:
                self._reached("send")
                if not self._target.send(Batch(progress.sender, progress.number + 1, items)) and not is_again:
                    progress = self._under_another_name(progress, keep)
                    continue
                break
            except RecordError as error:
                self._refused(error)
                del items[error.index if error.index is not None and error.index < len(items) else 0]
            except BatchRefused as error:
                self._refused(error)
                items = []
        return msgspec.structs.replace(
            progress,
            number=progress.number + bool(items),
            done_rows=piece.first + len(piece.items),
            sent_records=progress.sent_records + len(items),
            refused_records=progress.refused_records + len(piece.items) - len(items),
        )

    def _under_another_name(self, progress: Progress, keep: Keep) -> Progress:
        """The receiver has a number that was never sent: this box was restored to an older state."""
        log.warning("forward %s: its batch numbers were used before: continuing with a new sender id", self._name)
        progress = msgspec.structs.replace(progress, sender=new_sender(), number=0)
        keep(progress)
        return progress

    def _refused(self, error: SenderError) -> None:
        if not self._skips:
            raise error
        log.warning("forward %s: skipping what the receiver rejects: %s", self._name, error)

    def newest(self) -> int | None:
        """Not used with `can_skip`."""
        return None

    def begin(self, now: Snapshot) -> None:
        """Not used with `can_skip`: it begins with the next save, or with a backlog."""

    def rewind(self, version: int) -> bool:
        """True: a receiver keeps the records that it has."""
        return True

    def due(self, removed: Iterable[str], now_ms: int) -> Sequence[tuple[str, int]]:
        """Nothing."""
        return ()

    def tidy(self, progress: Progress) -> None:
        """Nothing."""

    def close(self) -> None:
        """See `Delivery`."""
        self._target.close()


class Table:
    """A copy of the table, file by file. With `mirror` it deletes files `grace_s` after they left the table."""

    can_skip = False

    def __init__(
        self,
        target: TableTarget,
        store: Store,
        name: str,
        mirror_grace_s: float | None,
        now_ms: Callable[[], int],
        reached: Step = no_step_reporter,
    ) -> None:
        self._target, self._store, self._name = target, store, name
        self._mirror_grace_s, self._now_ms, self._reached = mirror_grace_s, now_ms, reached

    def deliver(self, change: Change, progress: Progress, is_again: bool, keep: Keep) -> Progress:
        """See `Delivery`."""
        self._reached("send")
        self._target.copy(change)
        return msgspec.structs.replace(progress, sent_records=progress.sent_records + change.rows)

    def newest(self) -> int | None:
        """See `Delivery`."""
        return self._target.newest()

    def begin(self, now: Snapshot) -> None:
        """See `Delivery`."""
        self._target.begin([file.path for file in now.files], now.version)

    def rewind(self, version: int) -> bool:
        """See `Delivery`."""
        return self._target.rewind(version)

    def due(self, removed: Iterable[str], now_ms: int) -> Sequence[tuple[str, int]]:
        """See `Delivery`."""
        if self._mirror_grace_s is None:
            return ()
        return [(path, now_ms + int(self._mirror_grace_s * 1_000)) for path in removed]

    def tidy(self, progress: Progress) -> None:
        """See `Delivery`."""
        if due := self._store.due(self._name, self._now_ms(), DELETED_AT_ONCE):
            self._target.delete(due)
            self._store.deleted(self._name, due)

    def close(self) -> None:
        """See `Delivery`."""
        self._target.close()


def new_sender() -> str:
    """A unique name of a sender: under a known name a receiver accepts no number twice."""
    return f"forward-{secrets.token_hex(8)}"
