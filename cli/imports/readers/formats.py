"""The formats that can be imported, by name and by a file's ending, and files that are known by name."""

from __future__ import annotations

from pathlib import Path

from cli.imports.readers import csv, gpx, json, parquet, sql_dump
from cli.imports.rows.reader import Reader
from cli.imports.rows.row_parser import Naming
from cli.imports.rows.source import COMPRESSED
from telemetry.model.errors import SenderError

READERS: dict[str, Reader] = {
    "csv": csv.read,
    "ndjson": json.read_lines,
    "json": json.read_array,
    "parquet": parquet.read,
    "gpx": gpx.read,
    "mysqldump": sql_dump.read,
}

ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
    ".gpx": "gpx",
    ".sql": "mysqldump",
}
"""The format that a file's ending tells."""

PRESETS: dict[str, tuple[str, Naming]] = {
    "traccar": (
        "csv",
        Naming(
            {"device_id": "deviceid", "timestamp": "fixtime", "speed_knots": "speed", "location": "address"},
            drop=("id",),
        ),
    ),
}
"""Format and naming of files that are known by name."""


def format_of(path: Path, named: str | None, preset: str | None) -> str:
    """The format that was named, or that the preset or the file's name tells. Raises `SenderError`."""
    if named is not None:
        return named
    if preset is not None:
        return PRESETS[preset][0]
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in COMPRESSED]
    found = ENDINGS.get(endings[-1]) if endings else None
    if found is None:
        raise SenderError(f"cannot tell the format of {path}: name it with --format ({', '.join(READERS)})")
    return found
