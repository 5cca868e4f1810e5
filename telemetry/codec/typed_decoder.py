"""Fast path from bytes to records, for senders whose records have the same field names.

The names of records that the generic parser (record_parser.py) has read are learned and become a shape: a struct with
exactly these names, their types and bounds, into which msgspec decodes a whole message in C. If a message does not fit,
because it is invalid or only unusual (another name, a quoted number, nested attributes, a value out of bounds), the
fast path returns None. The generic parser then reads the message and reports faults. Both paths return the same
records; tests/telemetry/codec/test_typed_decoder.py compares them. Only the order of names in `attributes` may differ:
the fast path uses the order in which the sender first used them. names in `attributes`: it is that in which the sender
first used them.

The names are untrusted. Shapes use only names that msgspec's generated structs accept. Neither learning nor a fault of
a shape raises an error: the generic parser reads the message.

This file uses no clock, socket, file or Redis.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice, repeat
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, TypeVar
from weakref import WeakSet

import msgspec

from telemetry.codec.record_parser import (
    KEY_FIELD,
    KMH,
    Arrival,
    field_of,
    has_plain_speed,
    iso_us,
    read_device_id,
    read_location,
    read_number,
    read_pair,
    read_timestamp,
)
from telemetry.codec.timestamp_cache import usual_time_us, usual_us
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, Record, Sent

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_NAMES = 64
"""Maximum number of names of a shape."""

MAX_NAMES_CHARACTERS = 4_096
"""Maximum length of all names of a shape together: each connection remembers the names of its sender."""

MAX_SHAPES = 4
"""Maximum number of shapes of a sender."""

FEW = 8
"""Up to this number of records, attributes are converted one by one."""

MAX_TRIED = 2
"""Number of other senders' shapes that a new sender starts with."""

MAX_LOOKED_AT = 8
"""Number of other senders' shapes that are compared with the names of a sender without a shape."""

MAX_KEPT = 64
"""Number of shapes in the process-wide cache, 10 to 60 KB each, and of counted sets of names."""

MAX_ALIVE = 1_024
"""Maximum number of shapes in memory. Connections hold shapes that have left the cache (`MAX_KEPT`); without this limit
a client that sends ever new names over many connections would fill the memory."""

MAX_KEPT_IDS = 32_768
"""Number of device ids that are cached as valid."""

LEARN_RECORDS = 100
"""Number of records read by the generic parser before a shape is made, which costs about as much as reading them."""

_Finite = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]
_Scalar = str | int | _Finite | bool | None
_TYPES: dict[str, Any] = {
    "device_id": str | int,
    "timestamp": str | int | _Finite | None,
    "latitude": Annotated[float, msgspec.Meta(ge=-90.0, le=90.0)] | None,
    "longitude": Annotated[float, msgspec.Meta(ge=-180.0, le=180.0)] | None,
    "altitude_m": _Finite | None,
    "speed_kmh": _Finite | None,
    "heading_deg": _Finite | None,
    "accuracy_m": _Finite | None,
    "location": str | None,
    "attributes": dict[str, _Scalar] | None,
}
"""Type of each field in a shape. Bounds also reject NaN."""

_NAMEABLE = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')
"""Names that a struct's field may have. msgspec writes them into JSON without escaping, so it rejects all others."""

_json = msgspec.json.Encoder()


class Shape(NamedTuple):
    """Decoders for records with a given set of names, and the conversion to records."""

    covers: frozenset[str]
    from_json: Callable[[bytes | bytearray], Any]
    from_json_lines: Callable[[bytes | bytearray], list[Any]]
    from_msgpack: Callable[[bytes | msgspec.Raw], Any]
    attributes: Callable[[list[Any]], Sequence[object]] | None
    """Returns the remaining fields as objects for JSON; None if all names are known fields."""

    is_in_unit: bool
    """True if the speeds are in the unit of the listener instead of km/h."""

    def records(self, values: list[Any], transport: str, source: str, arrival: Arrival) -> list[Sent]:
        """Convert decoded values to records, column by column, which costs less than record by record.

        Raises `RecordError` for values that only the generic parser can judge.
        """
        if len(values) == 1:
            return [self._record(values[0], transport, source, arrival)]
        if any(map(_location, values)):
            _locate(values, arrival.max_record_bytes)
        if self.is_in_unit and arrival.speed_unit != "kmh":
            _scale(values, KMH[arrival.speed_unit])
        times = _times(values, arrival)
        attributes = repeat(None) if self.attributes is None else _texts(self.attributes(values), arrival)
        return [
            Sent(
                _device_id(value.device_id),
                Record(
                    timestamp_us,
                    transport,
                    source,
                    value.latitude,
                    value.longitude,
                    value.altitude_m,
                    value.speed_kmh,
                    value.heading_deg,
                    value.accuracy_m,
                    value.location,
                    others,
                ),
            )
            for value, timestamp_us, others in zip(values, times, attributes, strict=False)
        ]

    def _record(self, value: Any, transport: str, source: str, arrival: Arrival) -> Sent:
        """`records` for a single record, in half the time."""
        if value.location is not None:
            _locate([value], arrival.max_record_bytes)
        if self.is_in_unit and arrival.speed_unit != "kmh":
            _scale([value], KMH[arrival.speed_unit])
        record = Record(
            _time(value.timestamp, arrival),
            transport,
            source,
            value.latitude,
            value.longitude,
            value.altitude_m,
            value.speed_kmh,
            value.heading_deg,
            value.accuracy_m,
            value.location,
            None if self.attributes is None else _text(self.attributes([value])[0], arrival),
        )
        return Sent(_device_id(value.device_id), record)


_location = attrgetter("location")
_timestamp = attrgetter("timestamp")


def _time(at: str | float | None, arrival: Arrival) -> int:
    try:
        timestamp_us = usual_time_us(at)  # type: ignore[arg-type]  # what is no text is an error of the kinds below
    except (KeyError, TypeError, ValueError):
        return read_timestamp(at, arrival)
    if not EARLIEST_US <= timestamp_us <= arrival.latest_us:
        raise RecordError("timestamp", None, "out of bounds")
    return timestamp_us


def _times(values: list[Any], arrival: Arrival) -> list[int]:
    try:
        timestamps_us = usual_us(map(_timestamp, values))
    except (KeyError, TypeError, ValueError):
        timestamps_us = [
            iso_us(at) if type(at := value.timestamp) is str else read_timestamp(at, arrival) for value in values
        ]
    if timestamps_us and not (min(timestamps_us) >= EARLIEST_US and max(timestamps_us) <= arrival.latest_us):
        raise RecordError("timestamp", None, "out of bounds")
    return timestamps_us


def _text(attributes: object, arrival: Arrival) -> str | None:
    encoded = _json.encode(attributes)
    if len(encoded) > arrival.max_record_bytes:
        raise RecordError("attributes", None, f"must have at most {arrival.max_record_bytes} bytes")
    return None if encoded == b"{}" else encoded.decode()


def _texts(attributes: Sequence[object], arrival: Arrival) -> list[str | None]:
    """Each as JSON text, None for an empty object."""
    encoded = _json.encode_lines(attributes)
    if len(encoded) > arrival.max_record_bytes and max(map(len, encoded.split(b"\n"))) > arrival.max_record_bytes:
        raise RecordError("attributes", None, f"must have at most {arrival.max_record_bytes} bytes")
    return [None if text == "{}" else text for text in encoded.decode().split("\n")]


def _locate(values: list[Any], max_bytes: int) -> None:
    for value in values:
        location = value.location = read_location(value.location, max_bytes)
        if location is not None and value.latitude is None and value.longitude is None:
            value.latitude, value.longitude = read_pair(location)


def _scale(values: list[Any], factor: float) -> None:
    for value in values:
        if value.speed_kmh is not None:
            value.speed_kmh = read_number("speed_kmh", value.speed_kmh * factor)


class Shapes:
    """The shapes of one sender, or of many senders of the same kind."""

    __slots__ = ("_names", "_shapes")

    def __init__(self) -> None:
        self._shapes = list(islice(reversed(_known.values()), MAX_TRIED))  # the most recently used first
        self._names: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """True if there is a shape to try."""
        return bool(self._shapes)

    def json(self, data: bytes | bytearray, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of an object or an array of objects; None if the generic parser must read them."""
        return self._first(lambda shape: shape.from_json(data), transport, source, arrival)

    def json_lines(self, data: bytes | bytearray, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of concatenated objects; None as above."""
        return self._first(lambda shape: shape.from_json_lines(data), transport, source, arrival)

    def msgpack(self, data: bytes | msgspec.Raw, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of a map or an array of maps; None as above."""
        return self._first(lambda shape: shape.from_msgpack(data), transport, source, arrival)

    def _first(
        self, decode: Callable[[Shape], Any], transport: str, source: str, arrival: Arrival
    ) -> list[Sent] | None:
        """Try the shapes in order. The list is replaced, never changed, so that several threads may use it.

        Whatever error a shape raises, the generic parser decides about the message.
        """
        shapes = self._shapes
        records: list[Sent] | None
        for shape in shapes:
            try:
                value = decode(shape)
                records = shape.records(value if type(value) is list else [value], transport, source, arrival)
            except Exception:
                records = None
            if records is not None:
                if shape is not shapes[0]:
                    self._put_first(shape)
                return records
        return None

    def learn(self, values: Iterable[object], records: int | None = None) -> None:
        """Learn the names of valid records that the generic parser has read; `records` is their number if not one each.

        Never raises: the records are decoded already.
        """
        names: dict[str, object] = {}
        seen = 0
        for value in values:
            names.update(value)  # type: ignore[call-overload]
            seen += 1
        try:
            shape = _covering(names) or self._counted(tuple(names), seen if records is None else records)
        except Exception as error:  # msgspec may reject names that its documentation allows
            log.warning("cannot make a fast decoder for a sender's names: %s", type(error).__name__)
            return
        if shape is not None:
            self._put_first(shape)

    def _counted(self, names: tuple[str, ...], records: int) -> Shape | None:
        if not _is_clear(names):
            return None
        self._names = _joined(self._names, names)
        return _counted(self._names, records)

    def _put_first(self, shape: Shape) -> None:
        rest = [other for other in self._shapes if other is not shape]
        self._shapes = [shape, *rest[: MAX_SHAPES - 1]]


def _joined(names: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """The union of both, if one shape can have it; else only the new names."""
    joined = tuple(dict.fromkeys((*names, *more)))
    return joined if _is_clear(joined) else more


def _is_clear(names: Collection[str]) -> bool:
    """True if each name has only one meaning, so that a shape can be made.

    A field named `token` may be a key, which only the generic parser removes.
    """
    if len(names) > MAX_NAMES or sum(map(len, names)) > MAX_NAMES_CHARACTERS:
        return False
    if not all(map(_NAMEABLE.fullmatch, names)) or any(name.lower() == KEY_FIELD for name in names):
        return False
    fields = [field for field in map(field_of, names) if field is not None]
    has_others = len(fields) < len(names)
    is_mixed = has_others and "attributes" in fields
    return len(set(fields)) == len(fields) and "device_id" in fields and not is_mixed


# Making shapes ---------------------------------------------------------------------------------------

_known: dict[frozenset[str], Shape] = {}
_counts: dict[frozenset[str], int] = {}
"""Number of records per set of names that the generic parser has read, over all senders."""

_alive: WeakSet[type] = WeakSet()
"""The structs of all shapes in use."""

_device_id = lru_cache(MAX_KEPT_IDS)(read_device_id)


def _covering(names: Collection[str]) -> Shape | None:
    """One of the newest shapes that accepts these names."""
    for shape in islice(reversed(_known.values()), MAX_LOOKED_AT):
        if shape.covers.issuperset(names):
            return shape
    return None


def _counted(names: tuple[str, ...], records: int) -> Shape | None:
    """Count records with these names; returns their shape once there were enough."""
    key = frozenset(names)
    count = _counts.pop(key, 0) + records
    if count < LEARN_RECORDS or len(_alive) >= MAX_ALIVE:
        _put(_counts, key, count)
        return None
    shape = _make(names)
    _put(_known, key, shape)
    return shape


def _put(newest: dict[frozenset[str], T], key: frozenset[str], value: T) -> None:
    """Store as the newest entry, and drop the oldest beyond `MAX_KEPT`."""
    newest[key] = value
    if len(newest) > MAX_KEPT:
        del newest[next(iter(newest))]


def _make(names: tuple[str, ...]) -> Shape:
    fields = {field: name for name in names if (field := field_of(name)) is not None}
    others = {f"other{index}": name for index, name in enumerate(names) if field_of(name) is None}
    types = {field: kind for field, kind in _TYPES.items() if field != "attributes" or field in fields}
    struct = msgspec.defstruct(
        "Values",
        [
            *((field, kind) if field == "device_id" else (field, kind, None) for field, kind in types.items()),
            *((field, _Scalar, msgspec.UNSET) for field in others),
        ],
        rename=fields | others,
        forbid_unknown_fields=True,
        gc=False,
    )
    _alive.add(struct)
    one_or_many = list[struct] | struct  # type: ignore[valid-type]
    return Shape(
        frozenset(names),
        msgspec.json.Decoder(one_or_many).decode,
        msgspec.json.Decoder(struct).decode_lines,
        msgspec.msgpack.Decoder(one_or_many).decode,
        _own_attributes if "attributes" in fields else _other_attributes(others) if others else None,
        has_plain_speed(fields.values()),
    )


def _own_attributes(values: list[Any]) -> Sequence[object]:
    return [value.attributes or {} for value in values]


def _other_attributes(others: dict[str, str]) -> Callable[[list[Any]], Sequence[object]]:
    """Returns a function that selects the given fields and converts them to objects for JSON, with their sent names."""
    struct = msgspec.defstruct(
        "Attributes", [(field, _Scalar, msgspec.UNSET) for field in others], rename=others, gc=False
    )
    structs = list[struct]  # type: ignore[valid-type]
    [*fields] = others
    select: Callable[[Any], Iterable[Any]] = (
        attrgetter(*fields) if len(fields) > 1 else lambda value: (getattr(value, fields[0]),)
    )

    def attributes(values: list[Any]) -> Sequence[object]:
        if len(values) > FEW:
            with suppress(msgspec.ValidationError):  # a value lacks a name
                return msgspec.convert(values, structs, from_attributes=True)
        return [struct(*select(value)) for value in values]

    return attributes
