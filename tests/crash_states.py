"""Possible contents of a disk after a power cut, computed from the system calls before it.

A file's bytes are certain once the file was synced, its name once its folder was. Of all else any part may be there
or not, so a few states stand for the rest, each as bad as one of the ways in which file systems differ:

    synced      nothing but what was synced
    names       all names, but files only with their synced bytes: empty, if they never were
    torn        all names, and half of the bytes that were not synced
    last name   of the names that were not synced only the newest, its file with all its bytes
    all         everything, as after a kill
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.strace import Call

KINDS = ("synced", "names", "torn", "last name", "all")

FOLDER = -1
"""Stands for a folder in place of a file's number."""

Names = dict[str, int]


class _File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""


class State(NamedTuple):
    """A folder's files and folders by their paths in it, the latter with None."""

    kind: str
    content: dict[str, bytes | None]

    def write(self, folder: Path) -> None:
        """Have it on the real disk, in a folder that is not there yet."""
        folder.mkdir()
        for path, data in sorted(self.content.items()):
            if data is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(data)


class Disk:
    """Some `folders` in `root` as calls change them; what lay there before the first of them is certain.

    A program that writes a file without saying where writes at its end: nobody here seeks. `newest` is the name that
    was given last.
    """

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self._root = str(root)
        self._folders = folders
        self._files: list[_File] = []
        self._names: Names = {"": FOLDER}
        self._synced_names: Names = {"": FOLDER}
        self.newest = ""
        for folder in folders:
            for path in (root / folder, *sorted((root / folder).rglob("*"))):
                if path.exists():
                    self._found(path)

    def _found(self, path: Path) -> None:
        name = str(path.relative_to(self._root))
        self._names[name] = FOLDER if path.is_dir() else self._new_file(path.read_bytes())
        self._synced_names[name] = self._names[name]

    def _new_file(self, data: bytes = b"") -> int:
        file = _File()
        file.data[:] = data
        file.synced = data
        self._files.append(file)
        return len(self._files) - 1

    def apply(self, call: Call) -> bool:
        """Do what the call did. False if it changed nothing here. Raises `ValueError` if it isn't known what."""
        do = getattr(self, f"_do_{call.name}", None)
        if do is not None:
            return bool(do(call))
        touched = [*call.files, *(os.fsdecode(text) for text in call.texts)]
        if any(self._inside(path) is not None for path in touched if path.startswith("/")):
            raise ValueError(f"cannot replay {call.name} of {touched[0]}")
        return False

    def _inside(self, path: str) -> str | None:
        """A path from the root, None if it is in none of the folders."""
        if path == self._root:
            return ""
        inside = path.removeprefix(f"{self._root}/")
        return inside if inside != path and inside.split("/")[0] in self._folders else None

    def _file(self, call: Call) -> _File | None:
        number = self._names.get(self._inside(call.files[0]) or "", FOLDER) if call.files else FOLDER
        return self._files[number] if number != FOLDER else None

    # What calls do -----------------------------------------------------------------------------------

    def _name(self, path: str | None, number: int) -> bool:
        if path is None:
            return False
        self._names[path] = number
        self.newest = path
        return True

    def _unname(self, path: str | None) -> bool:
        return path is not None and self._names.pop(path, None) is not None

    def _do_openat(self, call: Call) -> bool:
        path = self._inside(call.path(0))
        if path is None or not ("O_CREAT" in call.arguments or "O_TRUNC" in call.arguments):
            return False
        if path not in self._names:
            return self._name(path, self._new_file())
        if "O_TRUNC" in call.arguments:
            self._files[self._names[path]].data.clear()
            return True
        return False

    def _do_write(self, call: Call) -> bool:
        file = self._file(call)
        if file is not None:
            file.data += b"".join(call.texts)[: call.result]
        return file is not None

    _do_writev = _do_write

    def _do_pwrite64(self, call: Call) -> bool:
        file = self._file(call)
        if file is None:
            return False
        at, data = int(call.arguments.rpartition(",")[2]), call.texts[0][: call.result]
        file.data.extend(bytes(max(0, at - len(file.data))))
        file.data[at : at + len(data)] = data
        return True

    def _do_ftruncate(self, call: Call) -> bool:
        file, size = self._file(call), int(call.arguments.rpartition(",")[2])
        if file is None:
            return False
        del file.data[size:]
        file.data.extend(bytes(size - len(file.data)))
        return True

    def _do_fsync(self, call: Call) -> bool:
        path = self._inside(call.files[0])
        if path is None or path not in self._names:
            return False
        file = self._file(call)
        if file is not None:
            changed = file.synced != file.data
            file.synced = bytes(file.data)
            return changed
        before = dict(self._synced_names)
        for name in {*self._names, *self._synced_names}:
            if name and os.path.dirname(name) == path:
                self._set(self._synced_names, name, self._names.get(name))
        return self._synced_names != before

    _do_fdatasync = _do_fsync

    @staticmethod
    def _set(names: Names, name: str, number: int | None) -> None:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number

    def _do_rename(self, call: Call) -> bool:
        old, new = self._inside(call.path(0)), self._inside(call.path(1))
        if old is None or old not in self._names:
            return False
        number = self._names.pop(old)
        assert number != FOLDER, "folders are not renamed here"
        return self._name(new, number)

    _do_renameat = _do_renameat2 = _do_rename

    def _do_link(self, call: Call) -> bool:
        old, new = self._inside(call.path(0)), self._inside(call.path(1))
        return old is not None and self._name(new, self._names[old])

    _do_linkat = _do_link

    def _do_unlink(self, call: Call) -> bool:
        return self._unname(self._inside(call.path(0)))

    _do_unlinkat = _do_rmdir = _do_unlink

    def _do_mkdir(self, call: Call) -> bool:
        return self._name(self._inside(call.path(0)), FOLDER)

    _do_mkdirat = _do_mkdir

    def _do_chdir(self, call: Call) -> bool:
        return False

    _do_sendto = _do_sendmsg = _do_chdir

    # What may be left --------------------------------------------------------------------------------

    def states(self) -> Iterator[State]:
        """The states after a power cut now, each once."""
        seen: list[dict[str, bytes | None]] = []
        for kind in KINDS:
            content = self._content(kind)
            if content not in seen:
                seen.append(content)
                yield State(kind, content)

    def _content(self, kind: str) -> dict[str, bytes | None]:
        names = dict(self._names)
        if kind in ("synced", "last name"):
            names = dict(self._synced_names)
        if kind == "last name" and self.newest in self._names:
            names[self.newest] = self._names[self.newest]
        return {name: self._data(number, kind) for name, number in _reachable(names.items())}

    def _data(self, number: int, kind: str) -> bytes | None:
        if number == FOLDER:
            return None
        file = self._files[number]
        if kind in ("synced", "names"):
            return file.synced
        if kind == "torn":
            kept = len(file.synced) if file.data.startswith(file.synced) else 0
            return bytes(file.data[: kept + (len(file.data) - kept) // 2])
        return bytes(file.data)


def _reachable(names: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Those whose folders are there too."""
    there = {""}
    for name, number in sorted(names):
        if name and os.path.dirname(name) in there:
            yield name, number
            if number == FOLDER:
                there.add(name)
