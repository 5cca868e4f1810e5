"""Environment markers of lock files, such as `python_full_version < '3.12' and sys_platform == 'win32'`."""

from __future__ import annotations

import ast
import operator
import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any

VERSIONS = ("python_version", "python_full_version", "implementation_version")
"""Variables that compare as versions; all others compare as text."""

_TESTS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def environment() -> dict[str, str]:
    """The variables of this Python and machine. A release candidate counts as its release."""
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": ".".join(map(str, sys.implementation.version[:3])),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": ".".join(map(str, sys.version_info[:3])),
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "sys_platform": sys.platform,
    }


def applies(marker: str, variables: Mapping[str, str]) -> bool:
    """Whether a marker holds; an empty one always does.

    The grammar of markers is that of Python's comparisons, joined by `and` and `or`. Raises `ValueError` for any other
    syntax (`~=`, `===`, wildcards), and for variables that are not in `variables`.
    """
    if not marker.strip():
        return True
    try:
        return _holds(ast.parse(marker.strip(), mode="eval").body, variables)
    except SyntaxError:
        raise ValueError(f"cannot read the environment marker {marker.strip()}") from None


def _holds(node: ast.expr, variables: Mapping[str, str]) -> bool:
    if isinstance(node, ast.BoolOp):
        parts = [_holds(value, variables) for value in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and (test := _TESTS.get(type(node.ops[0]))):
        sides = (node.left, node.comparators[0])
        texts = [_text(side, variables) for side in sides]
        is_text = isinstance(node.ops[0], ast.In | ast.NotIn)
        if not is_text and any(isinstance(side, ast.Name) and side.id in VERSIONS for side in sides):
            return test(*map(_release, texts))
        return test(*texts)
    raise ValueError(f"cannot read the environment marker {ast.unparse(node)}")


def _text(node: ast.expr, variables: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name) and node.id in variables:
        return variables[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError(f"cannot read {ast.unparse(node)} in an environment marker")


def _release(version: str) -> tuple[int, ...]:
    """Its numbers, without zeros at the end: 3.12 and 3.12.0 are the same."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
