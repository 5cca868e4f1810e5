"""Memory of a connection's unfinished messages, which counts towards the limit of its port."""

from __future__ import annotations

from typing import Protocol

from collector.ingest.arriving_bytes import Arriving, Upload


class Connection(Protocol):
    """The connection that has the messages."""

    def refuse_to_keep(self) -> None:
        """Close, to make room for other connections."""


class HeldBytes:
    """Size of the unfinished messages of one connection."""

    __slots__ = ("_arriving", "_bytes", "_connection", "_owner", "_upload")

    def __init__(self, connection: Connection, arriving: Arriving, owner: str) -> None:
        self._connection = connection
        self._arriving = arriving
        self._owner = owner
        self._bytes = 0
        self._upload: Upload | None = None  # made for the first unfinished message

    def set(self, size_bytes: int) -> bool:
        """Set the size; False if there is no room for it."""
        if size_bytes == self._bytes:
            return True
        self._bytes = size_bytes
        if self._upload is None:
            self._upload = Upload(self._owner, self._connection.refuse_to_keep)
        return self._arriving.hold(self._upload, size_bytes)

    def release(self) -> None:
        """Set the size to 0, also after a rejection."""
        if self._upload is not None:
            self._arriving.hold(self._upload, 0)
        self._bytes = 0
