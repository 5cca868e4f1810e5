"""What programs do not load though it may be installed: pyarrow takes numpy along, and at the first column pandas.

Nothing of ours uses either, and both together are 30 MB in each program that has Arrow, and half of the CPU time that
`whimbrel export` takes to begin. Programs and commands refuse them before they import anything else. Tests, which look
at the archive with pandas, do not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

UNNEEDED = frozenset({"numpy", "pandas"})


class _Refusal(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """None, which leaves it to the next finder. Raises `ModuleNotFoundError` for what is not to be loaded."""
        if name in UNNEEDED:
            raise ModuleNotFoundError(f"{name} is not needed here", name=name)


def refuse() -> None:
    """From now on `UNNEEDED` is as if it were not installed."""
    sys.meta_path.insert(0, _Refusal())
