"""Limits the total size of unfinished bodies and messages; stalled and large ones are dropped first.

A body counts from its first byte until its records are passed to the intake, which counts them itself; a message over
TCP until it is complete. If the total exceeds the limit, another upload is dropped to make room for the new bytes:
first one that has received less than `PACE_BYTES` in `STALLED_S`, then one of the sender with most bytes, if these are
twice the bytes of the new bytes' sender. Otherwise the new bytes are rejected. A sender is a key and an address. A
single body is always accepted.

This file uses no socket; the clock is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PACE_BYTES, STALLED_S = 4_096, 2.0
"""A body that receives fewer bytes than this in this time is stalled. It is dropped only if others need the room:
a device on a slow network can continue while there is room."""


class Upload:
    """One body. `give_up` is called once when it must make room; `is_given_up` is true from then on."""

    __slots__ = ("bytes", "give_up", "is_given_up", "marked_bytes", "marked_s", "sender")

    def __init__(self, sender: str, give_up: Callable[[], object]) -> None:
        self.sender = sender
        self.give_up = give_up
        self.bytes = 0
        self.marked_bytes = 0
        self.marked_s = 0.0  # time of `marked_bytes`: the last time at which it was fast enough
        self.is_given_up = False


class Arriving:
    """All unfinished bodies of a process, or messages of a port. All methods must be called in the event loop."""

    def __init__(self, max_bytes: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock_s = clock_s
        self._paced: dict[Upload, None] = {}  # the one that was fast enough longest ago comes first
        self._of: dict[str, dict[Upload, None]] = {}
        self._held: dict[str, int] = {}  # bytes by sender

    def hold(self, upload: Upload, size_bytes: int) -> bool:
        """Set the size of an upload; 0 once it is complete or gone. False: no room, and it must be rejected.

        A rejected upload must still be set to 0 at its end.
        """
        if upload.is_given_up:
            return size_bytes == 0
        self._count(upload, size_bytes)
        while self.bytes > self.max_bytes and self.bytes > upload.bytes > 0:
            victim = self._victim(upload)
            if victim is None:
                return False
            self._count(victim, 0)
            victim.is_given_up = True
            victim.give_up()
        return True

    def keep(self, upload: Upload, size_bytes: int) -> bool:
        """Count a complete body, whose size may have changed by decompression; it is not dropped any more.

        False: no room, as for `hold`.
        """
        if not self.hold(upload, size_bytes):
            return False
        if upload in self._paced:
            self._held[upload.sender] -= size_bytes
            self._forget(upload)
        return True

    def _count(self, upload: Upload, size_bytes: int) -> None:
        more_bytes = size_bytes - upload.bytes
        is_new, is_kept = upload.bytes == 0, upload.bytes > 0 and upload not in self._paced
        upload.bytes = size_bytes
        self.bytes += more_bytes
        if is_kept:
            return
        self._held[upload.sender] = self._held.get(upload.sender, 0) + more_bytes
        if size_bytes == 0:
            self._forget(upload)
        elif is_new or not 0 <= size_bytes - upload.marked_bytes < PACE_BYTES:
            self._mark(upload)

    def _mark(self, upload: Upload) -> None:
        """Move an upload to the end, as fast enough."""
        upload.marked_bytes, upload.marked_s = upload.bytes, self._clock_s()
        for uploads in (self._paced, self._of.setdefault(upload.sender, {})):
            uploads.pop(upload, None)
            uploads[upload] = None

    def _forget(self, upload: Upload) -> None:
        self._paced.pop(upload, None)
        own = self._of.get(upload.sender, {})
        own.pop(upload, None)
        if not own:
            self._of.pop(upload.sender, None)
            self._held.pop(upload.sender, None)

    def _victim(self, upload: Upload) -> Upload | None:
        """The upload to drop for another, if there is one."""
        slowest = next((one for one in self._paced if one is not upload), None)
        if slowest is not None and self._clock_s() - slowest.marked_s >= STALLED_S:
            return slowest
        greedy = max(self._held, key=self._held.__getitem__, default=upload.sender)
        if self._held.get(greedy, 0) <= 2 * self._held.get(upload.sender, 0):
            return None
        return next(iter(self._of[greedy]))
