"""One JSON array of the objects that `/v1/records` shows, a line each."""

from __future__ import annotations

from api.formats.format import Format
from api.formats.ndjson import MEMBERS
from api.formats.text_lines import lines

FORMAT = Format(
    ("application/json",),
    "json",
    lines(f"concat(',', chr(10), '{{', {MEMBERS}, '}}')", head="[", joint=",", tail="\n]\n"),
)
