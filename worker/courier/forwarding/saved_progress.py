"""The progress of one forward: which version of the archive's log it has sent, kept in the courier's database."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from telemetry.archive import commit_log
from telemetry.archive.change_feed import digest_at
from worker.courier.delivery.state_db import DONE_KEPT, Progress, Store


class SavedProgress:
    """`progress` is the last saved one; None for a forward that never began. `log` is the folder of the log."""

    def __init__(self, store: Store, name: str, log: Path) -> None:
        self._store = store
        self._name = name
        self._log = log
        self.progress = store.progress(name)

    def save(self, progress: Progress, due: Iterable[tuple[str, int]] = ()) -> Progress:
        """Save and return it. `due` are paths that the receiver is to delete, each with when, ms since epoch."""
        self._store.keep(self._name, progress, due)
        self.progress = progress
        return progress

    def rewind(self, progress: Progress) -> Progress:
        """Save an earlier progress: later versions count as not sent."""
        self._store.rewind(self._name, progress)
        self.progress = progress
        return progress

    def skip_to(self, progress: Progress, version: int, records: int, versions: int) -> Progress:
        """Go on after a version, and count what is not sent as dropped."""
        return self.save(
            replace(
                progress,
                **self.after(version),
                dropped_records=progress.dropped_records + max(records, 0),
                dropped_versions=progress.dropped_versions + versions,
            )
        )

    def after(self, version: int) -> dict[str, Any]:
        """Return the fields of `Progress` of a forward that has sent a version, and begun nothing else."""
        digest = digest_at(self._log, version) or ""
        return {"version": version, "digest": digest, "begun_version": -1, "done_rows": 0, "backlog": ()}

    def sent_versions(self) -> list[tuple[int, str]]:
        """Versions that were sent, and their digests, the newest first."""
        return self._store.done(self._name)

    def seed(self) -> None:
        """Count the versions that the log has now as sent."""
        versions = commit_log.entries(self._log)[-DONE_KEPT:]
        digests = ((version, digest_at(self._log, version)) for version in versions)
        self._store.seed(self._name, [(version, digest) for version, digest in digests if digest])


def replace(progress: Progress, **changes: Any) -> Progress:
    """Return a progress with other values."""
    return msgspec.structs.replace(progress, **changes)
