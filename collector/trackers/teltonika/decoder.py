"""Teltonika's codecs 8, 8 extended, 16 and 7, over TCP and UDP (vendor's wiki, "Data Sending Protocols").

    00 0F | 15 digits                                                      the device's id; reply 01
    00000000 | length u32 | codec | n | n records | n | CRC-16/ARC u32     reply n as u32, once all is on disk
    FF                                                                     a keep-alive; no reply

    record: ms since the epoch u64, priority u8, longitude and latitude i32 (1e-7 degrees), altitude i16 (m),
            heading u16, satellites u8, speed u16 (km/h), and values by number (io_elements.py)

A device that receives another n sends its packet again. So invalid records are acknowledged too, and go to quarantine.
A packet with a wrong checksum or wrong counts has no reply.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, OutOfStep, received
from collector.trackers.checksums import crc16_arc
from collector.trackers.position import Attributes, Position, sent
from collector.trackers.teltonika import codec7 as gh3000
from collector.trackers.teltonika.codec7 import DecodedRecord
from collector.trackers.teltonika.io_elements import named, named_text
from telemetry.codec.record_parser import Arrival
from telemetry.hot_store.entry_codec import Aside
from telemetry.model import problems
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "teltonika"
PING = 0xFF
PREAMBLE = b"\0\0\0\0"
HEAD_BYTES = 8
CRC_BYTES = 4
IMEI_DIGITS = range(14, 18)
"""Length of an id: 15, for a few devices 14, or more with check digits."""

ACCEPTED, REJECTED = b"\x01", b"\x00"
NOWHERE = (0, 0)


class Shape(NamedTuple):
    """Layout of a record's values in a codec; formats as in `struct`."""

    number_format: str
    count_format: str
    has_generation: bool
    has_texts: bool = False  # values of any length
    sizes: str = "BHIQ"


SHAPES = {
    0x08: Shape("B", "B", False),
    0x8E: Shape("H", "H", False, True),
    0x10: Shape("H", "B", True),
}
"""Codec → layout of its records' values."""

LONGER = {0x08: Shape("B", "B", False, sizes="BHIQX")}
"""Codec → layout for the few models that also have values of 16 bytes."""

GH3000 = 0x07
CAMERA = 0x0D
"""Type of a response that is a part of a photo."""

COMMANDS = {0x0C: 0, 0x0D: 4, 0x0E: 8, 0x0F: 12}
"""Codecs of responses to commands and of serial lines, without records and ack → number of bytes before the text: none,
its time, the device's id, or both."""

TIMED, EARLIEST_US = (0x0D, 0x0F), 946_684_800_000_000
"""Codecs of responses with a time, and the earliest plausible time: the clock of a device starts in 1970."""

DRIVER = "GTSL|"
"""Start of a response on the serial line with the driver's card."""

_fields = struct.Struct(">QBiihHBH")


class Teltonika(Framed):
    """The decoder of one connection (see framing/decoder.py)."""

    PROTOCOL: ClassVar[str] = "teltonika"

    MAX_FRAME_BYTES = 2**18  # 255 records of 1 KB, the maximum of the vendor's devices

    def cut(self, buffer: bytearray) -> Cut | None:
        """The next packet, handshake or keep-alive."""
        if buffer[0] == PING:
            return Cut(1)
        if len(buffer) < 2:
            return None
        named_bytes = int.from_bytes(buffer[:2], "big")
        if named_bytes in IMEI_DIGITS:
            return _whole(buffer, 2 + named_bytes)
        if buffer[:4] != PREAMBLE[: len(buffer)]:
            raise OutOfStep("neither a device id nor a packet begins here")
        if len(buffer) < HEAD_BYTES:
            return None
        data_bytes = int.from_bytes(buffer[4:HEAD_BYTES], "big")
        if not 3 <= data_bytes <= self._max_bytes:
            raise OutOfStep(f"a packet of {data_bytes} bytes, not 3 to {self._max_bytes}")
        return _whole(buffer, HEAD_BYTES + data_bytes + CRC_BYTES)

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        """Decode a packet or a handshake."""
        if frame[:4] != PREAMBLE:
            return self._greet(frame)
        if not self.device_id:
            raise FrameFault("a packet came before the device's id")
        data, crc = frame[HEAD_BYTES:-CRC_BYTES], int.from_bytes(frame[-CRC_BYTES:], "big")
        if crc16_arc(data) != crc:
            raise FrameFault(f"the checksum is {crc16_arc(data):04x}, the packet contains {crc:04x}")
        if data[0] in COMMANDS:
            return received(self._command_answer(data, arrival), frame, b"")
        records, aside = self._records(data, arrival)
        return received(records, frame, data[1].to_bytes(4, "big"), aside)

    def datagram(self, data: bytes, arrival: Arrival) -> list[Message]:
        """A packet over UDP: length and packet id u16, 01, second packet id u8, the device's id, records.

        The reply contains the second packet id; the first one is constant.
        """
        try:
            if len(data) < 8 or int.from_bytes(data[:2], "big") != len(data) - 2 or data[4] != 1:
                raise FrameFault("the head of the datagram is invalid")
            digits = int.from_bytes(data[6:8], "big")
            self.device_id, packet = _digits(data[8 : 8 + digits], digits), data[8 + digits :]
            records, aside = self._records(packet, arrival)
        except FrameFault as fault:
            return [self.rejected(problems.INVALID_FRAME, str(fault), data)]
        return [received(records, data, b"\x00\x05\x00\x00\x01" + data[5:6] + packet[1:2], aside)]

    def _greet(self, frame: bytes) -> Message:
        try:
            self.device_id = _digits(frame[2:], len(frame) - 2)
        except FrameFault as fault:
            return self.rejected(problems.INVALID_FRAME, str(fault), frame)._replace(answer=REJECTED, last=True)
        return received([], frame, ACCEPTED)

    def _command_answer(self, data: bytes, arrival: Arrival) -> list[Sent]:
        """The device's response to a command that was sent to it; no record if the response is empty."""
        size_bytes, start = int.from_bytes(data[3:7], "big"), 7 + COMMANDS[data[0]]
        response = data[start : 7 + size_bytes].strip(b"\0\r\n ")
        if not response or data[2] == CAMERA:
            return []
        is_text = response.isascii() and response.decode("ascii").isprintable()
        result = response.decode("ascii") if is_text else response.hex()
        driver = result.split("|")[4:5] if result.startswith(DRIVER) else []
        attributes: Attributes = {"driver_id": driver[0]} if driver and driver[0] else {"result": result}
        at_us = int.from_bytes(data[7:11], "big") * 1_000_000 if data[0] in TIMED else 0
        known_us = at_us if at_us >= EARLIEST_US else None
        return [sent(self.device_id, SOURCE, self.options, arrival, known_us, attributes)]

    def _records(self, data: bytes, arrival: Arrival) -> tuple[list[Sent], tuple[Aside, ...]]:
        """The valid records of a packet, and the invalid ones for quarantine."""
        if len(data) < 3 or data[0] not in (*SHAPES, GH3000):
            raise FrameFault(f"codec {data[:1].hex() or 'missing'} is not one of 07, 08, 8e and 10")
        if data[1] != data[-1]:
            raise FrameFault(f"{data[1]} records at its head, {data[-1]} at its end")
        if data[0] == GH3000:
            return self._sent(data, _of_gh3000(data), arrival)
        try:
            return self._sent(data, _of_shape(data, SHAPES[data[0]]), arrival)
        except FrameFault:
            if data[0] not in LONGER:
                raise
            return self._sent(data, _of_shape(data, LONGER[data[0]]), arrival)

    def _sent(
        self, data: bytes, decoded: Iterator[DecodedRecord], arrival: Arrival
    ) -> tuple[list[Sent], tuple[Aside, ...]]:
        records, aside, at = [], [], 2
        try:
            for at_us, attributes, position, end in decoded:
                try:
                    records.append(sent(self.device_id, SOURCE, self.options, arrival, at_us, attributes, position))
                except RecordError as error:
                    aside.append(Aside(self.device_id, str(error), data[at:end]))
                at = end
        except (struct.error, IndexError):
            raise FrameFault("its records are longer than the packet") from None
        if at != len(data) - 1:
            raise FrameFault(f"its records end after {at} of {len(data) - 1} bytes")
        return records, tuple(aside)


def _of_gh3000(data: bytes) -> Iterator[DecodedRecord]:
    at = 2
    for _ in range(data[1]):
        record = gh3000.read(data, at)
        yield record
        at = record.end


def _of_shape(data: bytes, shape: Shape) -> Iterator[DecodedRecord]:
    at = 2
    for _ in range(data[1]):
        values, end = _values(data, at + _fields.size, shape)
        yield _record(_fields.unpack_from(data, at), values, end)
        at = end


def _record(fields: tuple[int, ...], values: Attributes, end: int) -> DecodedRecord:
    at_ms, priority, longitude, latitude, altitude_m, heading_deg, satellites, speed_kmh = fields
    attributes: Attributes = {"satellites": satellites, "priority": priority, **values}
    position = Position(
        latitude / 1e7,
        longitude / 1e7,
        altitude_m,
        speed_kmh,
        heading_deg,
        is_fix=satellites > 0 and (latitude, longitude) != NOWHERE,
    )
    return DecodedRecord(at_ms * 1_000, attributes, position, end)


def _whole(buffer: bytearray, size_bytes: int) -> Cut | None:
    return Cut(size_bytes, bytes(buffer[:size_bytes])) if len(buffer) >= size_bytes else None


def _digits(text: bytes, count: int) -> str:
    if len(text) != count or not text.isdigit():
        raise FrameFault("the device's id must be digits")
    return text.decode("ascii")


def _values(data: bytes, at: int, shape: Shape) -> tuple[Attributes, int]:
    """The values of a record as attributes, and the position after them."""
    number_bytes, count_bytes = struct.calcsize(shape.number_format), struct.calcsize(shape.count_format)
    event = int.from_bytes(data[at : at + number_bytes], "big")
    at += number_bytes + shape.has_generation + count_bytes
    found: Attributes = {"event": event} if event else {}
    for size in shape.sizes:
        count = int.from_bytes(data[at : at + count_bytes], "big")
        if size == "X":
            return _longest(data, at + count_bytes, count, found)
        layout = f">{(shape.number_format + size) * count}"
        pairs = struct.unpack_from(layout, data, at + count_bytes)
        at += count_bytes + struct.calcsize(layout)
        for number, value in zip(pairs[::2], pairs[1::2], strict=True):
            found |= named(number, value, struct.calcsize(size))
    return _texts(data, at, found) if shape.has_texts else (found, at)


def _longest(data: bytes, at: int, count: int, found: Attributes) -> tuple[Attributes, int]:
    """The values of 16 bytes at the end of some models' records."""
    for _ in range(count):
        number, value = struct.unpack_from(">B16s", data, at)
        found |= {f"io{number}": value.hex()}
        at += 17
    return found, at


def _texts(data: bytes, at: int, found: Attributes) -> tuple[Attributes, int]:
    """The values of variable length at the end of a record of codec 8 extended."""
    (count,) = struct.unpack_from(">H", data, at)
    at += 2
    for _ in range(count):
        number, size = struct.unpack_from(">HH", data, at)
        at += 4
        if at + size > len(data):
            raise FrameFault("a value is longer than its packet")
        found |= named_text(number, data[at : at + size])
        at += size
    return found, at
