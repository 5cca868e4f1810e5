"""Something done before a step of a save, an import or a deletion; a process that ends there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from telemetry.system.failpoints import Step


class Stop(Exception):
    """Stands for a process that ends here."""


def stop() -> None:
    """Raises `Stop`."""
    raise Stop


def at(wanted: str, do: Callable[[], object], times: int = 1) -> Step:
    """Do something before a step, the `times`-th time that it is taken."""
    seen = Counter[str]()

    def reached(step: str) -> None:
        seen[step] += 1
        if step == wanted and seen[step] == times:
            do()

    return reached
