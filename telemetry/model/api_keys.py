"""API keys and device tokens: their text, the stored hash, their scopes and the devices they are bound to.

    wk_<id>_<secret>             a key: an id of 8 characters and a secret of 26 (128 random bits), of a-z and 2-7
    wd_<id>_<proof>_<device>     the token of one device, derived from a fleet's key; the device in base64url

The store holds the SHA-256 of a key's text, never the text. A fast hash is safe here, because 2^128 secrets cannot be
tried; a slow one would delay each request. A fleet's key also stores `token_key`, an HMAC of its text. With it the
box derives and checks device tokens, but cannot derive the key. A fleet therefore needs no table of tokens:
proof = HMAC-SHA256(token_key, device id), its first 128 bits.

This file uses no clock, randomness, socket, file or Redis.
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
"""Permissions of a key: write records; read records and the box's status; run SQL; everything."""

BOUND = (INGEST, READ, SQL)
"""Scopes that may be bound to devices. An admin key always applies to the whole box."""

ID_BYTES, SECRET_BYTES, PROOF_BYTES = 5, 16, 16

KEY_START, TOKEN_START = "wk_", "wd_"
MAX_TEXT_CHARACTERS = 1_500
"""A device's id has 255 characters, each of up to 4 bytes, in base64."""

MAX_ID_CHARACTERS = 255
"""Maximum length of a device id, as in record_parser.py, which rejects keys among the fields of records."""

MAX_BOUND_DEVICES = 1_000
MAX_NAME_CHARACTERS = 100

MAX_REMEMBERED = 4_096
"""Number of devices whose derived tokens a process caches; about 300 bytes each."""

_KEY = re.compile(r"wk_([a-z2-7]{8})_[a-z2-7]{26}", re.ASCII)
_TOKEN = re.compile(r"wd_([a-z2-7]{8})_([a-z2-7]{26})_([A-Za-z0-9_-]+)", re.ASCII)
_ANY = re.compile(rb"(w[kd]_[a-z2-7]{8}_)[A-Za-z0-9_-]+")
_SHOWN_ID = re.compile(r"w[kd]_([a-z2-7]{8})_", re.ASCII)
_CONTEXT = b"whimbrel: tokens of a fleet's devices"


class Binding(NamedTuple):
    """Devices that a key is bound to: a list of ids, or a prefix of ids. With neither, the key is for all devices."""

    devices: frozenset[str] = frozenset()
    prefix: str = ""

    @property
    def is_bound(self) -> bool:
        """True if the key excludes any device."""
        return bool(self.devices or self.prefix)

    def covers(self, device_id: str) -> bool:
        """True if the key allows this device."""
        return device_id in self.devices if self.devices else device_id.startswith(self.prefix)

    def first_outside(self, device_ids: Iterable[str]) -> tuple[int, str] | None:
        """The first device that the key does not allow, with its index."""
        if not self.is_bound:
            return None
        return next(
            ((index, device_id) for index, device_id in enumerate(device_ids) if not self.covers(device_id)), None
        )

    def __str__(self) -> str:
        """The binding as text for error messages."""
        if not self.is_bound:
            return "all devices"
        if self.prefix:
            return f"devices whose id begins with {self.prefix!r}"
        return f"device {next(iter(self.devices))!r}" if len(self.devices) == 1 else f"{len(self.devices)} devices"


EVERY_DEVICE = Binding()


class Key(Struct, frozen=True, omit_defaults=True):
    """A key as stored. Times are s since epoch; `expires_s` 0 = never. `hash` and `token_key` are in hex."""

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
        """The devices that the key is bound to."""
        return Binding(frozenset(self.devices), self.prefix)


CERTIFICATE_ID = "certificate:"
"""Prefix of the `key_id` of a caller that authenticates with a client certificate; the device's id follows."""


class Caller(Struct, frozen=True, gc=False):
    """An authenticated client: its key and permissions. `device` is set if the client sent a device's token.

    For a user's session (access/users.py) `key_id` is "user:" and the name, and `session` is the session's id.
    """

    key_id: str
    scopes: frozenset[str]
    binding: Binding = EVERY_DEVICE
    device: str = ""
    expires_s: int = 0
    session: str = ""

    def may(self, scope: str) -> bool:
        """True if the key has the scope; an admin key has all."""
        return scope in self.scopes or ADMIN in self.scopes

    @property
    def sees_all(self) -> bool:
        """True if the key may read every device."""
        return not self.binding.is_bound

    @property
    def realm(self) -> str:
        """Namespace of the names that bound callers choose, of senders and requests. It separates them from all others.

        It depends on the devices, not on the key: a device with a new key keeps its names. Empty for an unbound key.
        """
        if not self.binding.is_bound:
            return ""
        text = msgspec.json.encode((self.binding.prefix, sorted(self.binding.devices)))
        return hashlib.sha256(text).hexdigest()[:16] + ":"


OPEN_CALLER = Caller("", frozenset(SCOPES))
"""The caller on a port that requires no key."""

ANONYMOUS_CALLER = Caller("", frozenset())
"""A caller without a key where one is required: it may read only public data."""


class Denied(NamedTuple):
    """A rejected access and its reason; `place` is the index of the record concerned, if any."""

    kind: Problem
    reason: str
    place: int | None = None


NO_KEY = Denied(problems.NO_KEY, "send a key, as a Bearer token, as the password of Basic, or as ?token=")
WRONG = Denied(problems.WRONG_KEY, "unknown key: it is misspelt, was revoked, or belongs to another box")
EXPIRED = "this key expired; make a new one with `whimbrel keys create`"
CHANGED = Denied(problems.WRONG_KEY, "the permissions of this key have changed; send the request again")


class InvalidKey(WhimbrelError):
    """The requested key is not valid."""


# Making ----------------------------------------------------------------------------------------------


class KeyRequest(NamedTuple):
    """The properties requested for a new key."""

    scopes: tuple[str, ...]
    devices: tuple[str, ...] = ()
    prefix: str = ""
    expires_s: int = 0
    name: str = ""
    is_fleet: bool = False


def make(wish: KeyRequest, now_s: int, random: Callable[[int], bytes]) -> tuple[str, Key]:
    """Create a key. Returns its text, which is shown only once, and the record to store. `random(n)` returns n bytes.

    Raises `InvalidKey` if the properties are not valid.
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


def _check(wish: KeyRequest, now_s: int) -> None:
    unknown = sorted(set(wish.scopes) - set(SCOPES))
    if unknown or not wish.scopes:
        named = f"unknown scope {unknown[0]}" if unknown else "it needs a scope"
        raise InvalidKey(f"cannot make this key: {named}; scopes are {', '.join(SCOPES)}")
    require_valid_binding(wish.scopes, wish.devices, wish.prefix)
    if wish.is_fleet and (wish.devices or SQL in wish.scopes or ADMIN in wish.scopes):
        raise InvalidKey("cannot make this key: a fleet's key has ingest, read or both, for all devices or a prefix")
    if len(wish.name) > MAX_NAME_CHARACTERS:
        raise InvalidKey(f"cannot make this key: its name may have at most {MAX_NAME_CHARACTERS} characters")
    if wish.expires_s and wish.expires_s <= now_s:
        raise InvalidKey("cannot make this key: its expiry is in the past")


def require_valid_binding(scopes: Iterable[str], devices: Sequence[str], prefix: str) -> None:
    """Check a binding against the scopes. Raises `InvalidKey`."""
    if devices and prefix:
        raise InvalidKey("cannot make this key: bind it to devices or to a prefix, not to both")
    unbindable = [scope for scope in scopes if scope not in BOUND]
    if (devices or prefix) and unbindable:
        raise InvalidKey(
            f"cannot make this key: the scope {unbindable[0]} cannot be bound to devices; it applies to the whole box"
        )
    if len(devices) > MAX_BOUND_DEVICES:
        raise InvalidKey(f"cannot make this key: it may name at most {MAX_BOUND_DEVICES} devices; use a prefix")
    if any(not 0 < len(device_id) <= MAX_ID_CHARACTERS for device_id in (*devices, prefix or "-")):
        raise InvalidKey(f"cannot make this key: a device's id has 1 to {MAX_ID_CHARACTERS} characters")


def device_token(fleet_key: str, device_id: str) -> str:
    """Derive the token of a device from its fleet's key. Raises `InvalidKey` if `fleet_key` is not a key."""
    match = _KEY.fullmatch(fleet_key)
    if match is None:
        raise InvalidKey(f"cannot make a device's token: the fleet's key must be like {KEY_START}…")
    if not 0 < len(device_id) <= MAX_ID_CHARACTERS:
        raise InvalidKey(f"cannot make a device's token: its id must have 1 to {MAX_ID_CHARACTERS} characters")
    device = device_id.encode()
    proof = _base32(_proof(_token_key(fleet_key), device))
    return f"{TOKEN_START}{match[1]}_{proof}_{base64.urlsafe_b64encode(device).decode().rstrip('=')}"


# Checking --------------------------------------------------------------------------------------------


def looks_like_key(text: object) -> bool:
    """True if the text has the prefix of a key or a device's token, valid or not."""
    return type(text) is str and text.startswith((KEY_START, TOKEN_START))


def key_id_in(text: str) -> str:
    """The id in the text of a key or token, valid or not; empty for any other text."""
    match = _SHOWN_ID.match(text)
    return match[1] if match else ""


def complete_key_id(text: str) -> str:
    """The id in a text with the complete form of a key or token; empty for any other text, which is not valid."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return ""
    match = _KEY.fullmatch(text) or _TOKEN.fullmatch(text)
    return match[1] if match else ""


def redacted(data: bytes) -> bytes:
    """The bytes with the secret of each key removed; only the ids remain."""
    return _ANY.sub(rb"\1***", data)


def check(text: str, find: Callable[[str], Key | None], now_s: float) -> Caller | Denied:
    """Authenticate a text. `find` returns the key of an id. Secrets are compared in constant time."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return WRONG
    if text.startswith(TOKEN_START):
        return _check_token(text, find, now_s)
    match = _KEY.fullmatch(text)
    key = find(match[1]) if match else None
    is_proven = hmac.compare_digest(_hash(text), bytes.fromhex(key.hash) if key else _NO_HASH)
    if key is None or not is_proven:
        return WRONG
    return _caller(key, key.binding, "", now_s)


def _check_token(text: str, find: Callable[[str], Key | None], now_s: float) -> Caller | Denied:
    match = _TOKEN.fullmatch(text)
    device = _device_of(match[3]) if match else None
    if match is None or device is None:
        return WRONG
    key = find(match[1])
    proof = _proof_text(key.token_key if key else _NO_TOKEN_KEY, device)
    is_proven = hmac.compare_digest(proof, match[2].encode())
    if key is None or not key.token_key or not is_proven or device in key.revoked_devices:
        return WRONG
    if not key.binding.covers(device):
        return WRONG
    return _caller(key, _alone(device), device, now_s)


def _caller(key: Key, binding: Binding, device: str, now_s: float) -> Caller | Denied:
    if 0 < key.expires_s <= now_s:
        return Denied(problems.WRONG_KEY, EXPIRED)
    return Caller(key.id, frozenset(key.scopes), binding, device, key.expires_s)


def withdrawal(key: Key | None, now_s: float) -> Callable[[Caller], Denied | None]:
    """Returns a check for callers that a key admitted earlier: None while their permissions are unchanged, else the
    reason.

    `key` is the current record of the key, None if it was deleted.
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
    """The proof that a valid token of the device contains. Deriving it is the most expensive step of a check."""
    return _base32(_proof(bytes.fromhex(token_key), device.encode())).encode()


@lru_cache(MAX_REMEMBERED)
def _device_of(text: str) -> str | None:
    """The device id in a token, None unless it is in canonical base64url."""
    try:
        device = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return device if base64.urlsafe_b64encode(device.encode()).decode().rstrip("=") == text else None


@lru_cache(MAX_REMEMBERED)
def _alone(device: str) -> Binding:
    return Binding(frozenset((device,)))


def forbidden_device(caller: Caller, device_ids: Iterable[str]) -> Denied | None:
    """Why the caller may not write records of these devices; None if it may."""
    forbidden = caller.binding.first_outside(device_ids)
    if forbidden is None:
        return None
    index, device = forbidden
    return Denied(
        problems.OTHER_DEVICE, f"record {index}: this key is for {caller.binding}, not for device {device!r}", index
    )


def missing_scope(caller: Caller, scope: str) -> Denied | None:
    """Why the caller lacks a scope; None if it has it."""
    if caller.may(scope):
        return None
    has = ", ".join(sorted(caller.scopes))
    return Denied(problems.WRONG_SCOPE, f"this needs a key with the scope {scope}; this one has {has}")


_NO_HASH = bytes(32)
_NO_TOKEN_KEY = _NO_HASH.hex()
"""Compared where there is no key, so that the response takes the same time."""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _token_key(text: str) -> bytes:
    return hmac.digest(text.encode(), _CONTEXT, "sha256")


def _proof(token_key: bytes, device: bytes) -> bytes:
    return hmac.digest(token_key, device, "sha256")[:PROOF_BYTES]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
