"""Server-sent events of a box (WHATWG HTML, 9.2): bytes in, states of devices out, and where to go on after a break."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from whimbrel_client.errors import BoxUnavailable
from whimbrel_client.retrying import Pauses
from whimbrel_client.values import with_times

PATH = "/v1/live"
SILENT_S = 45.0
"""The box says something every 15 s; a connection that is silent for so long is lost."""

MOST_BYTES = 64 * 2**20
"""Of a line. A box sends far shorter ones."""


class Following:
    """How far the changes of latest were read, over all connections."""

    def __init__(self) -> None:
        self._last_id = ""
        self._pauses = Pauses()
        self.began_anew()

    def began_anew(self) -> None:
        """A new connection begins: what was read of an event that did not end comes again."""
        self._buffer = b""
        self._data: list[str] = []
        self._id = self._last_id

    @property
    def headers(self) -> Mapping[str, str]:
        """What a new connection says, so that nothing that changed meanwhile is left out."""
        more = {"Last-Event-ID": self._last_id} if self._last_id else {}
        return {"Accept": "text/event-stream", **more}

    def pause_s(self, error: BoxUnavailable | None) -> float:
        """How long to wait before the next connection; `error` is None if the last one was ended in order."""
        return self._pauses.next_s(error.retry_after_s if error else 0.0)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The states of devices in what arrived, as `/v1/latest` has them, with their times as datetimes."""
        self._buffer += data
        if len(self._buffer) > MOST_BYTES and b"\n" not in data:
            raise BoxUnavailable(f"cannot follow changes: a line of more than {MOST_BYTES} bytes")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield from self._line(line.rstrip(b"\r").decode())

    def _line(self, line: str) -> Iterator[dict[str, Any]]:
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "id":
            self._id = value

    def _dispatch(self) -> Iterator[dict[str, Any]]:
        """An event has ended. Its id counts when all of it was given out: who stops amid it gets it again."""
        data, self._data = self._data, []
        if data:
            self._pauses.succeeded()
            for state in json.loads("\n".join(data)).get("records", ()):
                yield with_times(state)
        self._last_id = self._id
