"""What the intake's addresses take and answer: their operations, for documents."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from collector.http_protocols import BY_NAME, POSTS
from collector.http_protocols.protocol import Read
from telemetry.codec.record_parser import KEY_FIELD, MAX_ID_CHARACTERS, NAMES
from telemetry.http.operations import Content, Operation, Parameter, choice
from telemetry.model import problems

MAX_KEY_CHARACTERS = 255
MAX_SENDER_CHARACTERS = 64
MAX_NUMBER = 2**53 - 1
"""The bounds of a batch's sender and number, as frames have them, too."""

STORED = "All of it is on disk"

_Digits = Annotated[str, Meta(pattern=r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$")]
_Number = float | _Digits | None
_Latitude = Annotated[float, Meta(ge=-90, le=90)] | _Digits | None
_Longitude = Annotated[float, Meta(ge=-180, le=180)] | _Digits | None
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARACTERS, pattern=r"\S")] | int


class SentRecord(Struct):
    """A record as senders may write it. Whatever else it has becomes one of its attributes."""

    device_id: _Id
    timestamp: str | float | None = None
    latitude: _Latitude = None
    longitude: _Longitude = None
    altitude_m: _Number = None
    speed_kmh: _Number = None
    heading_deg: _Number = None
    accuracy_m: _Number = None
    location: str | None = None
    attributes: dict[str, Any] | None = None


class RefusedRecord(Struct):
    """Why a record was left out: its place from 0, in NDJSON its line from 1."""

    index: int
    field: str | None
    value: Any
    reason: str
    line: int | UnsetType = UNSET


class Accepted(Struct):
    """What was stored. `repeated`, true, is there if the batch was stored before; all else with `on_error=skip`."""

    accepted: int
    refused: int | UnsetType = UNSET
    errors: list[RefusedRecord] | UnsetType = UNSET
    errors_omitted: int | UnsetType = UNSET
    repeated: bool | UnsetType = UNSET


class Alive(Struct):
    """This process answers."""

    status: str


ON_ERROR = choice(
    "on_error", "Refuse a request with a bad record, or leave bad records out.", ("refuse", "skip"), "refuse"
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "Makes a retry safe: the same body under the same key is stored once.",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS},
    str,
    default="",
    place="header",
)
SENDER_ID = Parameter(
    "Sender-Id",
    "Who numbers its batches: text that no other sender has.",
    {"type": "string", "minLength": 1, "maxLength": MAX_SENDER_CHARACTERS, "pattern": "^[!-~]+$"},
    str,
    default="",
    place="header",
)
BATCH_NUMBER = Parameter(
    "Batch-Number",
    "Above those of all batches before of this sender; a batch whose number is not is stored already.",
    {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER},
    int,
    default=0,
    place="header",
)

_BODY = (problems.BODY_TOO_LARGE, problems.UNSUPPORTED_ENCODING, problems.INVALID_ENCODING, problems.INVALID_RECORD)

POST_RECORDS = Operation(
    "POST",
    "/v1/records",
    "post_records",
    "Store records",
    "intake",
    {202: Content(STORED, {"application/json": Accepted})},
    (ON_ERROR, IDEMPOTENCY_KEY, SENDER_ID, BATCH_NUMBER),
    Content(
        "Records. Names of fields may be written in any case. Other names of fields: "
        + ", ".join(f"`{name}` is `{field}`" for name, field in NAMES.items() if name != field)
        + f"; `{KEY_FIELD}` may hold the key.",
        {
            "application/json": SentRecord | list[SentRecord],
            "application/x-ndjson": {"type": "string"},
            "application/msgpack": {"type": "string"},
        },
    ),
    problems=(
        *_BODY,
        problems.INVALID_PARAMETER,
        problems.INVALID_JSON,
        problems.INVALID_MSGPACK,
        problems.UNSUPPORTED_TYPE,
        problems.DEVICE_REFUSED,
        problems.KEY_REUSED,
        problems.SHARE_FULL,
        problems.TOO_MANY_DAYS,
    ),
    description="Bodies may be compressed with gzip, deflate or zstd, as `Content-Encoding` says.",
)

HEALTHZ = Operation(
    "GET",
    "/healthz",
    "get_healthz",
    "Whether the process lives",
    "box",
    {200: Content("It does", {"application/json": Alive})},
)


_ANSWERS: dict[str, dict[int, Content]] = {
    "osmand": {200: Content(STORED, {})},
    "owntracks": {200: Content(STORED, {"application/json": {"type": "array", "items": {}}})},
    "traccar": {200: Content(STORED, {})},
    "influx": {
        204: Content(STORED, {}),
        400: Content("Which lines can't be taken; the others are on disk", {"application/json": {"type": "object"}}),
    },
    "query": {200: Content("The database is there", {"application/json": {"type": "object"}})},
    "ping": {204: Content("There is one", {})},
}
"""Protocol, or what else its clients ask → what they hear."""

SENT = "What the protocol's clients send"
_BYTES: dict[str, Any] = {"application/octet-stream": {"type": "string", "format": "binary"}}
_BODIES: dict[str, dict[str, Any]] = {name: {"application/json": {}} for name in ("owntracks", "traccar")}
"""Protocol → its bodies, where they are not just bytes. Generators of clients know no `*/*`."""

_NAMES = {read: name for name, read in BY_NAME.items()}


def _of_post(method: str, path: str, read: Read) -> Operation:
    about, name = sys.modules[read.__module__].__doc__ or "", _NAMES.get(read, read.__name__)
    return Operation(
        method,
        path,
        f"{method.lower()}{path.replace('/', '_')}",
        f"Records by {name}",
        "other protocols",
        _ANSWERS[name],
        body=Content(SENT, _BODIES.get(name, _BYTES), is_required=False) if method == "POST" else None,
        problems=_BODY,
        description=" ".join(about.partition("\n\n")[0].split()),
    )


OPERATIONS = (
    POST_RECORDS,
    *(_of_post(method, path, read) for path, read in POSTS.items() for method in ("GET", "POST")),
    HEALTHZ,
)
"""All of them."""
