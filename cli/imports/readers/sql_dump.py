"""What mysqldump and mariadb-dump write: the rows of tables that hold positions, as the statements give them.

Of each `CREATE TABLE` the columns are kept in their order, of each `INSERT` or `REPLACE` the rows, one or many a
statement; everything else is passed over. A table holds positions if it has the columns `device_id` and `timestamp`,
by these names or by `--map`. The older service has two of them, with `location` and `speed`: what came by HTTP, and
what came by TCP, which its name says. Their rows keep that as their transport.

Grammar: https://dev.mysql.com/doc/refman/8.4/en/string-literals.html and …/insert.html; dumps turn
`NO_BACKSLASH_ESCAPES` off.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cli.imports.rows.column_parser import Rows
from cli.imports.rows.reader import Piece, Pieces, Refused
from cli.imports.rows.row_parser import Judge
from cli.imports.rows.source import Source
from telemetry.codec.record_parser import field_of
from telemetry.model.errors import SenderError

MAX_ROW_BYTES = 8 * 2**20
"""Longest row of a table with positions. A record has a MiB at most, and what is escaped takes twice that."""

OLDER = frozenset(("device_id", "timestamp", "location", "speed"))
"""The columns by which the older service's tables are known."""

_STRING = rb"'(?:[^'\\]++|\\.|'')*+'"
_NAME = rb"`(?:[^`]|``)++`|\w++"
_QUOTED = rb"\"(?:[^\"\\]++|\\.|\"\")*+\"|`[^`]*+`"
_COMMENT = rb"--(?=\s)[^\n]*+(?:\n|\Z)|#[^\n]*+(?:\n|\Z)|/\*(?s:.*?)(?:\*/|\Z)"
_BLANK = re.compile(rb"(?:\s++|;|" + _COMMENT + rb")++")
_OTHER = re.compile(
    rb"(?:[^;'\"`/#-]++|"
    + _STRING
    + rb"|"
    + _QUOTED
    + rb"|/\*(?s:.*?)\*/|/(?=[^*])|-(?=[^-]|-\S)|--(?=\s)[^\n]*+\n|#[^\n]*+\n)++",
    re.DOTALL,
)
_DELIMITER = re.compile(rb"DELIMITER\s++(?!;\s)[^\n]*+\n(?s:.*?)\nDELIMITER\s++;[ \t]*+(?:\r?\n|\Z)", re.IGNORECASE)
_IN_BRACKETS = rb"[^'()]++|" + _STRING
_CREATE = re.compile(
    rb"CREATE\s++TABLE\s++(?:IF\s++NOT\s++EXISTS\s++)?("
    + _NAME
    + rb")\s*+\(((?:"
    + _IN_BRACKETS
    + rb"|\((?:"
    + _IN_BRACKETS
    + rb"|\((?:"
    + _IN_BRACKETS
    + rb")*+\))*+\))*+)\)(?:[^';]++|"
    + _STRING
    + rb")*+;",
    re.IGNORECASE | re.DOTALL,
)
_INSERT = re.compile(
    rb"(?:INSERT|REPLACE)\s++(?:(?:LOW_PRIORITY|DELAYED|IGNORE)\s++)*+INTO\s++("
    + _NAME
    + rb")\s*+(?:\(([^()]*+)\)\s*+)?VALUES?\s*+",
    re.IGNORECASE,
)
_ROW = re.compile(rb"\s*+\(((?:[^'()]++|" + _STRING + rb")*+)\)\s*+([,;])", re.DOTALL)
_COLUMN = re.compile(rb"^\s*+`((?:[^`]|``)++)`\s", re.MULTILINE)
_VALUE = re.compile(
    rb"\s*+(?:(NULL)|(?:_\w++\s*+)?'((?:[^'\\]++|\\.|'')*+)'|0x([0-9a-fA-F]*+)|([^,'\s]++))\s*+(?:,|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)
_MEANS = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a", b"%": b"\\%", b"_": b"\\_"}
MAX_HEAD_BYTES = 2**20
"""Longest beginning of a statement, up to its first row."""

MAX_TEXT_BYTES = 128 * 2**20
"""Longest text in quotes of what is passed over: a quote without an end would have all the file read into memory.
MySQL takes 64 MiB at once, escaped twice that."""

_KEYWORD_BYTES = 64
"""So much of a statement tells which it is."""


MAX_SHOWN = 1_000
NOT_DESCRIBED = "its columns are not known, for no CREATE TABLE says them"


class Table(NamedTuple):
    """A table's columns as records call them, None where they are left out; whether it holds positions, and how its
    rows came, if it is one of the older service's."""

    columns: list[str | None]
    is_wanted: bool
    transport: str | None


class _Text:
    """The dump's bytes from where it was read to, as many as are needed."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._blocks = source.blocks()
        self._data = b""
        self._at = 0
        self.is_over = False

    def fill(self) -> bool:
        """Have one more block. False if there is none."""
        block = next(self._blocks, b"")
        self._data = self._data[self._at :] + block
        self._at = 0
        self.is_over = not block
        return bool(block)

    def head(self) -> bytes:
        """The next few bytes."""
        while len(self._data) - self._at < _KEYWORD_BYTES and self.fill():
            pass
        return self._data[self._at : self._at + _KEYWORD_BYTES]

    def take(self, pattern: re.Pattern[bytes], max_bytes: int) -> re.Match[bytes] | None:
        """What matches here, whole: more is read while a match could go on, or while there are not more than
        `max_bytes` that nothing matches. None if nothing does."""
        while True:
            found = pattern.match(self._data, self._at)
            if self.is_over or (found is not None and found.end() < len(self._data)):
                break
            if found is None and len(self._data) - self._at > max_bytes:
                break
            self.fill()
        if found is not None:
            self._at = found.end()
        return found

    def skip(self) -> None:
        """Pass over the rest of a statement, however long it is. Raises `SenderError` at a quote without an end."""
        while True:
            if found := _OTHER.match(self._data, self._at):
                self._at = found.end()
            if self._data[self._at : self._at + 1] == b";":
                self._at += 1
                return
            if len(self._data) - self._at > MAX_TEXT_BYTES:
                raise SenderError(f"cannot read {self._name} on: no end of the text that begins {self.left()!r}")
            if not self.fill():
                self._data, self._at = b"", 0
                return

    def left(self) -> str:
        """The beginning of what is left, for people."""
        return self._data[self._at : self._at + 60].decode(errors="replace")


def read(source: Source, judge: Judge) -> Pieces:
    """See `contract.Reader`. Raises `SenderError` if no table holds positions, or where the dump can't be read on."""
    text, tables = _Text(source), dict[str, Table]()
    counts, unknown = dict[str, int](), set[str]()
    rows, last = Rows(judge, [], None, str), None
    while head := text.head().upper():
        if text.take(_BLANK, 0) or (head.startswith(b"DELIMITER") and text.take(_DELIMITER, MAX_ROW_BYTES)):
            continue
        if head.startswith((b"INSERT", b"REPLACE")) and (insert := text.take(_INSERT, MAX_HEAD_BYTES)):
            name, table = _table(insert, tables, judge)
            if table is None and name not in unknown:
                unknown.add(name)
                yield from rows.rest()
                yield Piece(1, [], [Refused(0, f"`{name}`", NOT_DESCRIBED, None)])
            if table is not None and table.is_wanted:
                if last != (name, table):
                    yield from rows.rest()
                    rows, last = _rows_of(name, table, judge), (name, table)
                yield from _read_rows(text, source, name, len(table.columns), rows, counts)
                continue
        elif head.startswith(b"CREATE") and (create := text.take(_CREATE, MAX_ROW_BYTES)):
            name = _name(create[1])
            tables[name] = _described(name, [_unquoted(column) for column in _COLUMN.findall(create[2])], judge)
            continue
        text.skip()
    yield from rows.rest()
    if not counts:
        _refuse(source, tables)


def _rows_of(name: str, table: Table, judge: Judge) -> Rows:
    came = (table.transport, "older") if table.transport is not None else None
    return Rows(judge, table.columns, None, lambda number: f"`{name}`, row {number}", came=came)


def _refuse(source: Source, tables: dict[str, Table]) -> None:
    wanted = [name for name, table in tables.items() if table.is_wanted]
    if wanted:
        return
    known = f"; its tables are {', '.join(tables)}" if tables else "; it has no CREATE TABLE"
    raise SenderError(f"{source.name}: no table has columns for device_id and timestamp{known}; --map may name them")


def _table(insert: re.Match[bytes], tables: dict[str, Table], judge: Judge) -> tuple[str, Table | None]:
    name = _name(insert[1])
    if insert[2] is None:
        return name, tables.get(name)
    return name, _described(name, [_name(column.strip()) for column in insert[2].split(b",")], judge)


def _described(name: str, columns: list[str], judge: Judge) -> Table:
    names = [judge.name(column) for column in columns]
    fields = {field_of(one) for one in names if one is not None}
    is_wanted = {"device_id", "timestamp"} <= fields
    is_older = is_wanted and OLDER.issubset(columns)
    if is_wanted:
        judge.note(column for column in columns if not (is_older and column == "id"))
    if is_older:
        judge.meanings.note("id", None, is_left_out=True)
        names = [None if one == "id" else one for one in names]
    return Table(names, is_wanted, ("tcp" if "tcp" in name.lower() else "http") if is_older else None)


def _read_rows(text: _Text, source: Source, name: str, columns: int, rows: Rows, counts: dict[str, int]) -> Pieces:
    """The rows of one statement. `counts` numbers a table's rows over all its statements."""
    while True:
        row = text.take(_ROW, MAX_ROW_BYTES)
        if row is None:
            raise SenderError(f"cannot read {source.name} on, in a row of `{name}`: {text.left()!r}")
        counts[name] = counts.get(name, 0) + 1
        values = _values(row[1], source.encoding)
        if values is not None and len(values) == columns:
            rows.add(counts[name], values)
        else:
            told = "can't be read" if values is None else f"{len(values)} values for {columns} columns"
            rows.refuse(counts[name], told, row[1][:MAX_SHOWN].decode(errors="replace"))
        yield from rows.full()
        if row[2] == b";":
            return


def _values(row: bytes, encoding: str) -> list[str | None] | None:
    """The values of a row as text, None for NULL; None if they can't be told apart."""
    values: list[str | None] = []
    at = 0
    for found in _VALUE.finditer(row):
        if found.start() != at:
            return None
        at = found.end()
        null, text, digits, plain = found.groups()
        if text is not None:
            values.append(_text(text).decode(encoding, "surrogateescape"))
        elif digits is not None:
            values.append(
                bytes.fromhex(digits.decode().rjust(len(digits) + len(digits) % 2, "0")).decode(
                    encoding, "surrogateescape"
                )
            )
        else:
            values.append(None if null is not None else plain.decode(encoding, "surrogateescape"))
    return values if at == len(row) else None


def _text(escaped: bytes) -> bytes:
    if b"\\" not in escaped and b"'" not in escaped:
        return escaped
    return _ESCAPED.sub(lambda found: b"'" if found[1] is None else _MEANS.get(found[1], found[1]), escaped)


def _name(quoted: bytes) -> str:
    return _unquoted(quoted[1:-1] if quoted.startswith(b"`") else quoted)


def _unquoted(name: bytes) -> str:
    return name.decode("utf-8", "replace").replace("``", "`")
