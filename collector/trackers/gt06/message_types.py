"""Types of GT06 frames: the parser of each type's content, and whether the device expects a reply."""

from __future__ import annotations

from datetime import tzinfo

from collector.trackers.gt06 import location_messages as places
from collector.trackers.gt06 import status_messages as states
from collector.trackers.gt06.values import Body, Content, Parser
from collector.trackers.position import NOWHERE

X1 = 0x34
X1_MIN_BYTES = 51
"""A shorter content of this type comes from another model, and contains cells."""

ADDRESS_REQUEST = 0x2A
UNANSWERED = frozenset((0x80, 0x81, 0x82, 0x94, 0x9B, 0xF3))
"""Types of short frames without a reply: responses to commands, and information from some models."""

LONG_ANSWERED = frozenset((0x32, 0x33, 0x41, 0x70, 0xF2))
"""Types of long frames with a reply; the others have none."""

LONG_ALIKE = frozenset((0x32, 0x33, 0x41))
"""Types whose reply is a long frame, too."""

FILES = frozenset((0x36, 0x41))
"""Types of long frames that are a part of a photo or a recording. They are not stored."""

RFID_BYTES = 35
VOLTS_BYTES = 41
COUNTED_BYTES = 44
WIDE_STATE_BYTES = 59


def read(kind: int, data: bytes, zone: tzinfo, *, is_long: bool = False) -> Content | None:
    """Decode a content; None if it has nothing for a record. Raises `RecordError`.

    A content of unknown type, or shorter than its type requires, is kept raw.
    """
    parse = _parser(kind, len(data), is_long)
    try:
        decoded = parse(Body(data), zone) if parse else None
    except IndexError:
        decoded = None
    if decoded is None and data and not (is_long and kind in FILES):
        return None, {"type": f"{kind:02x}", "raw": data.hex()}, NOWHERE
    return decoded


def is_answered(kind: int, size_bytes: int, *, is_long: bool) -> bool:
    """True if the device waits for a reply to a content of this type and size."""
    if kind == X1:
        return size_bytes < X1_MIN_BYTES
    if is_long:
        return kind in LONG_ANSWERED or (kind in KINDS and kind not in LONG_KINDS and kind not in UNANSWERED)
    return kind not in UNANSWERED


def _parser(kind: int, size_bytes: int, is_long: bool) -> Parser | None:
    if is_long and kind in LONG_KINDS:
        return LONG_KINDS[kind]
    return OF_SIZE.get((kind, size_bytes)) or KINDS.get(kind)


KINDS: dict[int, Parser] = {
    0x10: places.place,
    0x11: places.place_long_cell,
    0x12: places.place_cell,
    0x13: states.state,
    0x15: states.text,
    0x16: places.place_cell_state((5, 13)),
    0x18: states.cells(2, 3, wifi=True),
    0x19: states.cell_state,
    0x1A: places.place,
    0x1E: places.place,
    0x21: states.coded_text,
    0x22: places.place_cell_event_22,
    0x23: states.heartbeat,
    0x24: states.cells(2, 3),
    0x25: places.place_state_driver,
    0x26: places.place_cell_state((5,)),
    0x27: places.place_cell_state((6, 5)),
    0x28: states.cells(2, 3),
    ADDRESS_REQUEST: places.place,
    0x2C: states.cells(2, 3, wifi=True),
    0x2D: places.place_cell_event,
    0x2E: states.cells(2, 3),
    0x31: places.place_cell_event,
    0x32: places.place_cell_state((5, 7)),
    0x33: states.cells(2, 4, 6, wifi=True),
    X1: places.x1_place,
    0x36: places.place_key_or_state,
    0x37: places.place_cell_event,
    0x39: places.place_cell_state_modules,
    0x40: states.traction_battery,
    0x61: places.name_place_cell_driver,
    0x94: states.supply,
    0x95: places.camera_alarm,
    0x9B: states.line,
    0xA0: places.place_wide_cell,
    0xA1: states.cells(4, 8),
    0xA2: states.cells(4, 8, wifi=True),
    0xA3: places.wide_cell_state,
    0xA4: places.place_cell_state((6,)),
    0xA5: states.wide_cell_state,
    0xA7: states.wide_cell,
    0xF3: states.points,
}
"""Type → parser of its content."""

LONG_KINDS: dict[int, Parser | None] = {
    0x31: places.guarded_place,
    0x32: places.guarded_place,
    0x33: places.guarded_place,
    0x36: None,
    0x38: places.place_kept_cell,
    0x41: None,
    0x65: None,
    0x66: None,
    0x70: states.modules,
    0x8C: states.vehicle,
    0x94: states.informed,
    0x9B: states.line,
    0x21: states.coded_text,
    0xF2: states.peripheral,
}
"""Type → parser for long frames, if it differs; contents without a parser are kept raw."""

OF_SIZE: dict[tuple[int, int], Parser] = {
    (0x17, RFID_BYTES): places.place_cell_driver,
    (0x24, VOLTS_BYTES): places.place_volts,
    (0x24, COUNTED_BYTES): states.counted_cells,
    (0xA2, WIDE_STATE_BYTES): places.place_wide_cell_state,
    **{(X1, size_bytes): states.as_many_cells for size_bytes in range(X1_MIN_BYTES)},
}
"""Type and size → parser for models that use a type for another content."""
