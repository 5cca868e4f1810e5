"""The layers of the code: imports point down or stay in their folder, and pure modules stay pure."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("telemetry", "collector", "worker", "compactor", "api", "cli")
MAX_MODULES = 12
"""Of a folder: more are two subjects."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "telemetry": ("telemetry",),
    "collector": ("telemetry", "collector"),
    "worker": ("telemetry", "worker"),
    "compactor": ("telemetry", "compactor"),
    "api": ("telemetry", "api", "collector.http", "collector.ingest"),
    "cli": PACKAGES,
}

FLOORS = (
    "telemetry.model",
    "telemetry.observability",
    "telemetry.config",
    "telemetry.codec",
    "telemetry",
    "telemetry.system",
    "telemetry.hot_store",
    "telemetry.hot_store.operations",
    "telemetry.archive",
    "telemetry.archive.operations",
    "telemetry.coordination",
    "telemetry.limits",
    "telemetry.access",
    "telemetry.audit",
    "telemetry.network",
    "telemetry.browsers",
    "telemetry.http",
    "telemetry.startup",
    "collector",
    "collector.framing",
    "collector.ingest",
    "collector.trackers",
    "collector.http_protocols",
    "collector.trackers.gl200",
    "collector.trackers.gt06",
    "collector.trackers.teltonika",
    "collector.protocols",
    "collector.inspection",
    "collector.http",
    "collector.listeners.connection",
    "collector.listeners",
    "collector.mqtt",
    "api.geo",
    "api.requests",
    "api.execution",
    "api.query_proxy",
    "api.snapshot",
    "api.positions",
    "api.tracks",
    "api.formats",
    "api.responses",
    "api.legacy.wire",
    "api",
    "api.legacy.paging",
    "api.records",
    "api.analytics",
    "api.latest",
    "api.devices",
    "api.legacy",
    "api.pages",
    "api.sign_in",
    "api.audit",
    "api.sql",
    "api.status",
    "api.query",
    "worker.courier",
    "worker.courier.delivery",
    "worker.courier.alerts",
    "worker.courier.targets",
    "worker.courier.forwarding",
    "worker.saving",
    "worker",
    "compactor",
    "cli",
    "cli.admin",
    "cli.backup",
    "cli.imports.rows",
    "cli.imports.readers",
    "cli.imports",
    "cli.querying",
    "cli.redis_server",
    "cli.doctor",
    "cli.sending",
    "cli.services",
    "cli.demo",
    "cli.trackers",
)
"""Folders, the lowest first: a module imports from its own and from those before it."""

ROOTS = frozenset(
    {
        "api.__main__",
        "api.app",
        "api.program",
        "api.query.__main__",
        "api.query.app",
        "api.query.program",
        "cli.main",
        "collector.__main__",
        "collector.program",
        "compactor.__main__",
        "worker.__main__",
        "worker.courier.__main__",
        "worker.courier.service",
    }
)
"""Modules that put a program together, and so stand above all folders of their package."""

LOADED_BY_NAME = {
    "api/program.py": "only where a provider is configured",
    "api/sql/sandbox.py": "a process of its own",
    "cli/demo/temporary_box.py": "a process of its own",
    "cli/main.py": "a command loads what it needs",
    "cli/redis_server/command.py": "users, only where there are some",
    "cli/services/first_key.py": "the program that the audit log names",
    "cli/services/supervisor_config.py": "a process of its own",
    "cli/services/up.py": "a certificate, and a check of a server that is not the bundled one",
    "collector/program.py": "only where brokers are",
    "worker/courier/__main__.py": "a program that waits for its turn loads nothing before",
    "worker/courier/service.py": "Arrow, only where something is forwarded",
}
"""Modules that load others by a name in a string, and the purpose."""

PURE = (
    "cli/sending/vehicle_simulation.py",
    "collector/http/record_body.py",
    "telemetry/codec/json_compat.py",
    "telemetry/codec/json_decoder.py",
    "telemetry/codec/legacy_fields.py",
    "telemetry/codec/record_parser.py",
    "telemetry/hot_store/entry_codec.py",
    "telemetry/http/content_encoding.py",
    "telemetry/model/api_keys.py",
    "telemetry/model/mqtt_topics.py",
    "telemetry/model/record.py",
    "worker/saving/save_plan.py",
    *(
        str(path.relative_to(PROJECT))
        for folder in ("framing", "trackers", "protocols")
        for path in (PROJECT / "collector" / folder).rglob("*.py")
    ),
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
"""Packages that the client imports besides Python's standard library; pyarrow and others are loaded by name."""

PURE_OF_CLIENT = ("batch", "values", "steps", "answers", "delivery", "reading", "events", "gathering", "errors")
"""Modules without I/O, shared by the synchronous and the asynchronous client."""


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def floor_of(module: str) -> str:
    """The folder that a module is in; a folder's own `__init__.py` is in it."""
    path = MODULES[module]
    return ".".join(path.relative_to(PROJECT).parts[:-1])


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


def strings(path: Path) -> Iterator[str]:
    """Texts that are the name of one of the modules, with or without something in it after a colon."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if "." in name and name in MODULES:
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    allowed = MAY_IMPORT[path.relative_to(PROJECT).parts[0]]
    for name in own_imports(path):
        assert any(name == one or name.startswith(one + ".") for one in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ROOTS))
def test_folders_import_from_lower_folders_alone(module: str) -> None:
    below = FLOORS[: FLOORS.index(floor_of(module)) + 1]
    for name in own_imports(MODULES[module]):
        assert floor_of(name) in below, f"{module} imports {name}"
        assert name not in ROOTS, f"{module} imports {name}"


def test_each_folder_has_a_floor_and_each_floor_a_folder() -> None:
    assert sorted(FLOORS) == sorted({floor_of(module) for module in MODULES})
    assert MODULES.keys() >= ROOTS


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_is_one_subject_and_says_which(folder: str) -> None:
    path = PROJECT.joinpath(*folder.split("."))
    assert len(list(path.glob("[!_]*.py"))) <= MAX_MODULES
    assert ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_module_passes_on_the_names_of_another(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert not any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_modules_are_loaded_by_name_in_known_places_alone(path: Path) -> None:
    assert not list(strings(path)) or str(path.relative_to(PROJECT)) in LOADED_BY_NAME


def test_no_modules_import_each_other() -> None:
    uses = {module: set(own_imports(path)) for module, path in MODULES.items()}
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


def test_only_the_hot_store_knows_keys_and_only_the_archive_knows_the_table() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(PROJECT))
        assert "whimbrel:{" not in text or name == "telemetry/hot_store/keys.py", name
        assert not re.search(r'"whimbrel:\w', text) or name == "telemetry/coordination/shared_state.py", name
        is_archive = name in ("telemetry/archive/table.py", "telemetry/archive/commit_log.py")
        assert "_delta_log" not in text or is_archive, name
