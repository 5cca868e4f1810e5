"""The `whimbrel` command as a shell runs it: its version, and a reader of its output that leaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from api.formats import FORMATS
from cli.main import COMMANDS, find, top_parser


def run(
    folder: Path, *arguments: str, stdout: int = subprocess.PIPE, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command of a box that has its data in `folder` and does not run."""
    environ = {**os.environ, "WHIMBREL__DATA__DIR": str(folder), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)


def run_unread(folder: Path, *arguments: str, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """The same where nobody reads the output."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run(folder, *arguments, stdout=writer, unbuffered=unbuffered)
    finally:
        os.close(writer)


def test_the_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"whimbrel {version('whimbrel')}\n", "")
    assert "--version" in top_parser().format_help()


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("up", "--help"), ("--version",), ("systemd", "--help"), ("files",), ("redis", "acl")],
    ids=" ".join,
)
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, arguments: Sequence[str]) -> None:
    done = run_unread(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("status", "--json")], ids=" ".join)
def test_a_reader_that_leaves_changes_no_status(tmp_path: Path, arguments: Sequence[str]) -> None:
    read, unread = run(tmp_path, *arguments), run_unread(tmp_path, *arguments)
    assert read.stdout
    assert (unread.returncode, unread.stderr) == (read.returncode, read.stderr)


def test_a_command_that_is_cut_off_has_failed_without_a_traceback(tmp_path: Path) -> None:
    done = run_unread(tmp_path, "doctor", unbuffered="1")
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--help",), ("doctor",), ("systemd", "--help"), ("redis", "acl")], ids=" ".join)
def test_an_output_that_cannot_be_written_is_said_in_one_sentence(
    tmp_path: Path, arguments: Sequence[str], unbuffered: str
) -> None:
    with open("/dev/full", "wb") as full:
        done = run(tmp_path, *arguments, stdout=full.fileno(), unbuffered=unbuffered)
    assert done.returncode == 1
    assert re.fullmatch(r"whimbrel( \w+)?: cannot write the output: No space left on device\n", done.stderr), (
        done.stderr
    )


@pytest.mark.parametrize("command", ["send", "import"])
@pytest.mark.parametrize("name", ["nofile", "nofile.csv", "no/file.ndjson"])
def test_a_file_that_is_not_there_is_said_in_one_sentence(tmp_path: Path, command: str, name: str) -> None:
    done = run(tmp_path, command, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"whimbrel {command}: cannot read {name}: No such file or directory\n"


def test_export_names_its_formats() -> None:
    assert set(FORMATS) == set(find("export").sentence.partition(", as ")[2].rstrip(".").split(", "))


def test_every_command_has_a_sentence_that_ends() -> None:
    assert all(find(name).sentence.endswith(".") for name in COMMANDS)
