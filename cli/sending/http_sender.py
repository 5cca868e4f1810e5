"""Batches over HTTP: one POST each, on one connection, sent again under the same key until it is answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import httpx
import msgspec

from cli.sending.sender import Accepted, Answer, Batch, Busy, Patience, Refused, Tally, json_array, settle
from telemetry.model.errors import ConfigError

PATH = "/v1/records"

TIMEOUT_S = 30.0
"""Seconds that an answer may take until the batch is sent again; a group commit takes milliseconds."""

MAX_RETRY_AFTER_S = 3_600.0
"""Longest pause that an answer can ask for."""

MAX_VALUE_CHARACTERS = 80
"""How much of a refused value is shown."""


class HttpSender:
    """A `Sender` that has each batch answered before the next."""

    def __init__(self, client: httpx.Client, patience: Patience, tally: Tally, new_key: Callable[[], str]) -> None:
        self._client = client
        self._patience = patience
        self._tally = tally
        self._new_key = new_key
        self._pending: deque[Batch] = deque()

    def send(self, batch: Batch) -> None:
        """Send a batch until each of its records is accepted or refused."""
        self._pending.append(batch)
        while self._pending:
            answer = self._deliver(self._pending[0])
            again = settle(self._pending.popleft(), answer, self._tally)
            self._pending.extendleft(reversed(again))

    def finish(self) -> None:
        """Nothing is ever left unanswered."""

    def unanswered(self) -> Iterable[Batch]:
        """The batch that the collector wouldn't answer, and what is left of a refused one."""
        return self._pending

    def close(self) -> None:
        """Leave the connection."""
        self._client.close()

    def _deliver(self, batch: Batch) -> Accepted | Refused:
        headers = {"Content-Type": "application/json", "Idempotency-Key": self._new_key()}
        body = json_array(batch)
        while True:
            answer = self._post(body, headers)
            if not isinstance(answer, Busy):
                self._patience.succeeded()
                return answer
            self._patience.failed(answer.reason, answer.retry_after_s)

    def _post(self, body: bytes, headers: dict[str, str]) -> Answer:
        try:
            return read_answer(self._client.post(PATH, content=body, headers=headers))
        except httpx.RequestError as error:
            return Busy(f"cannot send to {self._client.base_url}: {error or type(error).__name__}")


class _Receipt(msgspec.Struct):
    accepted: int


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""
    reason: str = ""
    field: str | None = None
    value: object = None
    index: int | None = None


def read_answer(response: httpx.Response) -> Answer:
    """What a response to a POST means. Raises `ConfigError` if no collector would answer so."""
    status = response.status_code
    if status == httpx.codes.ACCEPTED:
        try:
            return Accepted(msgspec.json.decode(response.content, type=_Receipt).accepted)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot use {response.url}: answered 202 without `accepted`: {error}") from None
    problem = _read_problem(response)
    is_of_a_record = status == httpx.codes.FORBIDDEN and problem.index is not None
    if is_of_a_record or status in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE):
        return Refused(describe(problem), problem.index)
    if status >= 500 or status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS):
        return Busy(f"{response.url} answered {status}: {describe(problem)}", retry_after_s(response))
    raise ConfigError(f"cannot use {response.url}: answered {status}: {describe(problem)}")


def describe(problem: _Problem) -> str:
    """A problem in one sentence."""
    reason = problem.reason or problem.detail or problem.title
    if problem.field is None:
        return reason
    if problem.value is None:
        return f"{problem.field}: {reason}"
    return f"{problem.field}: {reason} (sent: {repr(problem.value)[:MAX_VALUE_CHARACTERS]})"


def retry_after_s(response: httpx.Response) -> float:
    """The seconds of `Retry-After`, `MAX_RETRY_AFTER_S` at most; 0 if it is absent or a date, which no box sends."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdecimal() else 0.0


def _read_problem(response: httpx.Response) -> _Problem:
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Problem(title=response.reason_phrase or "no reason given")
