"""How long to wait between two tries: twice as long each time up to a bound, and not all at the same moment."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_WAIT_S = 1.0
LONGEST_ASKED_S = 3_600.0
"""A receiver may ask for a longer pause than ours, but not for one without end."""


class Patience:
    """Counts failures in a row. `draw` gives a number from 0 to 1."""

    def __init__(self, longest_s: float, draw: Callable[[], float] = random.random) -> None:
        self._longest_s = longest_s
        self._draw = draw
        self._next_s = FIRST_WAIT_S

    def failed(self, asked_s: float = 0.0) -> float:
        """Seconds to wait after one more failure; at least what the receiver asked for."""
        wait_s = min(self._next_s, self._longest_s)
        self._next_s = min(2 * self._next_s, self._longest_s)
        return max(wait_s * (1 + self._draw()) / 2, min(asked_s, LONGEST_ASKED_S))

    def succeeded(self) -> None:
        """Forget the failures so far."""
        self._next_s = FIRST_WAIT_S
