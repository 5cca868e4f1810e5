"""The floors of the house: imports point down or stay in their folder, and what is pure stays pure."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("telemetry", "collector", "worker", "compactor", "api", "cli")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "telemetry": ("telemetry",),
    "collector": ("telemetry", "collector"),
    "worker": ("telemetry", "worker"),
    "compactor": ("telemetry", "compactor"),
    "api": ("telemetry", "api", "collector.http"),
    "cli": PACKAGES,
}

LOWEST: dict[str, tuple[str, ...]] = {
    "telemetry": (),
    "telemetry.errors": (),
    "telemetry.record": ("telemetry.errors",),
    "telemetry.config": (
        "telemetry.errors",
        "telemetry.settings",
        "telemetry.settings_checks",
        "telemetry.secure_defaults",
    ),
    "telemetry.secure_defaults": ("telemetry.settings",),
    "telemetry.settings": (),
    "telemetry.settings_checks": ("telemetry.errors", "telemetry.settings", "telemetry.topics"),
    "telemetry.topics": (),
}
"""Floors 0 and 1, and what they may use of Whimbrel."""

PURE = (
    "telemetry/record.py",
    "telemetry/topics.py",
    "telemetry/entries.py",
    "telemetry/fields.py",
    "telemetry/keys.py",
    "telemetry/older.py",
    "telemetry/json_text.py",
    "telemetry/json_like.py",
    "collector/bodies.py",
    "collector/encodings.py",
    "worker/plan.py",
    "cli/traffic.py",
    *(str(path.relative_to(PROJECT)) for path in (PROJECT / "collector" / "protocols").glob("*.py")),
)
IMPURE = {
    "asyncio",
    "io",
    "os",
    "pathlib",
    "random",
    "redis",
    "secrets",
    "socket",
    "ssl",
    "tempfile",
    "threading",
    "time",
}

SOURCES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
CLIENT = sorted((PROJECT / "client" / "whimbrel_client").rglob("*.py"))
ITS_OWN = {"whimbrel_client", "httpx"}
"""What the client is made of besides Python's own modules; tables of pyarrow and others are loaded by name."""

PURE_OF_CLIENT = ("batch", "values", "steps", "answers", "delivery", "reading", "events", "gathering", "errors")
"""What decides, for clients that wait and clients that don't."""


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, as `package.module` where a module is imported from a package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                deeper = PROJECT / Path(*(node.module or "").split("."), alias.name)
                is_module = deeper.with_suffix(".py").exists() or deeper.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module or ""


def own_imports(path: Path) -> list[str]:
    return [name for name in imports(path) if name.split(".")[0] in PACKAGES]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    allowed = MAY_IMPORT[path.relative_to(PROJECT).parts[0]]
    for name in own_imports(path):
        assert any(name == one or name.startswith(one + ".") for one in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("module", LOWEST)
def test_the_lowest_floors_stand_on_nothing_above(module: str) -> None:
    path = PROJECT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert set(own_imports(path)) <= set(LOWEST[module])


def test_no_modules_import_each_other() -> None:
    uses = {module_of(path): set(own_imports(path)) for path in SOURCES}
    left = dict(uses)
    while free := [module for module, used in left.items() if not used & left.keys() - {module}]:
        for module in free:
            del left[module]
    assert not left, f"a cycle among {sorted(left)}"


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_knows_no_socket_clock_redis_or_file(name: str) -> None:
    assert not {used.split(".")[0] for used in imports(PROJECT / name)} & IMPURE


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_import_hides_in_a_function(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    hidden = [n for f in functions for n in ast.walk(f) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert not hidden


def test_the_client_imports_nothing_of_the_box() -> None:
    assert CLIENT
    for path in CLIENT:
        used = {name.split(".")[0] for name in imports(path)}
        assert used <= ITS_OWN | sys.stdlib_module_names, path
        if path.stem in PURE_OF_CLIENT:
            assert not used & (IMPURE | {"httpx"}), path


def test_only_hot_knows_keys_and_only_archive_knows_the_table() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(PROJECT))
        assert "whimbrel:{" not in text or name == "telemetry/hot.py", name
        assert not re.search(r'"whimbrel:\w', text) or name == "telemetry/notes.py", name
        assert "_delta_log" not in text or name in ("telemetry/archive.py", "telemetry/delta_log.py"), name
