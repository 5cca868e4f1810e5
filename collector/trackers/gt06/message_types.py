"""What the contents of GT06's frames mean, by their type (location_messages.py, status_messages.py), and which are
answered.
"""

from __future__ import annotations

from datetime import tzinfo

from collector.trackers.gt06 import location_messages as places
from collector.trackers.gt06 import status_messages as told
from collector.trackers.gt06.values import Body, Content, Means
from collector.trackers.position import NOWHERE

X1 = 0x34
X1_LEAST_BYTES = 51
"""A shorter content of this type is another model's, and tells of cells."""

ADDRESS_REQUEST = 0x2A
UNANSWERED = frozenset((0x80, 0x81, 0x82, 0x94, 0x9B, 0xF3))
"""Types of short frames that expect no answer: answers to commands, and what some models tell of themselves."""

LONG_ANSWERED = frozenset((0x32, 0x33, 0x41, 0x70, 0xF2))
"""Types of long frames that expect one; the others don't."""

LONG_ALIKE = frozenset((0x32, 0x33, 0x41))
"""Those of which the answer is long, too."""

FILES = frozenset((0x36, 0x41))
"""Types of long frames that are a part of a photo or of a sound: they are not kept."""

RFID_BYTES = 35
VOLTS_BYTES = 41
COUNTED_BYTES = 44
WIDE_STATE_BYTES = 59


def read(kind: int, data: bytes, zone: tzinfo, *, is_long: bool = False) -> Content | None:
    """What a content says; None if nothing that a record could hold. Raises `RecordError`.

    A content of unknown type, or one that is not as long as its type says, is kept raw.
    """
    means = _means(kind, len(data), is_long)
    try:
        found = means(Body(data), zone) if means else None
    except IndexError:
        found = None
    if found is None and data and not (is_long and kind in FILES):
        return None, {"type": f"{kind:02x}", "raw": data.hex()}, NOWHERE
    return found


def is_answered(kind: int, size_bytes: int, *, is_long: bool) -> bool:
    """Whether the device waits for an answer to a content of this type and size."""
    if kind == X1:
        return size_bytes < X1_LEAST_BYTES
    if is_long:
        return kind in LONG_ANSWERED or (kind in KINDS and kind not in LONG_KINDS and kind not in UNANSWERED)
    return kind not in UNANSWERED


def _means(kind: int, size_bytes: int, is_long: bool) -> Means | None:
    if is_long and kind in LONG_KINDS:
        return LONG_KINDS[kind]
    return OF_SIZE.get((kind, size_bytes)) or KINDS.get(kind)


KINDS: dict[int, Means] = {
    0x10: places.place,
    0x11: places.place_long_cell,
    0x12: places.place_cell,
    0x13: told.state,
    0x15: told.text,
    0x16: places.place_cell_state((5, 13)),
    0x18: told.cells(2, 3, wifi=True),
    0x19: told.cell_state,
    0x1A: places.place,
    0x1E: places.place,
    0x21: told.coded_text,
    0x22: places.place_cell_event_22,
    0x23: told.heartbeat,
    0x24: told.cells(2, 3),
    0x25: places.place_state_driver,
    0x26: places.place_cell_state((5,)),
    0x27: places.place_cell_state((6, 5)),
    0x28: told.cells(2, 3),
    ADDRESS_REQUEST: places.place,
    0x2C: told.cells(2, 3, wifi=True),
    0x2D: places.place_cell_event,
    0x2E: told.cells(2, 3),
    0x31: places.place_cell_event,
    0x32: places.place_cell_state((5, 7)),
    0x33: told.cells(2, 4, 6, wifi=True),
    X1: places.x1_place,
    0x36: places.place_key_or_state,
    0x37: places.place_cell_event,
    0x39: places.place_cell_state_modules,
    0x40: told.traction_battery,
    0x61: places.name_place_cell_driver,
    0x94: told.supply,
    0x95: places.camera_alarm,
    0x9B: told.line,
    0xA0: places.place_wide_cell,
    0xA1: told.cells(4, 8),
    0xA2: told.cells(4, 8, wifi=True),
    0xA3: places.wide_cell_state,
    0xA4: places.place_cell_state((6,)),
    0xA5: told.wide_cell_state,
    0xA7: told.wide_cell,
    0xF3: told.points,
}
"""Type → what its content means."""

LONG_KINDS: dict[int, Means | None] = {
    0x31: places.guarded_place,
    0x32: places.guarded_place,
    0x33: places.guarded_place,
    0x36: None,
    0x38: places.place_kept_cell,
    0x41: None,
    0x65: None,
    0x66: None,
    0x70: told.modules,
    0x8C: told.vehicle,
    0x94: told.informed,
    0x9B: told.line,
    0x21: told.coded_text,
    0xF2: told.peripheral,
}
"""The same of long frames, where it is another; those without a meaning are kept raw."""

OF_SIZE: dict[tuple[int, int], Means] = {
    (0x17, RFID_BYTES): places.place_cell_driver,
    (0x24, VOLTS_BYTES): places.place_volts,
    (0x24, COUNTED_BYTES): told.counted_cells,
    (0xA2, WIDE_STATE_BYTES): places.place_wide_cell_state,
    **{(X1, size_bytes): told.as_many_cells for size_bytes in range(X1_LEAST_BYTES)},
}
"""The same of models that use a type for another content, known by its size."""
