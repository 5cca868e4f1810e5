"""The quick way from bytes to records, for senders whose records look alike: 0.8 µs a record where `fields.read`
takes 3.5.

The names that a sender uses are learnt from what was read the plain way, and become a shape: a struct of just these
names, with their types and bounds, into which msgspec decodes a whole message in C. Whatever a shape does not take,
wrong or only unusual (another name, a number in quotes, nested attributes, a value out of its bounds), makes the
quick way return None; the message then goes the plain way, which alone says what is wrong. So both give the same
records; tests/telemetry/codec/test_typed_decoder.py holds them against each other. One thing may differ, the order of
names in `attributes`: it is that in which the sender first used them.

Names come from strangers. Shapes are made only of names that msgspec's generated structs accept, and neither learning
nor a shape's fault raises: the message goes the plain way.

This file knows no clock, socket, file or Redis.
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
"""A sender that uses more names than this has no shape."""

MAX_NAMES_CHARACTERS = 4_096
"""A sender whose names together are longer has no shape: each connection remembers the names of its sender."""

MAX_SHAPES = 4
"""Shapes that a sender may use at once."""

FEW = 8
"""Records up to which their attributes are taken one by one."""

MAX_TRIED = 2
"""Shapes of other senders that a new one is thought to use."""

MAX_LOOKED_AT = 8
"""Shapes of all senders that are tried on the names of one that has no shape."""

MAX_KEPT = 64
"""Shapes of all senders that are kept, 10 to 60 KB each, and names that are counted."""

MAX_ALIVE = 1_024
"""Maximum number of shapes in memory. Connections hold shapes that are no longer among `MAX_KEPT`: a client that sends
ever other names over many connections would fill the memory."""

MAX_KEPT_IDS = 32_768
"""Device ids that are known to be good."""

LEARN_RECORDS = 100
"""Records read the plain way before a shape is made, which costs as much as reading them."""

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
"""What a shape takes for each field. A bound refuses a NaN, too."""

_NAMEABLE = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')
"""Names that a struct's field may be given. msgspec writes them into JSON as they are, so it refuses all others."""

_json = msgspec.json.Encoder()


class Shape(NamedTuple):
    """Decoders of one or many records of some names, and what makes them records."""

    covers: frozenset[str]
    from_json: Callable[[bytes | bytearray], Any]
    from_json_lines: Callable[[bytes | bytearray], list[Any]]
    from_msgpack: Callable[[bytes | msgspec.Raw], Any]
    attributes: Callable[[list[Any]], Sequence[object]] | None
    """What else the records have, as objects for JSON, if any of these names is not a field's."""

    is_in_unit: bool
    """Whether its speeds are in the unit of the listener, not in km/h."""

    def records(self, values: list[Any], transport: str, source: str, arrival: Arrival) -> list[Sent]:
        """The records of what a decoder found, column by column, since a step for all costs less than one for each.

        Raises `RecordError` for what only the plain way can judge.
        """
        if len(values) == 1:
            return [self._record(values[0], transport, source, arrival)]
        if any(map(_location, values)):
            _place(values, arrival.max_record_bytes)
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
        """The same of one that came alone, in half the time."""
        if value.location is not None:
            _place([value], arrival.max_record_bytes)
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
        found = usual_time_us(at)  # type: ignore[arg-type]  # what is no text is an error of the kinds below
    except (KeyError, TypeError, ValueError):
        return read_timestamp(at, arrival)
    if not EARLIEST_US <= found <= arrival.latest_us:
        raise RecordError("timestamp", None, "out of bounds")
    return found


def _times(values: list[Any], arrival: Arrival) -> list[int]:
    try:
        found = usual_us(map(_timestamp, values))
    except (KeyError, TypeError, ValueError):
        found = [iso_us(at) if type(at := value.timestamp) is str else read_timestamp(at, arrival) for value in values]
    if found and not (min(found) >= EARLIEST_US and max(found) <= arrival.latest_us):
        raise RecordError("timestamp", None, "out of bounds")
    return found


def _text(attributes: object, arrival: Arrival) -> str | None:
    encoded = _json.encode(attributes)
    if len(encoded) > arrival.max_record_bytes:
        raise RecordError("attributes", None, f"must have at most {arrival.max_record_bytes} bytes")
    return None if encoded == b"{}" else encoded.decode()


def _texts(attributes: Sequence[object], arrival: Arrival) -> list[str | None]:
    """Each as JSON, of which an empty object is none."""
    encoded = _json.encode_lines(attributes)
    if len(encoded) > arrival.max_record_bytes and max(map(len, encoded.split(b"\n"))) > arrival.max_record_bytes:
        raise RecordError("attributes", None, f"must have at most {arrival.max_record_bytes} bytes")
    return [None if text == "{}" else text for text in encoded.decode().split("\n")]


def _place(values: list[Any], max_bytes: int) -> None:
    for value in values:
        location = value.location = read_location(value.location, max_bytes)
        if location is not None and value.latitude is None and value.longitude is None:
            value.latitude, value.longitude = read_pair(location)


def _scale(values: list[Any], factor: float) -> None:
    for value in values:
        if value.speed_kmh is not None:
            value.speed_kmh = read_number("speed_kmh", value.speed_kmh * factor)


class Shapes:
    """What is known of how one sender, or many of the same kind, name their fields."""

    __slots__ = ("_names", "_shapes")

    def __init__(self) -> None:
        self._shapes = list(islice(reversed(_known.values()), MAX_TRIED))  # the one that was of use last is the first
        self._names: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether it is worth trying."""
        return bool(self._shapes)

    def json(self, data: bytes | bytearray, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of an object or an array of them; None if they must go the plain way."""
        return self._first(lambda shape: shape.from_json(data), transport, source, arrival)

    def json_lines(self, data: bytes | bytearray, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of objects after one another."""
        return self._first(lambda shape: shape.from_json_lines(data), transport, source, arrival)

    def msgpack(self, data: bytes | msgspec.Raw, transport: str, source: str, arrival: Arrival) -> list[Sent] | None:
        """The records of a map or an array of them."""
        return self._first(lambda shape: shape.from_msgpack(data), transport, source, arrival)

    def _first(
        self, decode: Callable[[Shape], Any], transport: str, source: str, arrival: Arrival
    ) -> list[Sent] | None:
        """Assigned anew rather than changed, the list may be used by several threads.

        Whatever a shape raises, foreseen or not, the plain way decides about the message.
        """
        shapes = self._shapes
        found: list[Sent] | None
        for shape in shapes:
            try:
                value = decode(shape)
                found = shape.records(value if type(value) is list else [value], transport, source, arrival)
            except Exception:
                found = None
            if found is not None:
                if shape is not shapes[0]:
                    self._put_first(shape)
                return found
        return None

    def learn(self, values: Iterable[object], records: int | None = None) -> None:
        """Take note of the names of good records, maps that were read the plain way; of how many, if not one each.

        Never raises: the records are read already.
        """
        names: dict[str, object] = {}
        seen = 0
        for value in values:
            names.update(value)  # type: ignore[call-overload]
            seen += 1
        try:
            shape = _covering(names) or self._counted(tuple(names), seen if records is None else records)
        except Exception as error:  # msgspec may refuse names that its documentation allows
            log.warning("cannot make a quick decoder of a sender's names: %s", type(error).__name__)
            return
        if shape is not None:
            self._put_first(shape)

    def _counted(self, names: tuple[str, ...], records: int) -> Shape | None:
        if not _is_clear(names):
            return None
        self._names = _joined(self._names, names)
        return _counted(self._names, records)

    def _put_first(self, shape: Shape) -> None:
        others = [one for one in self._shapes if one is not shape]
        self._shapes = [shape, *others[: MAX_SHAPES - 1]]


def _joined(names: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Both, if one shape can have them; else the new ones alone."""
    both = tuple(dict.fromkeys((*names, *more)))
    return both if _is_clear(both) else more


def _is_clear(names: Collection[str]) -> bool:
    """Whether each name can only mean one thing, so that a record of these names has a shape.

    What is called `token` may be a key, which the plain way alone leaves out.
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
"""How many records of these names were read the plain way, by all senders together."""

_alive: WeakSet[type] = WeakSet()
"""The structs of all shapes that something still holds."""

_device_id = lru_cache(MAX_KEPT_IDS)(read_device_id)


def _covering(names: Collection[str]) -> Shape | None:
    """One of the newest shapes that takes these names."""
    for shape in islice(reversed(_known.values()), MAX_LOOKED_AT):
        if shape.covers.issuperset(names):
            return shape
    return None


def _counted(names: tuple[str, ...], records: int) -> Shape | None:
    """Note that records of these names were read; their shape, once they were enough."""
    key = frozenset(names)
    count = _counts.pop(key, 0) + records
    if count < LEARN_RECORDS or len(_alive) >= MAX_ALIVE:
        _put(_counts, key, count)
        return None
    shape = _make(names)
    _put(_known, key, shape)
    return shape


def _put(kept: dict[frozenset[str], T], key: frozenset[str], value: T) -> None:
    """Keep as the newest, and of all the newest `MAX_KEPT`."""
    kept[key] = value
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def _make(names: tuple[str, ...]) -> Shape:
    fields = {field: name for name in names if (field := field_of(name)) is not None}
    others = {f"other{place}": name for place, name in enumerate(names) if field_of(name) is None}
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
    """What takes the fields named out of values, to be named in JSON as they were sent."""
    struct = msgspec.defstruct(
        "Attributes", [(field, _Scalar, msgspec.UNSET) for field in others], rename=others, gc=False
    )
    many = list[struct]  # type: ignore[valid-type]
    [*fields] = others
    taken: Callable[[Any], Iterable[Any]] = (
        attrgetter(*fields) if len(fields) > 1 else lambda value: (getattr(value, fields[0]),)
    )

    def attributes(values: list[Any]) -> Sequence[object]:
        if len(values) > FEW:
            with suppress(msgspec.ValidationError):  # one of them lacks a name
                return msgspec.convert(values, many, from_attributes=True)
        return [struct(*taken(value)) for value in values]

    return attributes
