"""An entry of the audit log: actor, action, address and outcome, as one line of JSON."""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec
from msgspec import Struct

from telemetry.access.users import KEY_ID
from telemetry.model.api_keys import CERTIFICATE_ID, Caller, redacted
from telemetry.model.utc import TimeText, iso

MAX_LINE_BYTES = 4_096
MAX_TEXT_CHARACTERS = 500
MAX_DETAIL_CHARACTERS = 2_000
ID_BYTES = 8

Outcome = Literal["begun", "done", "failed", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("begun", "done", "failed", "refused")
ActorKind = Literal["key", "certificate", "user", "local", "program", "anonymous"]


class Actor(Struct, frozen=True, omit_defaults=True):
    """The origin of an action: a key by its id, a client certificate by its device, a user of the page or the machine
    (`uid:login`), a program, or an anonymous client.
    """

    kind: ActorKind
    id: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.id}".rstrip()


ANONYMOUS = Actor("anonymous")


def actor_of(caller: Caller) -> Actor:
    """The actor of an HTTP request or a TCP connection."""
    if caller.session:
        return Actor("user", caller.key_id.removeprefix(KEY_ID))
    if caller.key_id.startswith(CERTIFICATE_ID):
        return Actor("certificate", caller.key_id.removeprefix(CERTIFICATE_ID))
    return Actor("key", caller.key_id) if caller.key_id else ANONYMOUS


class Entry(Struct, frozen=True, omit_defaults=True):
    """A line. A change has two with the same `id`: `begun`, synced before the change is made, then its outcome.

    `at` is UTC with six digits of fraction, so that texts sort by time. An entry for rejections stands for `count` of
    them, the first at `since`, the last at `until`.
    """

    at: TimeText
    id: str
    program: str
    action: str
    outcome: Outcome
    actor: Actor
    address: str = ""
    target: str = ""
    device: str = ""
    status: int = 0
    count: int = 1
    since: str = ""
    until: str = ""
    details: dict[str, Any] = {}

    @property
    def place(self) -> str:
        """Position in the order of all entries; used as a cursor."""
        return f"{self.at}/{self.id}/{self.outcome}"


def new_id() -> str:
    """A random id for a change."""
    return secrets.token_hex(ID_BYTES)


def moment(at_s: float) -> str:
    """2026-12-02T08:50:00.000000Z of s since the epoch."""
    return iso(round(at_s * 1e6))


def line_of(entry: Entry) -> bytes:
    """The line, at most `MAX_LINE_BYTES` long: texts chosen by senders are shortened, then details are dropped. Secrets
    of keys are removed; their ids remain.
    """
    fields = {name: cut(value, MAX_TEXT_CHARACTERS) for name, value in _texts(entry)}
    details = {name: cut(value, MAX_DETAIL_CHARACTERS) for name, value in entry.details.items()}
    line = msgspec.json.encode(msgspec.structs.replace(entry, **fields, details=details))
    if len(line) >= MAX_LINE_BYTES:
        fields = {name: cut(value, 100) for name, value in _texts(entry)}
        shorter = {"left_out": ", ".join(list(details)[:20])[:200]}
        line = msgspec.json.encode(msgspec.structs.replace(entry, **fields, details=shorter))
    return redacted(line) + b"\n"


def _texts(entry: Entry) -> list[tuple[str, str]]:
    return [(name, getattr(entry, name)) for name in ("action", "address", "target", "device")]


def cut(value: Any, most: int) -> Any:
    """The value shortened to `most` characters that JSON can carry; values other than text are unchanged."""
    if not isinstance(value, str):
        return value
    text = value if len(value) <= most else value[: most - 1] + "…"
    return text.encode("utf-8", "replace").decode()
