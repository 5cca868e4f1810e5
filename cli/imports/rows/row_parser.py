"""From a file's row to a record: what its columns mean, then the same rules as for any sender (record_parser.py)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import NamedTuple, get_args

import msgspec

from cli.imports.rows.column_meanings import Meanings
from telemetry.archive.schema import COLUMNS
from telemetry.codec.json_decoder import read as read_json
from telemetry.codec.record_parser import KMH, NAMES, PLAIN_SPEED, Arrival, field_of, read, read_number
from telemetry.model.errors import RecordError, SenderError, SyntaxFault
from telemetry.model.record import Sent, Transport

TRANSPORTS = get_args(Transport)

NO_TIME_US = -1
"""What a row without a time would get: in a file that is a fault, for it did not happen just now."""

OWN = frozenset(COLUMNS.names)
"""The columns of an export of Whimbrel's. Its records keep what they were sent as, and get new ids."""

_NEW = frozenset(("id", "received_at", "date", "geometry"))
"""What of an export this box says itself, or what says nothing new."""

_CAME = ("transport", "source")
"""What of an own export says how a record came."""

MAX_SOURCE_CHARACTERS = 64
MAX_CONTAINERS = 100_000
"""Objects and arrays that the attributes of one row may hold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

EPOCHS = {"epoch_s": 1_000.0, "epoch_ms": 1.0, "epoch_us": 1e-3, "epoch_ns": 1e-6}
"""Ways to count time, and what one of each is in ms."""

_SPEEDS = {f"speed_{unit}": factor for unit, factor in KMH.items()}
_OFFSET = re.compile(r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)\s*$")

Convert = Callable[[object], object]


class Naming(NamedTuple):
    """What a file's columns mean.

    `columns` maps a record's name (or `speed_knots`, `speed_ms`, `speed_mph`) to the file's column; other columns keep
    their own names. `time_format` is how times are written: `strptime`'s, or one of `EPOCHS`; `zone` is where, if
    they don't say it; `device` is the device of rows that name none. With `is_only_mapped` columns that are neither
    mapped nor a field's are left out.
    """

    columns: Mapping[str, str] = {}
    time_format: str | None = None
    zone: tzinfo | None = None
    device: str | None = None
    is_only_mapped: bool = False
    drop: tuple[str, ...] = ()


class Judge:
    """Reads rows as records. `source` is what their decoder is called, `transport` how they came.

    A transport that was not named is `import`, and that of an own export's row what the row says.
    """

    def __init__(self, naming: Naming, arrival: Arrival, source: str, transport: str | None = None) -> None:
        self.naming = naming
        self.arrival = arrival._replace(now_us=NO_TIME_US)
        self.source = source
        self.transport = transport or "import"
        self.is_transport_named = transport is not None
        self._names, converters = _names_of(naming)
        if naming.time_format is not None or naming.zone is not None:
            converters |= dict.fromkeys((n for n, f in NAMES.items() if f == "timestamp"), _moment_reader(naming))
        self._converters = converters
        self.is_plain = naming == Naming()
        self.meanings = Meanings()

    def names(self, columns: Iterable[str], where: str) -> list[str | None]:
        """What each column of a file with a header is called; None if it is left out.

        Raises `SenderError` if a mapped one is missing, or two mean one field.
        """
        columns = list(columns)
        for column, name in self._names.items():
            if column not in columns:
                listed = ", ".join(map(repr, columns))
                raise SenderError(f"{where}: no column {column!r}, which is mapped to {name!r}; there are {listed}")
        found: dict[str, str] = {}
        names = [self.name(column) for column in columns]
        for column, kept in zip(columns, names, strict=True):
            if kept is None:
                continue
            field = _field(kept)
            if field in found:
                hint = f"--map another_name={column}"
                raise SenderError(f"{where}: columns {found[field]!r} and {column!r} both mean {field!r}; try {hint}")
            found[field] = column
        self.note(columns, OWN.issubset(columns))
        return names

    def note(self, columns: Iterable[str], is_own: bool = False) -> None:
        """Have the summary say what these columns become."""
        for column in columns:
            name = self.name(column)
            if is_own and column in _CAME:
                self.meanings.note(column, column)
            else:
                field = None if name is None else _known_field(name)
                self.meanings.note(column, field, is_left_out=name is None or (is_own and column in _NEW))

    def is_quick(self, names: Collection[str]) -> bool:
        """Whether rows with these columns may go the quick way (column_parser.py): nothing is to be converted or filled
        in.
        """
        fields = [NAMES[name] for name in names if name in NAMES]
        return (
            not self._converters.keys() & set(names)
            and self.naming.device is None
            and {"device_id", "timestamp"} <= set(fields)
            and len(set(fields)) == len(fields)
            and len(set(names)) == len(names)
            and "attributes" not in fields
            and not (PLAIN_SPEED in names and self.arrival.speed_unit != "kmh")
        )

    def name(self, column: str) -> str | None:
        """What a column is called, one of a field in lower case; None if it is left out."""
        name = self._names.get(column)
        if name is not None:
            return name
        if column in self.naming.drop or (self.naming.is_only_mapped and field_of(column) is None):
            return None
        return _as_known(column)

    def rename(self, row: Mapping[str, object]) -> dict[str, object]:
        """A row of a file without a header, its columns called as they should be. Raises `RecordError`."""
        if self.is_plain:
            return row if type(row) is dict else dict(row)
        found: dict[str, object] = {}
        for column, value in row.items():
            name = self.name(column)
            if name in found:
                raise RecordError(name, value, f"named twice, the second time by {column!r}")
            if name is not None:
                found[name] = value
        return found

    def look(self, row: dict[str, object], is_own: bool = False) -> Sent | str:
        """The record of a row whose columns are called as they should be, or why it is none."""
        try:
            return self._own(row) if is_own else self._read(row, self.transport, self.source)
        except RecordError as error:
            return str(error)

    def _own(self, row: dict[str, object]) -> Sent:
        transport, source = row.get("transport"), row.get("source")
        if transport not in TRANSPORTS:
            raise RecordError("transport", transport, f"must be one of {', '.join(TRANSPORTS)}")
        if type(source) is not str or not 0 < len(source) <= MAX_SOURCE_CHARACTERS:
            raise RecordError("source", source, f"must have 1 to {MAX_SOURCE_CHARACTERS} characters")
        kept = {name: value for name, value in row.items() if name not in _NEW and name not in _CAME}
        return self._read(kept, self.transport if self.is_transport_named else str(transport), source)

    def _read(self, row: dict[str, object], transport: str, source: str) -> Sent:
        for name in self._converters.keys() & row.keys():
            self._convert(row, name)
        if type(row.get("attributes")) is str:
            row["attributes"] = _object(row["attributes"])
        if self.naming.device is not None and row.get("device_id") is None:
            row["device_id"] = self.naming.device
        sent = read(row, transport, source, self.arrival)
        if sent.record.timestamp_us == NO_TIME_US:
            raise RecordError("timestamp", None, "required")
        return sent

    def _convert(self, row: dict[str, object], name: str) -> None:
        value = row.pop(name)
        field = _field(name)
        if field in row:
            raise RecordError(field, value, f"named twice, the second time as {name!r}")
        row[field] = None if value is None else self._converters[name](value)


def _field(name: str) -> str:
    return _known_field(name) or name


def _known_field(name: str) -> str | None:
    return "speed_kmh" if name in _SPEEDS else field_of(name)


def _as_known(name: str) -> str:
    """A name of a field in lower case, any other as it is."""
    return name.lower() if _known_field(name.lower()) is not None else name


def _names_of(naming: Naming) -> tuple[dict[str, str], dict[str, Convert]]:
    """From columns to names, and what is to be done with values of some names. Raises `SenderError`."""
    names: dict[str, str] = {}
    converters: dict[str, Convert] = {}
    for named, column in naming.columns.items():
        name = _as_known(named)
        if column in names:
            raise SenderError(f"cannot map column {column!r} twice, to {names[column]!r} and to {name!r}")
        names[column] = name
        if name in _SPEEDS and name != "speed_kmh":
            converters[name] = _speed_reader(_SPEEDS[name])
    return names, converters


def _speed_reader(factor: float) -> Convert:
    def convert(value: object) -> object:
        number = read_number("speed_kmh", float(value) if isinstance(value, Decimal) else value)
        return None if number is None else number * factor

    return convert


def _moment_reader(naming: Naming) -> Convert:
    """From a time as the file writes it to what record_parser.py takes: ms since the epoch. Raises `RecordError`."""
    time_format, zone = naming.time_format, naming.zone or UTC

    def from_epoch(value: object) -> object:
        number = read_number("timestamp", value)
        return None if number is None else number * EPOCHS[str(time_format)]

    def from_text(value: object) -> object:
        if type(value) is not str:
            return value
        try:
            moment = datetime.strptime(value, str(time_format)) if time_format else _local(value)
            return value if moment is None else since_epoch_ms(moment, zone)
        except (ValueError, OverflowError) as error:
            raise RecordError("timestamp", value, str(error)) from None

    return from_epoch if time_format in EPOCHS else from_text


def _local(text: str) -> datetime | None:
    """The moment of a text that names no zone; None of any other, for record_parser.py to read."""
    text = text.strip()
    if (
        len(text) < 10
        or text.replace(".", "", 1).lstrip("-").isdigit()
        or (len(text) > 10 and _OFFSET.search(text, 11))
    ):
        return None
    return datetime.fromisoformat(text.upper())


def since_epoch_ms(moment: datetime, zone: tzinfo) -> float:
    """ms since the epoch, exact to the µs for any time that a record may have."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // _MICROSECOND / 1_000


def _object(text: object) -> object:
    """The object in a text of attributes."""
    try:
        return read_json(str(text).encode(), MAX_CONTAINERS)
    except (SyntaxFault, UnicodeEncodeError) as fault:
        raise RecordError("attributes", text, f"must be a JSON object: {fault}") from None


def plain(value: object) -> object:
    """A value of a typed file as a sender would have said it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, type(None))):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return msgspec.to_builtins(value, str_keys=True)
