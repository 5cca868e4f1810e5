"""Head of a response that a connection writes itself, without an application."""

from __future__ import annotations

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Headers = list[tuple[bytes, bytes]]


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as sent on the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class AnswerHead:
    """The status line and the common headers, cached for each list of common headers: uvicorn makes a new list each
    second."""

    def __init__(self, status: int) -> None:
        self._status_line = STATUS_LINE[status]
        self._common: Headers = []
        self._bytes = self._status_line

    def of(self, common: Headers) -> bytes:
        """The head with these common headers; the list must not be changed later."""
        if common is not self._common:
            self._common = common
            self._bytes = self._status_line + header_lines(common)
        return self._bytes
