"""Makes untrusted text safe to print on a terminal: control characters are escaped.

Senders choose ids, attributes and reasons. An escape sequence in such a text can move the cursor, overwrite earlier
output, or set the clipboard; a bidirectional override can disguise a name as another.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, keeps_lines: bool = False) -> str:
    """The text with each unsafe character replaced by an escape, such as `\\x1b`.

    Unsafe are control characters (C0, C1, DEL), bidirectional overrides and other invisible characters, line
    separators, spaces other than U+0020, lone surrogates, and unassigned code points. With `keeps_lines` line breaks
    are kept.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or (keeps_lines and character == "\n") else _escape(character)
        for character in text
    )


def printable_json(text: str) -> str:
    """`printable` for JSON text. The result has the same value: such characters occur only in strings."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else _json_escape(character) for character in text
    )


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))
