"""Records that are gathered into batches: how many, and for how long."""

from __future__ import annotations

from collections.abc import Sequence

from whimbrel_client.batch import Batch, Sent, joined
from whimbrel_client.errors import WhimbrelError

MOST_REFUSED = 1_000
"""Refused records that a writer's totals keep, the last ones."""


class Gathering:
    """Encoded records that wait to be sent together.

    They are due when there are `max_records` of them, or `max_delay_s` after the first came; `has_room` ends at ten
    batches, so that a box that is away does not fill the memory of who writes.
    """

    def __init__(self, max_records: int, max_delay_s: float) -> None:
        if max_records < 1 or max_delay_s < 0:
            raise ValueError("max_records must be at least 1, max_delay_s at least 0")
        self._max_records = max_records
        self._max_delay_s = max_delay_s
        self._items: list[bytes] = []
        self._begun_s = 0.0
        self._is_wanted = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def has_room(self) -> bool:
        """Whether one more may be added."""
        return len(self._items) < 10 * self._max_records

    def add(self, item: bytes, now_s: float) -> None:
        """Add one."""
        if not self._items:
            self._begun_s = now_s
        self._items.append(item)

    def want(self) -> None:
        """What there is now is due."""
        self._is_wanted = bool(self._items)

    def due_in_s(self, now_s: float) -> float | None:
        """In how many seconds a batch is due: 0 if one is, None if there is nothing."""
        if not self._items:
            return None
        if self._is_wanted or len(self._items) >= self._max_records:
            return 0.0
        return max(0.0, self._begun_s + self._max_delay_s - now_s)

    def take(self) -> list[bytes]:
        """The next batch; what is behind it is as old as it, and so due next."""
        taken, self._items = self._items[: self._max_records], self._items[self._max_records :]
        self._is_wanted = self._is_wanted and bool(self._items)
        return taken

    def take_all(self) -> list[bytes]:
        """All that is left."""
        taken, self._items = self._items, []
        return taken


# What both writers decide ----------------------------------------------------------------------------


def next_batch(gathering: Gathering, is_closing: bool, now_s: float, again_s: float | None) -> Sequence[bytes] | None:
    """The batch that is due, an empty one if `again_s`, when to look at the spool, is over; None if nothing is due."""
    due_s = gathering.due_in_s(now_s)
    if due_s is not None and (is_closing or due_s == 0.0):
        return gathering.take()
    return () if not is_closing and again_s is not None and again_s <= now_s else None


def pause_s(gathering: Gathering, now_s: float, again_s: float | None) -> float | None:
    """How long until something will be due, if nothing comes before; None for ever."""
    due_s = gathering.due_in_s(now_s)
    waits = [*([] if due_s is None else [due_s]), *([] if again_s is None else [again_s - now_s])]
    return min(waits, default=None)


def plus(totals: Sent, sent: Sent) -> Sent:
    """The totals of a writer with what came of one batch more."""
    found = totals.plus(sent)
    return found._replace(refused=found.refused[-MOST_REFUSED:])


def left_of(gathering: Gathering, error: BaseException, items: Sequence[bytes]) -> Sequence[Batch]:
    """What the box may not have after sending `items` failed: what the error says, and all that was gathered since."""
    left = gathering.take_all()
    failed = error.undelivered if isinstance(error, WhimbrelError) else (joined(items),)
    return (*failed, *([joined(left)] if left else []))
