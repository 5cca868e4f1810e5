"""Documents agree with the code: their lists are complete and current."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from cli.main import COMMANDS
from telemetry.model import problems
from telemetry.model.problems import Problem
from tests.box import PROJECT
from tests.test_floors import FLOORS

PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    names = [re.split(r"[<>=]", line)[0] for line in project["dependencies"]]
    listed = re.findall(r"^\| ([\w-]+) \| .+ \| .+ \|$", read("docs/dependencies.md"), re.M)
    assert sorted(names) == sorted(name for name in listed if name != "package")
    tests = read("docs/dependencies.md").partition("For the tests alone")[2]
    for line in project["optional-dependencies"]["test"]:
        name = re.split(r"[<>=]", line)[0]
        assert name.startswith("types-") or name in tests


def test_locks_hold_hashes_and_no_index() -> None:
    for name in ("requirements.lock", "requirements-test.lock"):
        text = read(name)
        pinned = re.findall(r"^[\w.-]+==", text, re.M)
        assert len(pinned) > 20
        assert text.count("--hash=sha256:") >= len(pinned)
        assert not re.search(r"index-url|find-links|https?://", text)


def test_viewers_are_locked_without_a_registry_and_have_their_lines() -> None:
    pinned = json.loads(read("package.json"))["dependencies"]
    (root, *packages) = json.loads(read("package-lock.json"))["packages"].values()
    assert root["dependencies"] == pinned
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages)
    assert all(f"- **{name}** (" in read("docs/dependencies.md") for name in pinned)


def test_every_problem_is_explained_under_the_end_of_its_type() -> None:
    kinds = [value for value in vars(problems).values() if isinstance(value, Problem)]
    assert len({kind.name for kind in kinds}) == len(kinds)
    sections = dict(re.findall(r"^### ([^\n]+)\n\n(.+?)(?=\n#|\Z)", read("docs/errors.md"), re.M | re.S))
    assert sorted(sections) == sorted(kind.name for kind in kinds)
    for kind in kinds:
        said = " ".join(sections[kind.name].split())
        assert kind.type == f"urn:whimbrel:problem:{kind.name}"
        assert re.match(rf"\*+{kind.status}\b", said), kind.name
        assert f"{kind.title}.*" in said, "the title as answers have it"


def test_every_command_is_explained() -> None:
    page = read("docs/operations/commands.md")
    assert all(f"`whimbrel {name}" in page or name == "redis" for name in COMMANDS)


def house() -> ModuleType:
    """scripts/house as a module."""
    loader = SourceFileLoader("house", str(PROJECT / "scripts" / "house"))
    spec = spec_from_loader("house", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_folder_has_its_line_in_the_order_of_the_floors() -> None:
    page = read("docs/architecture.md")
    rows = [
        line
        for line in page.splitlines()
        if re.match(r"\| `(telemetry|collector|api|worker|compactor|cli)/[\w/]*` \|", line)
    ]
    assert rows == [house().row_of(folder) for folder in FLOORS], "run scripts/house --tree"
    assert page.count("\n") <= 120


def test_each_path_that_architecture_names_exists() -> None:
    named = re.findall(
        r"`((?:[\w.]+/)+[\w.]*|[\w.]+\.(?:py|toml|md))`", read("docs/architecture.md") + read("docs/internals.md")
    )
    assert len(named) > len(FLOORS)
    assert not [name for name in named if not (PROJECT / name).exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def anchors_of(path: Path) -> set[str]:
    """Possible fragments of links into a page: its headings as in GitHub, and `<a id=…>`."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    return slugs | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_into_pages_lead_to_a_heading(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        page = path.parent / target if target else path
        assert page.is_file(), target
        assert page.suffix != ".md" or anchor in anchors_of(page), f"{target}#{anchor}"


def test_each_reason_of_readyz_is_one_that_the_code_has() -> None:
    folders = (PROJECT / name for name in ("telemetry", "api", "worker"))
    code = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    table = read("docs/operations/watch.md").partition("## Reasons of /readyz")[2]
    reasons = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    reasons += re.findall(r"^\|[^|]+\|[^|]+\| `([^`]+)`[^|]*\|", read("docs/durability.md"), re.M)
    assert len(reasons) > 20
    parts = {part.strip(" :") for reason in reasons for part in re.split(r"…|: ", reason)}
    assert not {part for part in parts if part not in code}


def test_the_commands_of_the_readme_have_no_fixed_dates() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```", read("README.md"), re.M | re.S)
    assert len(commands) > 5
    assert not [command for command in commands if re.search(r"\b20\d\d\b", command)]


DISTRIBUTIONS = {"whimbrel_client": "./client"}
"""Module to the argument of `pip install`, where they differ."""


@pytest.mark.parametrize("name", ["README.md", "client/README.md", "docs/devices.md"])
def test_each_program_follows_a_line_that_installs_its_packages(name: str) -> None:
    installed: set[str] = set()
    for kind, code in re.findall(r"^```(sh|python)\n(.*?)^```", read(name), re.M | re.S):
        if kind == "sh" and "pip install" in code:
            assert "python3 -m venv env" in code, "Debian allows pip only in a virtual environment"
            installed = {re.sub(r"\[.*", "", word.strip("'")) for word in code.partition("pip install")[2].split()}
        elif kind == "python":
            needed = set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) - sys.stdlib_module_names
            assert {DISTRIBUTIONS.get(module, module) for module in needed} <= installed, code
