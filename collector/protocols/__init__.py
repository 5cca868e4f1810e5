"""The registry of device protocols, and the protocols of Whimbrel's own: JSON, MessagePack, frames.

To add a protocol, write a file here and add a line to `PROTOCOLS` or `TRACKERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from collector.framing.decoder import Decoder
from collector.framing.frame_decoder import Framed, Options
from collector.protocols.first_byte import FirstByte
from collector.protocols.json_stream import JsonStream
from collector.protocols.msgpack_frames import Frames
from collector.protocols.msgpack_stream import MsgpackStream
from collector.trackers.gl200.decoder import Gl200
from collector.trackers.gps103 import Gps103
from collector.trackers.gt06.decoder import Gt06
from collector.trackers.h02 import H02
from collector.trackers.nmea import Nmea
from collector.trackers.teltonika.decoder import Teltonika
from collector.trackers.tk103 import Tk103


class MessageLimits(NamedTuple):
    """Limits of one message."""

    max_bytes: int
    max_records: int


PROTOCOLS: dict[str, Callable[[MessageLimits], Decoder]] = {
    "json": lambda limits: JsonStream(limits.max_bytes, limits.max_records),
    "frames": lambda limits: Frames(limits.max_bytes, limits.max_records),
    "msgpack": lambda limits: MsgpackStream(limits.max_bytes, limits.max_records),
    "any": lambda limits: FirstByte(lambda byte: PROTOCOLS[FIRST_BYTES.get(byte, "json")](limits), ord("{")),
}
"""Name → factory of a connection's decoder."""

_MAPS_AND_ARRAYS = (*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF)

FIRST_BYTES: dict[int, str] = {0x00: "frames"} | dict.fromkeys(_MAPS_AND_ARRAYS, "msgpack")
"""First byte → protocol of the connection; JSON after any other byte."""

TRACKERS: dict[str, Callable[[Options], Framed]] = {
    "teltonika": Teltonika,
    "gt06": Gt06,
    "h02": H02,
    "gps103": Gps103,
    "tk103": Tk103,
    "gl200": Gl200,
    "nmea": Nmea,
}
"""Protocol of trackers → factory of the decoder of a connection or a datagram."""


def protocols_of(port: str) -> tuple[str, ...]:
    """The protocols of a port: of its own, or all that the port distinguishes ("any", "auto")."""
    if port == "any":
        return tuple(name for name in PROTOCOLS if name != "any")
    return tuple(TRACKERS) if port == "auto" else (port,)
