"""One JSON array of the objects that `/v1/records` shows, a line each."""

from __future__ import annotations

from api.formats.contract import Format
from api.formats.lines import lines
from api.formats.ndjson import MEMBERS

FORMAT = Format(
    ("application/json",),
    "json",
    lines(f"concat(',', chr(10), '{{', {MEMBERS}, '}}')", head="[", joint=",", tail="\n]\n"),
)
