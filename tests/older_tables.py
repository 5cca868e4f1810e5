"""The tables in `tests/data/older/` as cases: requests to the legacy service's addresses, and their responses.

Texts may hold `<1>`, `<2>` … (the columns of a row of `rows`), `<#>` (the row's number), `<x*255>` (a character so
many times), `<3 x a>` (a,a,a), and `<today>`, `<day>`, `<dd>`, `<monthname>` of the UTC day. Expected texts may also
hold `<id>` (digits), `<now>` (a timestamp) and `<any>`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent / "data" / "older"
FILES = ("common", "post", "lists", "latest", "tcp", "pages", "clients", "accidents", "added")
HEADERS: dict[str, dict[str, str]] = tomllib.loads((FOLDER / "headers.toml").read_text())

_WILD = {"<id>": r"\d+", "<now>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z", "<any>": ".*"}
_TODAY = re.compile("<(today|day|dd|monthname)>")
_REPEATED = re.compile(r"<(.)\*(\d+)>", re.DOTALL)
_LISTED = re.compile(r"<(\d+) x (.*?)>")
_COLUMN = re.compile(r"<([1-9#])>")
_RANGE = re.compile(r"([a-z]+)(\d+)\.\.[a-z]+(\d+)")

SETS = {
    "tracking": '{{"id":<id>,"device_id":"{device}","timestamp":"{at}","location":"{location}","speed":"1.00"}}',
    "tcp_tracking": '{{"device_id":"{device}","location":"{location}","speed":1.0,"timestamp":"{at}"}}',
}
"""The two sets, and how each shows a record of a rule."""

SENT = '{{"device_id":"{device}","location":"{location}","speed":1,"timestamp":"{at}"}}'


class Http(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request over HTTP and its answer. A header that is false is not sent, or must not come."""

    request: str
    headers: dict[str, str | bool] = {}
    body: str = ""
    body_hex: str = ""
    chunks: list[str] = []
    status: int
    kind: str = "json"
    expect: dict[str, str | bool] = {}
    answer: str = "<any>"
    json: dict[str, str] = {}


class Tcp(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Packets on a connection of their own, and all that comes back. `late` is sent when the answer is out."""

    send: list[str] = []
    send_hex: str = ""
    half_close: bool = False
    silent_s: float = 0.0
    late: str = ""
    answer: str


class Case(msgspec.Struct, kw_only=True):
    """One entry of a table. `http` and `tcp` are records that are there before."""

    name: str
    http: list[str] = []
    tcp: list[str] = []
    exchanges: list[Http | Tcp]
    names_today: bool

    @property
    def reads_records(self) -> bool:
        """Whether it only reads, and what was there before."""
        only_reads = all(isinstance(one, Http) and one.request.startswith("GET") for one in self.exchanges)
        return only_reads and bool(self.http or self.tcp)


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One row of the lists' rules, which both sets keep (see lists.toml). `next` and `previous`: empty for null."""

    name: str
    sent: list[str] = []
    times: int = 1
    ask: str
    headers: dict[str, str] = {}
    kind: str = "json"
    status: int = 200
    count: int | None = None
    next: str = ""
    previous: str = ""
    found: list[str] = []
    answer: str | None = None


def cases(today: date) -> Iterator[Case]:
    """All cases of all tables."""
    for file in FILES:
        table = tomllib.loads((FOLDER / f"{file}.toml").read_text())
        entries = [_with_default(entry, table.get("default", {})) for entry in table.get("case", [])]
        rules = [msgspec.convert(row, Rule) for entry in table.get("rule", []) for row in _rows(entry)]
        entries += [_as_case(rule, set_) for rule in rules for set_ in SETS]
        yield from (_case(file, row, today) for entry in entries for row in _rows(entry))


def matches(expected: str, got: str) -> bool:
    """True if an answer matches a text with `<id>`, `<now>` and `<any>`."""
    parts = re.split("(<id>|<now>|<any>)", expected)
    return re.fullmatch("".join(_WILD.get(part) or re.escape(part) for part in parts), got, re.DOTALL) is not None


# From entries to cases -------------------------------------------------------------------------------


def _with_default(entry: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    if entry.keys() & {"send", "send_hex"}:
        return entry
    return {**default, **entry, "headers": {**default.get("headers", {}), **entry.get("headers", {})}}


def _case(file: str, entry: dict[str, Any], today: date) -> Case:
    filled: dict[str, Any] = _each_text(entry, lambda text: _filled(text, today))
    before = {over: filled.pop(over, []) for over in ("http", "tcp")}
    then = filled.pop("then", [])
    filled.pop("name")
    return Case(
        name=f"{file}: {entry['name']}",
        exchanges=[_exchange(one) for one in (filled, *then)],
        names_today=_TODAY.search(str(entry)) is not None,
        **before,
    )


def _exchange(entry: Mapping[str, Any]) -> Http | Tcp:
    return msgspec.convert(entry, Http) if "request" in entry else msgspec.convert(entry, Tcp)


def _rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An entry for each of its rows, the columns put in their places."""
    rows = entry.get("rows", [[]])
    bare = {key: value for key, value in entry.items() if key != "rows"}
    for number, row in enumerate(rows, 1):
        columns = {"#": number, **{str(at): value for at, value in enumerate(row, 1)}}
        yield _each_text(bare, functools.partial(_with_columns, columns))


def _with_columns(columns: Mapping[str, Any], text: str) -> Any:
    whole = _COLUMN.fullmatch(text)
    if whole:
        return columns.get(whole[1], text)
    return _COLUMN.sub(lambda found: str(columns.get(found[1], found[0])), text)


def _filled(text: str, today: date) -> str:
    named = {"today": f"{today}", "day": f"{today.day}", "dd": f"{today:%d}", "monthname": f"{today:%B}"}
    text = _TODAY.sub(lambda found: named[found[1]], text)
    text = _REPEATED.sub(lambda found: found[1] * int(found[2]), text)
    return _LISTED.sub(lambda found: ",".join([found[2]] * int(found[1])), text)


def _each_text(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _each_text(one, change) for key, one in value.items()}
    return value


# From rules to entries -------------------------------------------------------------------------------


def _as_case(rule: Rule, set_: str) -> dict[str, Any]:
    records = [record for line in rule.sent for record in _records(line, rule.times)]
    path = f"/{set_}/data/list/"
    sent = [SENT.format(**record) for record in records]
    answer = _listed(rule, set_, path, records) if rule.answer is None else rule.answer
    return {
        "name": f"{rule.name} ({set_})",
        "http" if set_ == "tracking" else "tcp": sent,
        "request": f"GET {path}?{rule.ask}",
        "headers": rule.headers,
        "kind": rule.kind,
        "status": rule.status,
        "answer": answer,
    }


def _records(line: str, times: int) -> Iterator[dict[str, str]]:
    at, location, *device = line.split(" ", 2)
    for n in range(times):
        moment = at if times == 1 else f"{datetime.fromisoformat(at) + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}"
        place = location if times == 1 else f"{location}{n}"
        yield {"at": moment, "location": place, "device": device[0] if device else "list"}


def _listed(rule: Rule, set_: str, path: str, records: list[dict[str, str]]) -> str:
    by_location = {record["location"]: record for record in records}
    found = [by_location[name] for part in rule.found for name in _names(part)]
    count = len(found) if rule.count is None else rule.count
    links = [f'"http://localhost:8000{path}{link}"' if link else "null" for link in (rule.next, rule.previous)]
    results = ",".join(SETS[set_].format(**record) for record in found)
    return f'{{"count":{count},"next":{links[0]},"previous":{links[1]},"results":[{results}]}}'


def _names(part: str) -> list[str]:
    """n3..n1 is n3, n2, n1."""
    found = _RANGE.fullmatch(part)
    return [f"{found[1]}{n}" for n in range(int(found[2]), int(found[3]) - 1, -1)] if found else [part]
