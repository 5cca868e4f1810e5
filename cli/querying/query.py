"""`whimbrel latest` and `whimbrel history`: questions to the API, printed page by page as the answers come."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from urllib.parse import quote

import httpx
import msgspec

from api.formats.spreadsheet import safe
from cli import arguments
from cli.command import FAILED, OK, Command
from cli.http_client import add_ca_file, client, trusted
from cli.key_argument import add_key_argument, given_key
from cli.stdout import output, print_json
from telemetry.config.settings import Settings
from telemetry.config.urls import api_url
from telemetry.model.errors import BusyError, SenderError
from telemetry.model.terminal_text import printable, printable_json
from telemetry.model.utc import to_second

PAGE_RECORDS = 5_000
"""Records in one answer of history: enough that the way there hardly counts, few enough to come at once."""

NAMED_AT_ONCE = 50
"""Devices in one question for latest: 255 characters each, percent-encoded, must fit into a request line."""

TIMEOUT_S = 60.0
"""Longer than the API lets a query run, so that its own reason is heard."""

COLUMNS = (
    "device_id",
    "timestamp",
    "latitude",
    "longitude",
    "altitude_m",
    "speed_kmh",
    "heading_deg",
    "accuracy_m",
    "location",
    "attributes",
    "transport",
    "source",
    "received_at",
    "id",
)
"""Columns of history's table."""

LATEST_LINE = "{:<20}  {:<20}  {:>11}  {:>11}  {:>7}  {:>8}"
LATEST_HEADER = LATEST_LINE.format("device", "time", "latitude", "longitude", "km/h", "age")

AGES = ((86_400, "d"), (3_600, "h"), (60, "min"))
"""Units of an age in seconds, each used from twice itself on."""

Params = list[tuple[str, str | int | float | bool | None]]
"""Parameters of a question, as httpx wants them."""


class Fix(msgspec.Struct):
    """A record, as far as it says where a device was."""

    timestamp: str
    latitude: float | None = None
    longitude: float | None = None


class Latest(Fix, kw_only=True):
    """A device's newest record, as far as the table shows it, and its newest with a fix."""

    device_id: str
    speed_kmh: float | None = None
    position: Fix | None = None


class _Page(msgspec.Struct):
    records: list[msgspec.Raw]
    next_cursor: str | None = None


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


def add_latest_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `latest`."""
    parser.add_argument("device", metavar="DEVICE", nargs="*", help="these devices only (else all)")
    _add_common_arguments(parser)


def add_history_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `history`."""
    add = parser.add_argument
    add("device", metavar="DEVICE", nargs="*", help="these devices only (else all)")
    add("--start", metavar="TIME", help="from this instant on: ISO 8601, epoch seconds, or a date for its whole day")
    add("--end", metavar="TIME", help="before this instant; a date includes its day")
    add("--order", choices=("asc", "desc"), default="asc", help="by time (default: asc)")
    add("--csv-safe", action="store_true", help="put a quote in front of texts that spreadsheets would run as formulas")
    add("--limit", type=arguments.count, metavar="RECORDS", help="no more than these (else all)")
    _add_common_arguments(parser)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", type=arguments.url, help="the API (else by api.host and api.port)")
    add_ca_file(parser)
    add_key_argument(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with all fields")


def run_latest(args: argparse.Namespace, settings: Settings) -> int:
    """Print the newest record of each device; 0 unless a named one is unknown."""
    unknown = dict.fromkeys(args.device)
    with _open(args, settings) as api, output():
        for place, record in enumerate(ask_latest(api, args.device)):
            if place == 0 and not args.json:
                print(LATEST_HEADER)
            latest = msgspec.json.decode(record, type=Latest)
            unknown.pop(latest.device_id, None)
            if args.json:
                print_json(bytes(record))
            else:
                print(latest_line(latest, time.time()))
    for device in unknown:
        print(f"whimbrel latest: no record of device {device!r}", file=sys.stderr)
    return FAILED if unknown else OK


def ask_latest(api: httpx.Client, devices: list[str]) -> Iterator[msgspec.Raw]:
    """The newest records of the devices named, or of all."""
    if len(devices) == 1:
        path = quote(devices[0], safe="").replace(".", "%2E")  # a device `..` must not lead up the path
        yield msgspec.Raw(ask(api, f"/v1/devices/{path}/latest", []))
        return
    for first in range(0, max(1, len(devices)), NAMED_AT_ONCE):
        yield from pages(api, "/v1/latest", _named(devices[first : first + NAMED_AT_ONCE]))


def latest_line(latest: Latest, now: float) -> str:
    """One line of the table. Coordinates of an older record than the rest are marked with its time."""
    fix = latest if latest.latitude is not None else latest.position or latest
    line = LATEST_LINE.format(
        printable(latest.device_id),
        to_second(latest.timestamp),
        _cell(fix.latitude),
        _cell(fix.longitude),
        _cell(latest.speed_kmh),
        age(now - datetime.fromisoformat(latest.timestamp).timestamp()),
    )
    return line if fix.timestamp == latest.timestamp else f"{line}  position of {to_second(fix.timestamp)}"


def age(seconds: float) -> str:
    """An age in a unit that suits it; below 0 if the device's clock runs ahead."""
    for length, unit in AGES:
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cell(number: float | None) -> str:
    return "-" if number is None else f"{number:.10g}"


def run_history(args: argparse.Namespace, settings: Settings) -> int:
    """Print all records of a range, as CSV or JSON."""
    with _open(args, settings) as api, output():
        page_records = min(PAGE_RECORDS, settings.api.max_page_records)
        records = pages(api, "/v1/records", history_params(args), page_records, args.limit)
        if args.json:
            for record in records:
                print_json(bytes(record))
        else:
            write_csv(records, args.csv_safe, sys.stdout.isatty())
    return OK


def history_params(args: argparse.Namespace) -> Params:
    """What `/v1/records` is asked, but for the page."""
    filters = (("start", args.start), ("end", args.end), ("order", args.order))
    return _named(args.device) + [(name, value) for name, value in filters if value is not None]


def write_csv(records: Iterable[msgspec.Raw], is_safe: bool = False, is_terminal: bool = False) -> None:
    """A header and a line a record; what is null is empty, attributes are JSON.

    With `is_safe` no text is a spreadsheet's formula; on a terminal none commands it.
    """
    write_row(COLUMNS)
    for record in records:
        fields: dict[str, object] = msgspec.json.decode(record, type=dict[str, object])
        fields["attributes"] = msgspec.json.encode(fields.get("attributes") or {}).decode()
        if is_terminal:
            fields["attributes"] = printable_json(str(fields["attributes"]))
            fields = {name: _changed(value, printable) for name, value in fields.items()}
        if is_safe:
            fields = {name: _changed(value, safe) for name, value in fields.items()}
        write_row([fields.get(name) for name in COLUMNS])


def write_row(cells: Iterable[object]) -> None:
    """A line of CSV. The module quotes what holds a part of its own line end: of LF alone it would leave a CR bare."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    sys.stdout.write(line.getvalue().removesuffix("\r\n") + "\n")


def _changed(value: object, change: Callable[[str], str]) -> object:
    return change(value) if isinstance(value, str) else value


def pages(
    api: httpx.Client, path: str, params: Params, page_records: int | None = None, limit: int | None = None
) -> Iterator[msgspec.Raw]:
    """All records of an answer, or the first `limit`, asked for page by page."""
    left = sys.maxsize if limit is None else limit
    cursor: Params = []
    while left > 0:
        size: Params = [] if page_records is None else [("limit", min(page_records, left))]
        page = msgspec.json.decode(ask(api, path, params + size + cursor), type=_Page)
        yield from page.records
        left -= len(page.records)
        if page.next_cursor is None:
            return
        cursor = [("cursor", page.next_cursor)]


def ask(api: httpx.Client, path: str, params: Params) -> bytes:
    """The body of a good answer. Raises `SenderError` if the question is to blame, else `BusyError`."""
    try:
        response = api.get(path, params=params)
    except httpx.RequestError as error:
        raise BusyError(f"cannot ask {api.base_url}: {error or type(error).__name__}; is Whimbrel up?") from None
    if response.status_code == httpx.codes.OK:
        return response.content
    text = f"{_reason(response)} ({response.status_code})"
    raise BusyError(text) if response.status_code >= 500 else SenderError(text)


def _reason(response: httpx.Response) -> str:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except ValueError:
        problem = _Problem()
    return problem.detail or problem.title or f"cannot use {response.url}"


def _named(devices: list[str]) -> Params:
    return [("device_id", device) for device in devices]


def _open(args: argparse.Namespace, settings: Settings) -> httpx.Client:
    tls = trusted(args, settings, is_own=not args.url)
    return client(args.url or api_url(settings), TIMEOUT_S, tls, given_key(args))


LATEST = Command("Print the newest record of each device, or of those named.", add_latest_arguments, run_latest)
HISTORY = Command("Print the records of a range, of all devices or those named.", add_history_arguments, run_history)
