"""What a key is: its text, what of it is kept, what it allows and for which devices.

    wk_<id>_<secret>             a key: 8 characters that name it, 26 that prove it (128 random bits), of a-z and 2-7
    wd_<id>_<proof>_<device>     the token of one device, worked out of a fleet's key; the device in base64url

Kept is the SHA-256 of a key's text, never the text. That is enough: nobody tries out 2^128 texts, so nothing is gained
by a slow hash, which each request would wait for. A key that was made for a fleet keeps one thing more, `token_key`, an
HMAC of its text, with which its devices' tokens can be worked out and checked, but not the key itself. So a fleet needs
no table: proof = HMAC-SHA256(token_key, device id), its first 128 bits.

This file knows no clock, randomness, socket, file or Redis.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec import Struct

from telemetry.model import problems
from telemetry.model.errors import WhimbrelError
from telemetry.model.problems import Problem

INGEST, READ, SQL, ADMIN = "ingest", "read", "sql", "admin"
SCOPES = (INGEST, READ, SQL, ADMIN)
"""What may be done with a key: write records; read them, and how the box is; ask in SQL; all of it."""

BOUND = (INGEST, READ, SQL)
"""Scopes that may be bound to devices; an admin's work is on the whole box."""

ID_BYTES, SECRET_BYTES, PROOF_BYTES = 5, 16, 16

KEY_START, TOKEN_START = "wk_", "wd_"
MAX_TEXT_CHARACTERS = 1_500
"""A device's id has 255 characters, each of up to 4 bytes, in base64."""

MAX_ID_CHARACTERS = 255
"""Of a device, as in record_parser.py, which looks for keys among what devices send."""

MAX_BOUND_DEVICES = 1_000
MAX_NAME_CHARACTERS = 100

MAX_REMEMBERED = 4_096
"""Devices whose tokens a process need not work out again; some 300 bytes each."""

_KEY = re.compile(r"wk_([a-z2-7]{8})_[a-z2-7]{26}", re.ASCII)
_TOKEN = re.compile(r"wd_([a-z2-7]{8})_([a-z2-7]{26})_([A-Za-z0-9_-]+)", re.ASCII)
_ANY = re.compile(rb"(w[kd]_[a-z2-7]{8}_)[A-Za-z0-9_-]+")
_SHOWN_ID = re.compile(r"w[kd]_([a-z2-7]{8})_", re.ASCII)
_CONTEXT = b"whimbrel: tokens of a fleet's devices"


class Binding(NamedTuple):
    """For which devices a key is: those named, or those whose id begins so; for all if it says neither."""

    devices: frozenset[str] = frozenset()
    prefix: str = ""

    @property
    def is_bound(self) -> bool:
        """Whether there are devices that it is not for."""
        return bool(self.devices or self.prefix)

    def covers(self, device_id: str) -> bool:
        """Whether it is for a device."""
        return device_id in self.devices if self.devices else device_id.startswith(self.prefix)

    def first_outside(self, device_ids: Iterable[str]) -> tuple[int, str] | None:
        """The first device that it is not for, and its place."""
        if not self.is_bound:
            return None
        return next(((at, one) for at, one in enumerate(device_ids) if not self.covers(one)), None)

    def __str__(self) -> str:
        """In words."""
        if not self.is_bound:
            return "all devices"
        if self.prefix:
            return f"devices whose id begins with {self.prefix!r}"
        return f"device {next(iter(self.devices))!r}" if len(self.devices) == 1 else f"{len(self.devices)} devices"


EVERY_DEVICE = Binding()


class Key(Struct, frozen=True, omit_defaults=True):
    """A key as it is kept. Times are s since epoch; `expires_s` 0 is never. `hash` and `token_key` are in hex."""

    id: str
    hash: str
    scopes: tuple[str, ...]
    created_s: int
    expires_s: int = 0
    devices: tuple[str, ...] = ()
    prefix: str = ""
    name: str = ""
    token_key: str = ""
    revoked_devices: tuple[str, ...] = ()

    @property
    def binding(self) -> Binding:
        """For which devices it is."""
        return Binding(frozenset(self.devices), self.prefix)


CERTIFICATE_ID = "certificate:"
"""Prefix of the device's id that a caller with a client certificate has in the place of a key's."""


class Caller(Struct, frozen=True, gc=False):
    """Who asks, once it is known: by which key, and what that allows. `device` is whose token it was, if it was one.

    If a person asks by a session (access/users.py), `key_id` is "user:" and the name, and `session` the session's id.
    """

    key_id: str
    scopes: frozenset[str]
    binding: Binding = EVERY_DEVICE
    device: str = ""
    expires_s: int = 0
    session: str = ""

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; admin has all."""
        return scope in self.scopes or ADMIN in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether no device is kept from it."""
        return not self.binding.is_bound

    @property
    def realm(self) -> str:
        """What keeps names that bound callers give, of senders and of requests, apart from everybody else's.

        It hangs on the devices, not on the key, so that a device with a new key is still known. Empty if unbound.
        """
        if not self.binding.is_bound:
            return ""
        text = msgspec.json.encode((self.binding.prefix, sorted(self.binding.devices)))
        return hashlib.sha256(text).hexdigest()[:16] + ":"


ANYBODY = Caller("", frozenset(SCOPES))
"""Who asks where no key is required."""

NOBODY = Caller("", frozenset())
"""Who asks without a key, where one is required for more than a glance."""


class Denied(NamedTuple):
    """What is not allowed, and why; `place` is that of the record that it is about, if it is about one."""

    kind: Problem
    reason: str
    place: int | None = None


NO_KEY = Denied(problems.NO_KEY, "send a key, as a Bearer token, as the password of Basic, or as ?token=")
WRONG = Denied(problems.WRONG_KEY, "this key is not known here: it is misspelt, was revoked, or is another box's")
EXPIRED = "this key expired; make a new one with `whimbrel keys create`"
CHANGED = Denied(problems.WRONG_KEY, "what this key allows has changed; ask again")


class InvalidKey(WhimbrelError):
    """A key can't be made so."""


# Making ----------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """What a new key shall be."""

    scopes: tuple[str, ...]
    devices: tuple[str, ...] = ()
    prefix: str = ""
    expires_s: int = 0
    name: str = ""
    is_fleet: bool = False


def make(wish: Wish, now_s: int, random: Callable[[int], bytes]) -> tuple[str, Key]:
    """A new key: its text, which is told once, and what is kept. `random` gives so many bytes that nobody can guess.

    Raises `InvalidKey` for what can't be.
    """
    _check(wish, now_s)
    key_id = _base32(random(ID_BYTES))
    text = f"{KEY_START}{key_id}_{_base32(random(SECRET_BYTES))}"
    scopes = tuple(scope for scope in SCOPES if scope in wish.scopes)
    token_key = _token_key(text).hex() if wish.is_fleet else ""
    devices = tuple(sorted(set(wish.devices)))
    return text, Key(
        key_id, _hash(text).hex(), scopes, now_s, wish.expires_s, devices, wish.prefix, wish.name, token_key
    )


def _check(wish: Wish, now_s: int) -> None:
    unknown = sorted(set(wish.scopes) - set(SCOPES))
    if unknown or not wish.scopes:
        named = f"there is no scope {unknown[0]}" if unknown else "it needs a scope"
        raise InvalidKey(f"cannot make this key: {named}; scopes are {', '.join(SCOPES)}")
    require_valid_binding(wish.scopes, wish.devices, wish.prefix)
    if wish.is_fleet and (wish.devices or SQL in wish.scopes or ADMIN in wish.scopes):
        raise InvalidKey("cannot make this key: a fleet's is for ingest, read or both, of all devices or of a prefix")
    if len(wish.name) > MAX_NAME_CHARACTERS:
        raise InvalidKey(f"cannot make this key: its name may have {MAX_NAME_CHARACTERS} characters")
    if wish.expires_s and wish.expires_s <= now_s:
        raise InvalidKey("cannot make this key: it would have expired already")


def require_valid_binding(scopes: Iterable[str], devices: Sequence[str], prefix: str) -> None:
    """Check to which devices scopes shall be bound, if to any. Raises `InvalidKey`."""
    if devices and prefix:
        raise InvalidKey("cannot make this key: bind it to devices or to a prefix, not to both")
    whole = [scope for scope in scopes if scope not in BOUND]
    if (devices or prefix) and whole:
        raise InvalidKey(
            f"cannot make this key: the scope {whole[0]} can't be bound to devices, it is for the whole box"
        )
    if len(devices) > MAX_BOUND_DEVICES:
        raise InvalidKey(f"cannot make this key: it may name {MAX_BOUND_DEVICES} devices; a prefix takes any number")
    if any(not 0 < len(one) <= MAX_ID_CHARACTERS for one in (*devices, prefix or "-")):
        raise InvalidKey(f"cannot make this key: a device's id has 1 to {MAX_ID_CHARACTERS} characters")


def device_token(fleet_key: str, device_id: str) -> str:
    """The token of a device, worked out of its fleet's key. Raises `InvalidKey` if that is no key."""
    found = _KEY.fullmatch(fleet_key)
    if found is None:
        raise InvalidKey(f"cannot make a device's token: the fleet's key must be like {KEY_START}…")
    if not 0 < len(device_id) <= MAX_ID_CHARACTERS:
        raise InvalidKey(f"cannot make a device's token: its id must have 1 to {MAX_ID_CHARACTERS} characters")
    device = device_id.encode()
    proof = _base32(_proof(_token_key(fleet_key), device))
    return f"{TOKEN_START}{found[1]}_{proof}_{base64.urlsafe_b64encode(device).decode().rstrip('=')}"


# Checking --------------------------------------------------------------------------------------------


def looks_like_key(text: object) -> bool:
    """Whether a text is meant as a key or a device's token, good or bad."""
    return type(text) is str and text.startswith((KEY_START, TOKEN_START))


def key_id_in(text: str) -> str:
    """The id that a key's or a token's text shows, whether it is good or not; empty if it has no such shape."""
    found = _SHOWN_ID.match(text)
    return found[1] if found else ""


def complete_key_id(text: str) -> str:
    """The id in a text that has the whole shape of a key or a token; empty for any other, which cannot be good."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return ""
    found = _KEY.fullmatch(text) or _TOKEN.fullmatch(text)
    return found[1] if found else ""


def hidden(data: bytes) -> bytes:
    """Bytes that people may see: of each key in them only its id is left."""
    return _ANY.sub(rb"\1***", data)


def check(text: str, find: Callable[[str], Key | None], now_s: float) -> Caller | Denied:
    """Who has this text. `find` gives the key of an id. What proves it is compared in constant time."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return WRONG
    if text.startswith(TOKEN_START):
        return _check_token(text, find, now_s)
    shaped = _KEY.fullmatch(text)
    key = find(shaped[1]) if shaped else None
    proves = hmac.compare_digest(_hash(text), bytes.fromhex(key.hash) if key else _NO_HASH)
    if key is None or not proves:
        return WRONG
    return _caller(key, key.binding, "", now_s)


def _check_token(text: str, find: Callable[[str], Key | None], now_s: float) -> Caller | Denied:
    shaped = _TOKEN.fullmatch(text)
    device = _device_of(shaped[3]) if shaped else None
    if shaped is None or device is None:
        return WRONG
    key = find(shaped[1])
    proof = _proof_text(key.token_key if key else _NO_TOKEN_KEY, device)
    proves = hmac.compare_digest(proof, shaped[2].encode())
    if key is None or not key.token_key or not proves or device in key.revoked_devices:
        return WRONG
    if not key.binding.covers(device):
        return WRONG
    return _caller(key, _alone(device), device, now_s)


def _caller(key: Key, binding: Binding, device: str, now_s: float) -> Caller | Denied:
    if 0 < key.expires_s <= now_s:
        return Denied(problems.WRONG_KEY, EXPIRED)
    return Caller(key.id, frozenset(key.scopes), binding, device, key.expires_s)


def withdrawal(key: Key | None, now_s: float) -> Callable[[Caller], Denied | None]:
    """What judges callers that a key admitted earlier: None while it still admits them to the same, else the reason.

    `key` is as it is known now, None if it is gone.
    """
    if key is None:
        return lambda _: WRONG
    if 0 < key.expires_s <= now_s:
        return lambda _: Denied(problems.WRONG_KEY, EXPIRED)
    scopes, binding, revoked = frozenset(key.scopes), key.binding, frozenset(key.revoked_devices)

    def judge(caller: Caller) -> Denied | None:
        if caller.device in revoked:
            return WRONG
        is_bound_alike = binding.covers(caller.device) if caller.device else caller.binding == binding
        return None if is_bound_alike and caller.scopes == scopes else CHANGED

    return judge


@lru_cache(MAX_REMEMBERED)
def _proof_text(token_key: str, device: str) -> bytes:
    """How a device's token must prove itself. To work it out is most of what a check takes."""
    return _base32(_proof(bytes.fromhex(token_key), device.encode())).encode()


@lru_cache(MAX_REMEMBERED)
def _device_of(text: str) -> str | None:
    """The device of a token, if it is written the one way that there is."""
    try:
        device = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return device if base64.urlsafe_b64encode(device.encode()).decode().rstrip("=") == text else None


@lru_cache(MAX_REMEMBERED)
def _alone(device: str) -> Binding:
    return Binding(frozenset((device,)))


def outside(caller: Caller, device_ids: Iterable[str]) -> Denied | None:
    """What speaks against records of these devices by this caller, in order; None if nothing does."""
    found = caller.binding.first_outside(device_ids)
    if found is None:
        return None
    at, device = found
    return Denied(
        problems.OTHER_DEVICE, f"record {at}: this key is for {caller.binding}, not for device {device!r}", at
    )


def lacks(caller: Caller, scope: str) -> Denied | None:
    """What speaks against this caller where a scope is needed."""
    if caller.may(scope):
        return None
    has = ", ".join(sorted(caller.scopes))
    return Denied(problems.WRONG_SCOPE, f"this needs a key with the scope {scope}; this one has {has}")


_NO_HASH = bytes(32)
_NO_TOKEN_KEY = _NO_HASH.hex()
"""Compared with where there is no key, so that it takes as long."""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _token_key(text: str) -> bytes:
    return hmac.digest(text.encode(), _CONTEXT, "sha256")


def _proof(token_key: bytes, device: bytes) -> bytes:
    return hmac.digest(token_key, device, "sha256")[:PROOF_BYTES]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
