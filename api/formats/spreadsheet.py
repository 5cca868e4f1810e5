"""Makes a text safe for spreadsheets, which run a cell that begins with = + - or @ as a formula.

Senders choose texts: a device named `=HYPERLINK(…)` would send whoever opens a CSV file to its page. A single quote in
front makes a cell a text (OWASP, CSV Injection). Where a spreadsheet splits lines at semicolons or tabs, as it does
in many countries, a cell may also begin within a text, so what follows such a sign is looked at, too.
"""

from __future__ import annotations

import re

FIRST = "=+\\-@\uff1d\uff0b\uff0d\uff20"
"""What makes a cell a formula, also in full width, as a character class has it."""

BEGINS = f"^[{FIRST}\\t\\r\\n]"
SPLITS = f'([;\\t\\r\\n]["\\s]*)([{FIRST}])'

_BEGINS, _SPLITS = re.compile(BEGINS), re.compile(SPLITS)


def safe(text: str) -> str:
    """The text with a single quote in front of each place that could begin a formula."""
    text = _SPLITS.sub(r"\1'\2", text)
    return f"'{text}" if _BEGINS.match(text) else text


def safe_sql(name: str) -> str:
    """SQL of the same for a column."""
    split = f"regexp_replace({name}, '{SPLITS}', '\\1''\\2', 'g')"
    return f"CASE WHEN regexp_matches({name}, '{BEGINS}') THEN '''' || {split} ELSE {split} END"
