"""Makes texts safe for spreadsheets, which run a cell that begins with = + - or @ as a formula.

Senders choose the texts: a device named `=HYPERLINK(…)` could lead a person who opens the CSV file to another site. A
single quote at the start makes the cell a text (OWASP, CSV Injection). In many countries, spreadsheets split lines at
semicolons or tabs, so a cell may also begin within a text: characters after such a separator are checked, too.
"""

from __future__ import annotations

import re

FORMULA_CHARACTERS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
"""Content of a character class: first characters of a formula, also in full width."""

BEGINS = f"^[{FORMULA_CHARACTERS}\\t\\r\\n]"
SPLITS = f'([;\\t\\r\\n]["\\s]*)([{FORMULA_CHARACTERS}])'

_BEGINS, _SPLITS = re.compile(BEGINS), re.compile(SPLITS)


def safe(text: str) -> str:
    """The text with a single quote before each character that could begin a formula."""
    text = _SPLITS.sub(r"\1'\2", text)
    return f"'{text}" if _BEGINS.match(text) else text


def safe_sql(name: str) -> str:
    """SQL that does the same as `safe` with a column."""
    split = f"regexp_replace({name}, '{SPLITS}', '\\1''\\2', 'g')"
    return f"CASE WHEN regexp_matches({name}, '{BEGINS}') THEN '''' || {split} ELSE {split} END"
