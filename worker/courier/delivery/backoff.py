"""Backoff between attempts: doubles up to a maximum, with jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_WAIT_S = 1.0
LONGEST_ASKED_S = 3_600.0
"""Limit of the pause that a receiver may request, s."""


class Patience:
    """Counts consecutive failures. `draw` returns a number from 0 to 1."""

    def __init__(self, longest_s: float, draw: Callable[[], float] = random.random) -> None:
        self._longest_s = longest_s
        self._draw = draw
        self._next_s = FIRST_WAIT_S

    def failed(self, asked_s: float = 0.0) -> float:
        """Seconds to wait after another failure; at least as long as the receiver requested."""
        wait_s = min(self._next_s, self._longest_s)
        self._next_s = min(2 * self._next_s, self._longest_s)
        return max(wait_s * (1 + self._draw()) / 2, min(asked_s, LONGEST_ASKED_S))

    def succeeded(self) -> None:
        """Reset the count."""
        self._next_s = FIRST_WAIT_S
