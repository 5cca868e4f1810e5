"""Bounds the bytes of unfinished bodies and messages together, and gives up stalled and greedy ones first.

A body counts from its first byte until its records are handed to the intake, which counts them itself; a message over
TCP until it is whole. When all together exceed the limit, one of others is given up so
that the new bytes find room: first one that has not brought `PACE_BYTES` for `STALLED_S`, then one of the sender that
holds most, if that is twice what the sender of the new bytes holds. Otherwise the new bytes are refused. A sender is a
key and an address. A body alone may always come.

This file knows no socket; the clock is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PACE_BYTES, STALLED_S = 4_096, 2.0
"""A body that brings less than so many bytes in so many seconds has stalled. It is given up only when others
need the room: a device on a slow network keeps its place while there is room."""


class Upload:
    """One body. `give_up` is called, once, when it has to make room; `is_given_up` says so from then on."""

    __slots__ = ("bytes", "give_up", "is_given_up", "marked_bytes", "marked_s", "sender")

    def __init__(self, sender: str, give_up: Callable[[], object]) -> None:
        self.sender = sender
        self.give_up = give_up
        self.bytes = 0
        self.marked_bytes = 0
        self.marked_s = 0.0  # when `marked_bytes` were there: the last moment at which it was fast enough
        self.is_given_up = False


class Arriving:
    """All unfinished bodies of a process, or messages of a port. All methods belong to the event loop."""

    def __init__(self, max_bytes: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock_s = clock_s
        self._paced: dict[Upload, None] = {}  # the one that was fast enough longest ago is the first
        self._of: dict[str, dict[Upload, None]] = {}
        self._held: dict[str, int] = {}  # bytes by sender

    def hold(self, upload: Upload, size_bytes: int) -> bool:
        """Count that so much of an upload is there now; 0 once it is whole or gone. False: no room, it must be refused.

        Whoever is refused still has to end with 0.
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
        """Count a whole body, of perhaps another size now that it is inflated; nothing makes it give way any more.

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
        """Put an upload last, as one that comes fast enough."""
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
        """The upload that makes room for another, if there is one."""
        slowest = next((one for one in self._paced if one is not upload), None)
        if slowest is not None and self._clock_s() - slowest.marked_s >= STALLED_S:
            return slowest
        greedy = max(self._held, key=self._held.__getitem__, default=upload.sender)
        if self._held.get(greedy, 0) <= 2 * self._held.get(upload.sender, 0):
            return None
        return next(iter(self._of[greedy]))
