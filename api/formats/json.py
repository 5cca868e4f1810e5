"""JSON array of records as in responses of `/v1/records`, one object per line."""

from __future__ import annotations

from api.formats.format import Format
from api.formats.ndjson import MEMBERS
from api.formats.text_lines import lines

FORMAT = Format(
    ("application/json",),
    "json",
    lines(f"concat(',', chr(10), '{{', {MEMBERS}, '}}')", head="[", separator=",", tail="\n]\n"),
)
