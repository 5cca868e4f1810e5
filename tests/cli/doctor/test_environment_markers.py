"""Environment markers: as the library `packaging` reads them, on every Python and system that the locks name."""

from __future__ import annotations

import itertools

import pytest
from packaging.markers import Marker, default_environment

from cli.doctor.environment_markers import applies, environment
from cli.doctor.machine import LOCKED
from telemetry.config.settings import PROJECT

LOCKS = ("requirements.lock", "requirements-test.lock")
MARKERS = sorted(
    {found[2].strip() for name in LOCKS for found in LOCKED.findall((PROJECT / name).read_text(encoding="utf-8"))}
)
PLACES = [
    {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": system,
        "platform_python_implementation": implementation,
        "implementation_name": implementation.lower(),
    }
    for python, system, implementation in itertools.product(
        ("3.11.0", "3.11.2", "3.11.9", "3.12.0", "3.13.5", "3.14.0", "3.15.1"), ("linux", "win32"), ("CPython", "PyPy")
    )
]
FURTHER = [
    "python_version >= '3.9'",
    "'3.12' > python_version",
    "(os_name == 'nt' or sys_platform in 'linux darwin') and python_full_version != '3.12'",
    "platform_machine not in 'x86_64 aarch64'",
]


@pytest.mark.parametrize("marker", [*filter(None, MARKERS), *FURTHER])
def test_a_marker_holds_where_it_does_for_packaging(marker: str) -> None:
    for place in PLACES:
        variables = {**environment(), **place}
        assert applies(marker, variables) == Marker(marker).evaluate(dict(variables)), place


def test_the_locks_have_markers() -> None:
    assert len(MARKERS) > 5


def test_the_environment_is_that_of_packaging() -> None:
    usual = default_environment()
    assert environment() == {name: usual[name] for name in environment()}  # type: ignore[literal-required]


def test_none_always_holds() -> None:
    assert applies("", {})
    assert applies(" ", {})


@pytest.mark.parametrize(
    "marker",
    ["python_version ~= '3.11'", "nosuch == 'x'", "os_name", "1 < 2", "__import__('os')", "python_version > 'x'"],
)
def test_what_is_no_marker_is_an_error(marker: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        applies(marker, environment())
