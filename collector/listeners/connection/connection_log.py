"""Log lines and traffic capture of one TCP connection. What was sent is captured on request only, and never logged."""

from __future__ import annotations

import logging

from collector.framing.decoder import Decoder, Message, Rejected
from collector.inspection import traffic_capture
from telemetry.observability.log_setup import of_connection

log = logging.getLogger(__name__)


class ConnectionLog:
    """`peer` is the address that the connection comes from, `name` the connection's own."""

    __slots__ = ("_port", "name", "peer")

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self.name = name
        self.peer = ""

    def note(self, text: str, *values: object, level: int = logging.INFO) -> None:
        """Log an event. Lines count as alike by the line that calls this."""
        if log.isEnabledFor(level):
            log.log(level, f"%s: {text}", self.peer, *values, extra=of_connection(self.name), stacklevel=2)

    def note_rejected(self, message: Rejected, decoder: Decoder) -> None:
        """Log a rejected message by the kind of its fault: the reason may quote the message."""
        if message.kind is None:
            return
        protocol = traffic_capture.speaker(decoder)[0] or "unknown protocol"
        if message.last:
            self.note("closed for a message of %s: %s", protocol, message.kind.name)
        else:
            self.note("refused a message of %s: %s", protocol, message.kind.name, level=logging.DEBUG)

    def note_error(self, loop_name: str) -> None:
        """Log the exception that is being handled, which the background loop of this name met."""
        text = "%s: closed for an unexpected error (%s)"
        log.exception(text, self.peer, loop_name, extra=of_connection(self.name))

    def capture(self, data: bytes | bytearray, messages: list[Message], decoder: Decoder) -> None:
        """Show bytes, and the messages that they completed, to whoever watches the port."""
        if traffic_capture.is_watched(self._port) and (data or messages):
            traffic_capture.see_frame(self._port, "tcp", self.peer, decoder, data, messages, self.name)

    def capture_event(self, event: str) -> None:
        """Show that the connection was opened or closed."""
        if traffic_capture.is_watched(self._port):
            traffic_capture.see_event(event, self._port, self.peer, self.name)
