"""Meanings of a file's columns, for the summary of an import: fields, attributes, or left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from telemetry.model.record import Sent

MAX_COLUMNS = 10_000
"""Maximum number of columns that are remembered: each object of a JSON file may bring other names."""

SHOWN_ATTRIBUTES = 20

POSITION, TIME = ("latitude", "longitude"), "timestamp"


class Meanings:
    """Collects what columns became, and whether any record has a position."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.attributes: dict[str, None] = {}
        self.left_out: dict[str, None] = {}
        self.has_position = False

    def note(self, column: str, field: str | None, is_left_out: bool = False) -> None:
        """Note a column: the field that it fills; of None it is an attribute, or left out."""
        if len(self.fields) + len(self.attributes) + len(self.left_out) >= MAX_COLUMNS:
            return
        if is_left_out:
            self.left_out[column] = None
        elif field is not None:
            self.fields[column] = field
        else:
            self.attributes[column] = None

    def look(self, records: Iterable[Sent]) -> None:
        """Note whether any record has a position."""
        self.has_position = self.has_position or any(
            one.record.latitude is not None and one.record.longitude is not None for one in records
        )

    def as_json(self) -> dict[str, object]:
        """The object of the summary: columns with their fields, names of attributes, columns that are left out."""
        return {"columns": self.fields, "attributes": list(self.attributes), "left_out": list(self.left_out)}

    def lines(self) -> list[str]:
        """Lines of the summary for people."""
        found = []
        if self.fields:
            became = [name if name == field else f"{name} -> {field}" for name, field in self.fields.items()]
            found.append(f"fields: {', '.join(became)}")
        if self.attributes:
            found.append(f"attributes: {_shortened(self.attributes)}")
        if self.left_out:
            found.append(f"left out: {_shortened(self.left_out)}")
        return found

    def warnings(self, good: int, refused: int) -> list[str]:
        """Sentences about what all rows lack, after `good` and `refused` rows."""
        found, filled = [], set(self.fields.values())
        if TIME not in filled and not good and refused:
            found.append(f"no row has a time: no column became {TIME}; name it with --map {TIME}=COLUMN")
        if good and not self.has_position:
            lacking = [field for field in POSITION if field not in filled]
            hint = ",".join(f"{field}=COLUMN" for field in lacking)
            why = f": no column became {' or '.join(lacking)}; name it with --map {hint}" if lacking else ""
            found.append(f"no record has a position{why}")
        return found


def _shortened(names: Mapping[str, None]) -> str:
    first: Sequence[str] = list(names)[:SHOWN_ATTRIBUTES]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
