"""Room for the unsaved records that questions hold at once.

Redis tells how many bytes wait before any is read (`State.unsaved_bytes`), so a question that finds no room is refused
before it takes memory.
"""

from __future__ import annotations

import sys
import threading
import weakref

from telemetry.model.errors import BusyError

RETRY_AFTER_S = 5
"""By then a save has mostly ended."""


class TailTooLarge(BusyError):
    """More unsaved records than questions may hold at once."""


class Held:
    """Room for some bytes, as long as somebody keeps this."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


class TailRoom:
    """Room for `max_bytes`, for any number of threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: weakref.WeakSet[Held] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How many bytes are held now."""
        return sum(held.size_bytes for held in self._held)

    def take(self, size_bytes: int) -> Held:
        """Room for so many bytes. Raises `TailTooLarge` if there is none now."""
        with self._lock:
            held_bytes = self.held_bytes
            if held_bytes + size_bytes > self._max_bytes:
                raise TailTooLarge(
                    f"cannot read {size_bytes:,} bytes of records that are not saved yet: questions may hold "
                    f"{self._max_bytes:,} at once (api.max_tail_bytes), and hold {held_bytes:,}; ask again when they "
                    "are saved, or about fewer devices",
                    RETRY_AFTER_S,
                )
            held = Held(size_bytes)
            self._held.add(held)
            return held


UNLIMITED = TailRoom(sys.maxsize)
"""Room for a program that asks one question and ends."""
