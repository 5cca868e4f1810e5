"""Text of strangers as a terminal may show it: no control character reaches it.

Senders choose ids, attributes and reasons. An escape sequence in one of them can move the cursor, rewrite what
stands above, or set the clipboard; a bidirectional override makes a name read as another.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, keeps_lines: bool = False) -> str:
    """The text with an escape, such as `\\x1b`, for each character that does not stand for itself.

    These are control characters (C0, C1, DEL), bidirectional overrides and other invisible ones, line separators,
    spaces other than the usual one, half surrogate pairs, and characters that Unicode does not know. With `keeps_lines`
    line breaks stay.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or (keeps_lines and one == "\n") else _escape(one) for one in text)


def printable_json(text: str) -> str:
    """The same for JSON, which stays JSON of the same value: such characters stand only in its texts."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else _json_escape(one) for one in text)


def _escape(one: str) -> str:
    if one in _SHORT:
        return _SHORT[one]
    code = ord(one)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(one: str) -> str:
    data = one.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))
