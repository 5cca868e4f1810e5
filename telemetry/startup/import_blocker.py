"""Blocks imports of numpy and pandas, which pyarrow loads if they are installed.

Whimbrel uses neither. They cost memory in each program that uses Arrow, and CPU time at its start
(docs/performance.md). Programs and commands block them before other imports. Tests, which read the archive with
pandas, do not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

UNNEEDED = frozenset({"numpy", "pandas"})


class _Refusal(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """None: the next finder continues. Raises `ModuleNotFoundError` for blocked modules."""
        if name in UNNEEDED:
            raise ModuleNotFoundError(f"{name} is blocked: Whimbrel does not need it", name=name)


def refuse() -> None:
    """Block the modules in `UNNEEDED` from now on."""
    sys.meta_path.insert(0, _Refusal())
