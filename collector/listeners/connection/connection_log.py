"""Log lines and traffic capture of one TCP connection. Received bytes are captured only on request, never logged."""

from __future__ import annotations

import logging

from collector.framing.decoder import Decoder, Message, Rejected
from collector.inspection import traffic_capture
from telemetry.observability.log_setup import of_connection

log = logging.getLogger(__name__)


class ConnectionLog:
    """`peer` is the address of the client, `name` identifies the connection in the log."""

    __slots__ = ("_port", "name", "peer")

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self.name = name
        self.peer = ""

    def note(self, text: str, *values: object, level: int = logging.INFO) -> None:
        """Log an event. The caller's line is the key by which repeated lines are limited."""
        if log.isEnabledFor(level):
            log.log(level, f"%s: {text}", self.peer, *values, extra=of_connection(self.name), stacklevel=2)

    def note_rejected(self, message: Rejected, decoder: Decoder) -> None:
        """Log the problem of a rejected message. The reason is not logged, because it may quote the message."""
        if message.kind is None:
            return
        protocol = traffic_capture.speaker(decoder)[0] or "unknown protocol"
        if message.last:
            self.note("closed for a message of %s: %s", protocol, message.kind.name)
        else:
            self.note("rejected a message of %s: %s", protocol, message.kind.name, level=logging.DEBUG)

    def note_error(self, loop_name: str) -> None:
        """Log the exception that is being handled, raised in the background loop with this name."""
        text = "%s: closed for an unexpected error (%s)"
        log.exception(text, self.peer, loop_name, extra=of_connection(self.name))

    def capture(self, data: bytes | bytearray, messages: list[Message], decoder: Decoder) -> None:
        """Report bytes, and the messages that they completed, if the port is being captured."""
        if traffic_capture.is_watched(self._port) and (data or messages):
            traffic_capture.see_frame(self._port, "tcp", self.peer, decoder, data, messages, self.name)

    def capture_event(self, event: str) -> None:
        """Report that the connection was opened or closed, if the port is being captured."""
        if traffic_capture.is_watched(self._port):
            traffic_capture.see_event(event, self._port, self.peer, self.name)
