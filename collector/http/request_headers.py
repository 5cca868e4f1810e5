"""What a request says of its body, and the body itself: read, bounded, inflated."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from starlette.requests import Request

from collector.http.openapi import MAX_KEY_CHARACTERS, MAX_NUMBER, MAX_SENDER_CHARACTERS, ON_ERROR, POST_RECORDS
from collector.http.record_body import Form, form_of
from collector.ingest.arriving_bytes import Arriving, Upload
from telemetry.config.settings import Settings
from telemetry.http.authentication import caller_of
from telemetry.http.content_encoding import DECODERS, inflate
from telemetry.http.operations import names
from telemetry.http.problem_responses import ProblemError, invalid_parameter, refuse_unknown
from telemetry.limits.client_address import owner
from telemetry.model import problems
from telemetry.model.errors import EncodingFault, TooLarge

T = TypeVar("T")

LARGE_BODY_BYTES = 64 * 2**10
"""A body from this size on is decoded in a thread, so that short requests need not wait for it."""

CLOSE = {"Connection": "close"}
NO_ROOM = {"Retry-After": "1", **CLOSE}

ENCODINGS = ", ".join(DECODERS)
FORM_NAMES = "application/json, application/x-ndjson, application/msgpack"


class HttpLimits(NamedTuple):
    """What one request may cost, what all may, and how long an Idempotency-Key is remembered."""

    max_body_bytes: int
    max_records: int
    key_s: int
    arriving: Arriving

    @classmethod
    def of(cls, settings: Settings) -> HttpLimits:
        c = settings.collector
        return cls(c.max_body_bytes, c.max_request_records, c.idempotency_seconds, Arriving(c.max_pending_bytes))


# The head --------------------------------------------------------------------------------------------


class Head(NamedTuple):
    """What a request says of its body.

    `encoding` is "" for a body as it is, `key` "" for none; `skips` means that bad records are left out. A batch of a
    `sender` that names itself has a `number` from 1 on.
    """

    form: Form
    encoding: str
    skips: bool
    key: str
    sender: str = ""
    number: int = 0


def read_head(request: Request) -> Head:
    """Raises `ProblemError` for what is not taken."""
    refuse_unknown(request, names(POST_RECORDS.parameters))
    skips, key = ON_ERROR.of(request) == "skip", _idempotency_key(request)
    return Head(_form(request), read_encoding(request), skips, key, *_numbered(request, skips or bool(key)))


def _form(request: Request) -> Form:
    kind = request.headers.get("content-type", "")
    form = form_of(kind)
    if form is None:
        name = kind.partition(";")[0].strip().lower()
        raise ProblemError(problems.UNSUPPORTED_TYPE, f"send {FORM_NAMES}, not {name}", {"Accept": FORM_NAMES})
    return form


def read_encoding(request: Request) -> str:
    """How the body is compressed; empty if it isn't. Raises `ProblemError` for a way that is not taken."""
    name = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in DECODERS:
        detail = f"send the body as it is, or in one of {ENCODINGS}; not {name}"
        raise ProblemError(problems.UNSUPPORTED_ENCODING, detail, {"Accept-Encoding": ENCODINGS})
    return name


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        detail = f"Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} characters"
        raise ProblemError(problems.INVALID_PARAMETER, detail, parameter="Idempotency-Key")
    return key


def _numbered(request: Request, is_otherwise: bool) -> tuple[str, int]:
    """The sender of a batch and its number; `is_otherwise` where the request asks for what can't be beside them."""
    sender, number = request.headers.get("sender-id"), request.headers.get("batch-number")
    if sender is None and number is None:
        return "", 0
    if not re.fullmatch(r"[!-~]+", sender or "") or len(sender or "") > MAX_SENDER_CHARACTERS:
        raise invalid_parameter("Sender-Id", f"must be 1 to {MAX_SENDER_CHARACTERS} visible characters of ASCII")
    if not (re.fullmatch(r"[0-9]{1,16}", number or "") and 1 <= int(number or "") <= MAX_NUMBER):
        raise invalid_parameter("Batch-Number", "must be a whole number from 1 to 2^53 - 1")
    if is_otherwise:
        raise invalid_parameter("Batch-Number", "can't be beside an Idempotency-Key or on_error=skip")
    return sender or "", int(number or "")


# The body --------------------------------------------------------------------------------------------


class Incoming:
    """The body of one request, which counts from its first byte until `let_go`, or until this is left."""

    def __init__(self, request: Request, limits: HttpLimits) -> None:
        self.limits = limits
        self._request = request
        self._upload = _upload(request)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.let_go()

    async def read(self, encoding: str) -> bytes:
        """The body, inflated if it has an encoding; it counts while it waits for a thread. Raises `ProblemError`."""
        raw = await _read_body(self._request, self.limits, self._upload)
        self._keep(len(raw))
        body = await inflated(raw, encoding, self.limits.max_body_bytes)
        self._keep(len(body))
        return body

    def _keep(self, size_bytes: int) -> None:
        if size_bytes and not self.limits.arriving.keep(self._upload, size_bytes):
            raise ProblemError(problems.BUSY, "more bodies are arriving than may", NO_ROOM)

    def let_go(self) -> None:
        """Count it no more: the intake does, or nobody needs it."""
        self.limits.arriving.hold(self._upload, 0)


async def read_body(request: Request, limits: HttpLimits) -> bytes:
    """The whole body as it is sent, within its size; telemetry/http/connection.py bounds its time."""
    upload = _upload(request)
    try:
        return await _read_body(request, limits, upload)
    finally:
        limits.arriving.hold(upload, 0)


async def _read_body(request: Request, limits: HttpLimits, upload: Upload) -> bytes:
    too_large = ProblemError(problems.BODY_TOO_LARGE, f"a body may have {limits.max_body_bytes} bytes", CLOSE)
    if int(request.headers.get("content-length") or 0) > limits.max_body_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.max_body_bytes:
                raise too_large
            if not limits.arriving.hold(upload, size):
                raise ProblemError(problems.BUSY, "more bodies are arriving than may", NO_ROOM)
            chunks.append(chunk)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not upload.is_given_up or task is None or task.uncancel():  # somebody else wants the task to end, too
            raise
        raise ProblemError(
            problems.BUSY, "given up: others need the room, and this body came slowly", NO_ROOM
        ) from None
    return b"".join(chunks)


def _upload(request: Request) -> Upload:
    """A body that is about to be read in the task that runs now."""
    task = asyncio.current_task()
    address = request.client.host if request.client else ""
    return Upload(sender(address, caller_of(request.scope).key_id), task.cancel if task else str)


def sender(address: str, key_id: str = "") -> str:
    """What is counted as one sender of bodies: an address with a key, or without."""
    return f"{owner(address)} {key_id}"


async def off_loop(size_bytes: int, work: Callable[[], T]) -> T:
    """Do `work` in a thread if it is large."""
    return await asyncio.to_thread(work) if size_bytes >= LARGE_BODY_BYTES else work()


async def inflated(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    """What a body holds, within the same size."""
    if not encoding:
        return raw
    try:
        return await asyncio.to_thread(inflate, raw, encoding, max_bytes)  # what is small may inflate to much
    except EncodingFault as fault:
        raise ProblemError(problems.INVALID_ENCODING, str(fault)) from None
    except TooLarge as error:
        raise ProblemError(problems.BODY_TOO_LARGE, str(error)) from None
