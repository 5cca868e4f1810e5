"""Close of a TCP connection without loss of the last reply."""

from __future__ import annotations

import asyncio


class Closing:
    """Closes one connection.

    If the sender may still send, only our side is ended at first, or a reset would discard the reply. `lingers` is
    false for a connection that is closed without that.
    """

    __slots__ = ("_loop", "_transport", "began_s", "lingers", "peer_ended")

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.began_s: float | None = None
        self.lingers = True
        self.peer_ended = False

    def start(self, transport: asyncio.Transport) -> None:
        """Use this transport."""
        self._transport = transport

    def close(self) -> None:
        """Close, or end our side."""
        if self._transport.is_closing():
            return
        is_first = self.began_s is None
        self.began_s = self.began_s or self._loop.time()
        if self.peer_ended or not self.lingers or not self._transport.can_write_eof():
            self._transport.close()
        elif is_first:
            self._transport.write_eof()
            self._transport.resume_reading()

    def close_both(self) -> None:
        """Close both sides, once the written replies are sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close immediately."""
        self._transport.abort()
