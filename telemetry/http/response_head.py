"""The head of an answer that a connection writes by itself, without an application."""

from __future__ import annotations

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Headers = list[tuple[bytes, bytes]]


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class AnswerHead:
    """The status line, and what all answers say: put together once for each list of it, which uvicorn makes anew each
    second."""

    def __init__(self, status: int) -> None:
        self._status_line = STATUS_LINE[status]
        self._common: Headers = []
        self._bytes = self._status_line

    def of(self, common: Headers) -> bytes:
        """With these headers, whose list is not changed."""
        if common is not self._common:
            self._common = common
            self._bytes = self._status_line + header_lines(common)
        return self._bytes
