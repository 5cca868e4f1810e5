"""What servers answer over one connection, counted (sending.py: Answers)."""

from __future__ import annotations

import re

import hiredis
import msgspec

from collector.protocols.msgpack_frames import HEAD_BYTES, STORED

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_GOOD_STATUSES = (b"200", b"202")


class Frames:
    """One frame for each frame."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> int:
        """How many frames were stored."""
        self._buffer += data
        count = at = 0
        while (stop := at + HEAD_BYTES + int.from_bytes(self._buffer[at : at + HEAD_BYTES], "big")) <= len(
            self._buffer
        ):
            if len(self._buffer) - at < HEAD_BYTES:
                break
            answer = msgspec.msgpack.decode(self._buffer[at + HEAD_BYTES : stop])
            if answer[1] != STORED:
                raise RuntimeError(f"a frame was not stored: {answer}")
            count, at = count + 1, stop
        self._buffer = self._buffer[at:]
        return count


class Lines:
    """One line of JSON for each line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """How many lines were stored."""
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        count = (whole + newline).count(b"\n")
        if whole.count(b'"accepted"') != count:
            raise RuntimeError(f"a line was not stored: {whole[:200]!r}")
        return count


class Http:
    """A response for each request."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> int:
        """How many responses became whole."""
        self._buffer += data
        count = 0
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            if head[9:12] not in _GOOD_STATUSES or length is None:
                raise RuntimeError(f"not a good answer: {self._buffer[:400]!r}")
            stop = end + 4 + int(length[1])
            if stop > len(self._buffer):
                break
            self._buffer = self._buffer[stop:]
            count += 1
        return count


LOGGED_IN = b"OK"


class Appended:
    """What the function `append` answers, of Redis itself."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def feed(self, data: bytes) -> int:
        """How many calls stored all their batches."""
        self._reader.feed(data)
        count = 0
        while (answer := self._reader.gets()) is not False:
            if isinstance(answer, hiredis.ReplyError) or (answer != LOGGED_IN and any(answer[0])):
                raise RuntimeError(f"not appended: {answer}")
            count += 1
        return count
