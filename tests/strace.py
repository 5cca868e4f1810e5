"""System calls of a program and its children on files and sockets, recorded by Debian's `strace`.

    subprocess.run(traced(folder / "trace", program))
    for call in read_trace(folder / "trace"): ...

Names and texts are printed in hex, so that any byte survives. Calls stand in the order in which they ended; a call
that another one interrupted in the output is put together again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

CALLS = (
    *("openat", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "truncate", "fallocate"),
    *("copy_file_range", "sendfile", "sendto", "sendmsg", "fsync", "fdatasync", "sync_file_range", "syncfs"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "chdir"),
)
END_S = 20

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?),? *<unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)")
_WHOLE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(?<!AT_FDCWD)(?<=\d)<((?:\\x[0-9a-f]{2})*)>")
_HERE = re.compile(r"AT_FDCWD<((?:\\x[0-9a-f]{2})*)>")


class Call(NamedTuple):
    """A system call that succeeded.

    `texts` are its arguments in quotes, names or data; `files` what its descriptors stand for: a path, or
    `socket:[…]`, `pipe:[…]` and the like. `folder` is the working directory of the process, if known. `begun` and
    `ended` are its places among all calls' beginnings and ends.
    """

    begun: int
    ended: int
    folder: str
    name: str
    arguments: str
    texts: tuple[bytes, ...]
    files: tuple[str, ...]
    result: int

    def path(self, place: int) -> str:
        """One of `texts` as an absolute path."""
        return os.path.normpath(os.path.join(self.folder, os.fsdecode(self.texts[place])))


def traced(trace: Path, program: Sequence[str]) -> list[str]:
    """`program` traced into a file, itself the child that the caller gets. Skips the test where there is no strace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("no strace is installed: scripts/install-strace")
    options = ["-D", "-f", "-q", "-xx", "-y", "-s", str(2**24), "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}"]
    return [found, *options, "-o", str(trace), *program]


def read_trace(trace: Path, pid: int | None = None) -> list[Call]:
    """All calls. With `pid`, first wait until strace has written that this process ended."""
    deadline_s = time.monotonic() + END_S
    while pid is not None and not re.search(rf"^{pid} +\+\+\+ ", trace.read_text(encoding="ascii"), re.MULTILINE):
        assert time.monotonic() < deadline_s, "strace has not seen the end of the program"
        time.sleep(0.05)
    return list(calls(trace.read_text(encoding="ascii").splitlines()))


def calls(lines: Sequence[str]) -> Iterator[Call]:
    """The calls of a trace's lines that succeeded, in the order of their ends."""
    begun: dict[str, tuple[int, str]] = {}
    folders: dict[str, str] = {}
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"cannot read a trace: line {number + 1} is {line[:80]!r}")
        pid, rest = match["pid"], match["rest"]
        if rest.startswith(("+++ ", "--- ")):
            continue
        if half := _BEGUN.fullmatch(rest):
            begun[pid] = number, f"{half['name']}({half['arguments']}"
            continue
        start = number
        if resumed := _RESUMED.fullmatch(rest):
            start, first_half = begun.pop(pid)
            rest = f"{first_half}{resumed['arguments']}"
        whole = _WHOLE.match(rest)
        if whole is None:
            raise ValueError(f"cannot read a trace: line {number + 1} is {line[:80]!r}")
        if here := _HERE.search(rest):
            folders[pid] = _path(here[1])
        if whole["result"] != "?" and int(whole["result"]) >= 0:
            found = _call((start, number), whole, folders.get(pid, ""))
            if found.name == "chdir":
                folders[pid] = found.path(0)
            yield found


def _call(places: tuple[int, int], whole: re.Match[str], folder: str) -> Call:
    arguments = whole["arguments"]
    texts = tuple(_bytes(text) for text in _TEXT.findall(arguments))
    files = tuple(_path(file) for file in _DESCRIPTOR.findall(arguments))
    return Call(*places, folder, whole["name"], arguments, texts, files, int(whole["result"]))


def _path(text: str) -> str:
    return os.fsdecode(_bytes(text))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
