"""When to try again, and when no more: exponential pauses with jitter, never shorter than the box asks for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from whimbrel_client.errors import BoxUnavailable
from whimbrel_client.steps import Answer, Ask, Steps, Wait

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0


class Pauses:
    """The pauses between tries in a row. Each is half to all of twice the one before, so that senders part ways."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._failures = 0

    def next_s(self, least_s: float = 0.0) -> float:
        """How long to wait after another failure; `least_s` is what the box asked for."""
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return max(least_s, longest_s * (0.5 + self._chance() / 2))

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0


class Patience:
    """How long one thing is tried: for `retry_for_s` from now on, with pauses."""

    def __init__(self, retry_for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = clock() + retry_for_s
        self._pauses = Pauses()

    def pause_s(self, error: BoxUnavailable) -> float | None:
        """How long to wait before the next try; None if that would be too late."""
        pause_s = self._pauses.next_s(error.retry_after_s)
        return pause_s if self._clock() + pause_s <= self._until_s else None


def asked(ask: Ask, understood: Callable[[Answer], object], patience: Patience) -> Steps[Answer]:
    """An answer that `understood` raises no error for; tried again while the box is away."""
    while True:
        try:
            answer: Answer = yield ask
            understood(answer)
            return answer
        except BoxUnavailable as error:
            pause_s = patience.pause_s(error)
            if pause_s is None:
                raise
            yield Wait(pause_s)
