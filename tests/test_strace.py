"""The traces for tests of power cuts, and the disks that are computed from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash_states import Disk
from tests.strace import Call, calls, read_trace, traced

PROGRAM = """
import os, socket, sys, threading
root = os.path.join(sys.argv[1], "ä b")
os.mkdir(root)
os.chdir(root)
open("gone", "wb").close()
def write():
    with open("file", "wb") as file:
        file.write(b'one "quoted" \\\\n')
        file.flush()
        os.fsync(file.fileno())
        file.write(bytes(range(256)))
        file.flush()
        os.pwrite(file.fileno(), b"ONE", 0)
thread = threading.Thread(target=write)
thread.start()
thread.join()
folder = os.open(root, os.O_RDONLY)
os.fsync(folder)
os.link("file", "second")
os.rename("file", "first")
os.unlink("gone")
here, there = socket.socketpair()
here.sendall(b"HTTP/1.1 202 Accepted")
try:
    os.unlink("nothing")
except FileNotFoundError:
    pass
"""


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


@pytest.fixture
def trace(tmp_path: Path) -> list[Call]:
    """System calls of `PROGRAM` in the folder `here`."""
    (tmp_path / "here").mkdir()
    subprocess.run(traced(tmp_path / "trace", [sys.executable, "-c", PROGRAM, str(tmp_path / "here")]), check=True)
    wait_for_the_end(tmp_path / "trace")
    return read_trace(tmp_path / "trace")


def wait_for_the_end(trace: Path) -> None:
    """The program's own process is the first that the trace speaks of."""
    read_trace(trace, int(trace.read_text(encoding="ascii").split(maxsplit=1)[0]))


def test_names_data_and_files_are_what_they_were(trace: list[Call], tmp_path: Path) -> None:
    root = tmp_path / "here" / "ä b"
    written = [call for call in trace if call.name == "write" and call.files == (str(root / "file"),)]
    assert [call.texts for call in written] == [(b'one "quoted" \\n',), (bytes(range(256)),)]
    [renamed] = [call for call in trace if call.name == "rename"]
    assert (renamed.path(0), renamed.path(1)) == (str(root / "file"), str(root / "first"))
    [sent] = [call for call in trace if call.texts[:1] == (b"HTTP/1.1 202 Accepted",)]
    assert sent.files[0].startswith("socket:")
    assert all(call.texts != (b"nothing",) for call in trace), "what failed is left out"
    assert [call.ended for call in trace] == sorted(call.ended for call in trace)


def test_a_call_that_another_interrupted_is_put_together() -> None:
    file, data = hexed("/a"), hexed("xy")
    lines = [
        f'1 write(3<{file}>, "{data}", 2 <unfinished ...>',
        f"2 fsync(4<{file}>) = 0",
        "2 +++ exited with 0 +++",
        "1 <... write resumed>) = 1",
        f"1 fsync(3<{file}>) = -1 EIO (Input/output error)",
        f"3 fsync(3<{file}> <unfinished ...>",
    ]
    synced, written = calls(lines)
    assert (synced.name, synced.begun, synced.ended) == ("fsync", 1, 1)
    assert (written.begun, written.ended, written.texts, written.result) == (0, 3, (b"xy",), 1)


@pytest.mark.parametrize("line", ["nonsense", "1 write(3", "1 write(3) what"])
def test_a_line_that_makes_no_sense_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read a trace: line 1"):
        list(calls([line]))


def test_what_a_power_cut_may_leave(trace: list[Call], tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "ä b").rename(tmp_path / "afterwards")
    disk = Disk(here, ("ä b",))
    found: dict[str, dict[str, bytes | None]] = {}
    for call in trace:
        if disk.apply(call):
            found |= {state.kind: state.content for state in disk.states()}
    synced, whole = b'one "quoted" \\n', b'ONE "quoted" \\n' + bytes(range(256))
    assert found["all"] == {"ä b": None, "ä b/first": whole, "ä b/second": whole}
    assert found["all"]["ä b/first"] == (tmp_path / "afterwards" / "first").read_bytes()
    assert found["synced"] == {}, "the folder's own name was never synced"
    assert found["names"] == {"ä b": None, "ä b/first": synced, "ä b/second": synced}
    torn = found["torn"]["ä b/first"]
    assert torn == whole[: len(whole) // 2]


def test_a_synced_folder_keeps_the_names_that_it_had(trace: list[Call], tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "ä b").rename(tmp_path / "afterwards")
    (here / "ä b").mkdir()
    disk = Disk(here, ("ä b",))
    for call in trace:
        disk.apply(call)
    found = {state.kind: set(state.content) - {"ä b"} for state in disk.states()}
    assert found["synced"] == {"ä b/file", "ä b/gone"}, "neither renamed nor removed since"
    assert found["last name"] == {"ä b/file", "ä b/gone", "ä b/first"}
    assert found["all"] == {"ä b/first", "ä b/second"}


def test_a_call_that_the_replay_does_not_know_is_an_error(tmp_path: Path) -> None:
    [call] = calls([f"1 fallocate(3<{hexed(str(tmp_path / 'a' / 'file'))}>, 0, 0, 5) = 0"])
    with pytest.raises(ValueError, match="cannot replay fallocate"):
        Disk(tmp_path, ("a",)).apply(call)
    assert not Disk(tmp_path, ("b",)).apply(call)
