"""A file to import: what names it, and its bytes as they come, inflated if it is compressed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from telemetry.model.errors import SenderError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINE_BYTES = 2**20
"""Longest line. No record is larger, and a file without newlines must not fill the memory."""

BLOCK_BYTES = 2**20

_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\x28\xb5\x2f\xfd": zstd.ZstdFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""What a compressed file begins with, and what inflates it."""

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
BROKEN = (OSError, EOFError, zlib.error, zstd.ZstdError, lzma.LZMAError)


class Source:
    """An open file. `raw` is as it lies on disk, `file` is inflated; `done` hears how many bytes of the disk's were
    read."""

    def __init__(self, path: Path, raw: BinaryIO, encoding: str, delimiter: str | None) -> None:
        self.path = path
        self.name = str(path)
        self.raw = raw
        self.encoding = encoding
        self.delimiter = delimiter
        self._text: io.TextIOWrapper | None = None
        head = raw.read(6)
        raw.seek(0)
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        self.is_compressed = opener is not None
        self.file = raw if opener is None else cast("BinaryIO", io.BufferedReader(opener(raw), BLOCK_BYTES))

    def at(self) -> int:
        """How many bytes of the disk's were read."""
        return self.raw.tell()

    def lines(self) -> Iterator[bytes]:
        """Lines with their ends, without a mark of UTF-8 before the first. Raises `SenderError`."""
        number = 0
        with self.faults():
            while content := self.file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(content) > MAX_LINE_BYTES:
                    raise SenderError(f"{self.name}, line {number}: longer than {MAX_LINE_BYTES} bytes")
                yield content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content

    def text_lines(self) -> Iterator[str]:
        """The same in the file's encoding. What isn't becomes half a surrogate pair, which no record may hold."""
        self._text = io.TextIOWrapper(self.file, _with_mark(self.encoding), errors="surrogateescape", newline="")
        number = 0
        with self.faults():
            while content := self._text.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(content) > MAX_LINE_BYTES:
                    raise SenderError(f"{self.name}, line {number}: longer than {MAX_LINE_BYTES} characters")
                yield content

    def end(self) -> None:
        """Let go of the file."""
        if self._text is not None:
            self._text.detach()

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks of at most `BLOCK_BYTES`. Raises `SenderError`."""
        with self.faults():
            while block := self.file.read(BLOCK_BYTES):
                yield block

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Make what a broken file raises a `SenderError` that names it."""
        try:
            yield
        except BROKEN as error:
            raise SenderError(f"cannot read {self.name} on: {error}") from None


def _with_mark(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


@contextmanager
def opened(path: Path, encoding: str = "utf-8", delimiter: str | None = None) -> Iterator[Source]:
    """A file to read. Raises `SenderError` if it can't be."""
    try:
        "".encode(encoding)
    except LookupError:
        raise SenderError(f"there is no encoding {encoding!r}") from None
    try:
        raw = path.open("rb")
    except OSError as error:
        raise SenderError(f"cannot read {path}: {error.strerror}") from None
    with raw:
        source = Source(path, raw, encoding, delimiter)
        try:
            yield source
        finally:
            source.end()


def digest_of(path: Path) -> str:
    """What names a file by its content: 32 hexadecimal digits. Raises `SenderError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise SenderError(f"cannot read {path}: {error.strerror}") from None
