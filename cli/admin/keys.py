"""`whimbrel keys`: creates, lists and revokes API keys and device tokens."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
import time
from collections.abc import Mapping

import msgspec
import redis

from cli.audited_command import audited, note
from cli.command import FAILED, OK, Command
from cli.key_argument import add_key_argument, given_key
from cli.stdout import output, print_json
from telemetry.codec.record_parser import iso_us
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.api_keys import (
    SCOPES,
    Denied,
    Key,
    KeyRequest,
    check,
    device_token,
    key_id_in,
    looks_like_key,
    make,
)
from telemetry.model.errors import WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso, to_second

DESCRIPTION = """\
Keys grant the right to write and to read. They are required if auth.required = true.

create    Create a key and print it, alone on the last line. It is shown only once: the box stores its hash.
          ingest allows writing, read reading, sql SQL queries, admin everything. With --device or --prefix the key is
          limited to these devices. With --fleet it can derive a token for each device (see token).
list      List all keys: rights and time of last use, to a minute; never the key itself.
revoke    Revoke a key, by the ID that list prints or by the whole key; with --device, or by a device's token, only that
          device's token. It is rejected within 5 seconds. The key is neither printed nor logged.
token     Print the token of each device, one a line, derived from the fleet's key (--key or WHIMBREL_KEY) without
          contacting the box. A token has the rights of the fleet's key, for that device.
"""

CREATE = "keys.create"
"""Name of the change in the audit log."""

UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
ID = re.compile(r"[a-z2-7]{8}", re.ASCII)
NEVER_EXPIRED_S = 0.0
"""The time by which a key that expired can be checked all the same."""

LINE = "{:<8}  {:<12}  {:<20}  {:<20}  {:<20}  {:<30}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke|token")
    create = actions.add_parser("create", help="make a key")
    add = create.add_argument
    add("--scope", action="append", required=True, choices=SCOPES, help="what it is for; may be given again")
    bound = create.add_mutually_exclusive_group()
    bound.add_argument(
        "--device", action="append", default=[], metavar="ID", help="only this device; may be given again"
    )
    bound.add_argument("--prefix", default="", metavar="TEXT", help="only devices whose id begins so")
    add(
        "--expires",
        type=expiry,
        metavar="TIME",
        help="how long it is good, like 90d, 12h, 30m, or until when (ISO 8601)",
    )
    add("--name", default="", metavar="TEXT", help="what list calls it")
    add("--fleet", action="store_true", help="each device can have a token of its own")
    add("--first", action="store_true", help="make it only if there is no key yet; else print nothing")
    listing = actions.add_parser("list", help="all keys")
    listing.add_argument("--json", action="store_true", help="answer with one JSON object")
    revoke = actions.add_parser("revoke", help="take a key back")
    revoke.add_argument("id", metavar="KEY", type=Shown, help="id that list shows, the whole key, or a device's token")
    revoke.add_argument("--device", metavar="ID", help="only the token of this device of the fleet")
    token = actions.add_parser("token", help="the tokens of a fleet's devices")
    token.add_argument("device", nargs="+", metavar="DEVICE", help="these devices")
    add_key_argument(token)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    if args.action == "token":
        return run_token(args)
    with connect(settings) as client, output():
        if args.action == "create":
            return run_first(args, client, settings) if args.first else run_create(args, client)
        found = shared_state.keys(client)
        if args.action == "list":
            return run_list(
                args, sorted(found.values(), key=lambda key: (key.created_s, key.id)), shared_state.used(client)
            )
        return run_revoke(args, client, found)


def run_first(args: argparse.Namespace, client: redis.Redis, settings: Settings) -> int:
    """Make a key if there is none yet. Each start of a box asks for that, so only a key that is made is recorded."""
    if shared_state.keys(client):
        return OK
    with audited("keys", CREATE, args, settings) as outcome:
        outcome.status = run_create(args, client)
    return outcome.status


def run_create(args: argparse.Namespace, client: redis.Redis) -> int:
    """Create a key and print it; its rights go to standard error."""
    wish = KeyRequest(tuple(args.scope), tuple(args.device), args.prefix, args.expires or 0, args.name, args.fleet)
    text, key = make(wish, int(time.time()), secrets.token_bytes)
    if not shared_state.add_key(client, key):
        raise WhimbrelError("cannot make this key: its id, drawn by lot, is taken; try again")
    note(key=key.id)
    print(f"key {key.id}: {' and '.join(key.scopes)} for {key.binding}, {until(key)}", file=sys.stderr)
    print(text)
    return OK


def run_revoke(args: argparse.Namespace, client: redis.Redis, found: Mapping[str, Key]) -> int:
    """Revoke a key, or the token of one of its devices."""
    shown: Shown = args.id
    key = found.get(shown.key_id)
    if key is None:
        print(f"whimbrel keys: there is no key {shown}", file=sys.stderr)
        return FAILED
    device = device_to_revoke(shown, key, args.device)
    if device is None:
        shared_state.remove_key(client, key.id)
        print(f"key {key.id} is revoked")
    else:
        shared_state.change_key(client, without(key, device))
        note(device=device)
        print(f"the token of device {printable(device)} is revoked")
    return OK


def device_to_revoke(shown: Shown, key: Key, device: str | None) -> str | None:
    """The device whose token is to be revoked, None for the key itself.

    Raises `WhimbrelError` for a text that shows the id of a key, and is not that key or a token of it.
    """
    if shown.is_id:
        return device
    caller = check(shown.text, {key.id: key}.get, NEVER_EXPIRED_S)
    if isinstance(caller, Denied):
        raise WhimbrelError(
            f"cannot revoke this key: only its id matches key {key.id}, or it is a token that was revoked already; "
            f"give the id alone to revoke key {key.id}"
        )
    if caller.device and device not in (None, caller.device):
        raise WhimbrelError("cannot revoke this token: it is not of the device that --device names; leave --device out")
    return caller.device or device


def run_token(args: argparse.Namespace) -> int:
    """Print the tokens."""
    fleet_key = given_key(args)
    if not fleet_key:
        raise WhimbrelError("cannot make a device's token: give the fleet's key by WHIMBREL_KEY or --key")
    with output():
        for device in args.device:
            print(device_token(fleet_key, device))
    return OK


def without(key: Key, device: str) -> Key:
    """The fleet's key after revoking a device's token. Raises `WhimbrelError` if it has no tokens."""
    if not key.token_key:
        raise WhimbrelError(f"cannot revoke a device's token: key {key.id} was not made with --fleet")
    return msgspec.structs.replace(key, revoked_devices=tuple(sorted({*key.revoked_devices, device})))


class Shown:
    """A key as a user names it. The text may be the whole key, so `str` and `repr` contain only the ID."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.is_id = not looks_like_key(self.text)
        self.key_id = self.text if self.is_id else key_id_in(self.text)

    def __str__(self) -> str:
        if ID.fullmatch(self.key_id):
            return self.key_id
        return "of this id" if self.is_id else "of this text"

    __repr__ = __str__


# Showing ---------------------------------------------------------------------------------------------


class Line(msgspec.Struct):
    """The object that `list --json` prints for each key."""

    id: str
    name: str
    scopes: tuple[str, ...]
    devices: tuple[str, ...]
    prefix: str
    fleet: bool
    revoked_devices: tuple[str, ...]
    created_at: str
    expires_at: str | None
    expired: bool
    last_used_at: str | None


def run_list(args: argparse.Namespace, found: list[Key], used_s: Mapping[str, int]) -> int:
    """Print all keys."""
    if args.json:
        print_json(msgspec.json.encode({"keys": [line_of(key, time.time(), used_s.get(key.id)) for key in found]}))
        return OK
    print(LINE.format("id", "scopes", "created", "expires", "last used", "devices", "name"))
    for key in found:
        created = second(key.created_s)
        expires = second(key.expires_s) if key.expires_s else "never"
        used = second(used_s[key.id]) if key.id in used_s else "never"
        scopes, devices = ",".join(key.scopes), str(key.binding) + (", each a token" if key.token_key else "")
        print(LINE.format(key.id, scopes, created, expires, used, printable(devices), printable(key.name)))
    return OK


def line_of(key: Key, now_s: float, used_s: int | None) -> Line:
    """A key for people, without its hash and its token secret."""
    return Line(
        key.id,
        key.name,
        key.scopes,
        key.devices,
        key.prefix,
        bool(key.token_key),
        key.revoked_devices,
        iso(key.created_s * 1_000_000),
        iso(key.expires_s * 1_000_000) if key.expires_s else None,
        0 < key.expires_s <= now_s,
        iso(used_s * 1_000_000) if used_s is not None else None,
    )


def until(key: Key) -> str:
    """How long it is good, in words."""
    return f"until {second(key.expires_s)}" if key.expires_s else "until it is revoked"


def second(at_s: int) -> str:
    """2026-11-24T10:25:00Z of s since the epoch, for people."""
    return to_second(iso(at_s * 1_000_000))


def expiry(text: str) -> int:
    """s since epoch of a length of time from now on, or of an instant."""
    found = re.fullmatch(r"(\d{1,6})([mhd])", text, re.ASCII)
    if found:
        return int(time.time()) + int(found[1]) * UNITS_S[found[2]]
    try:
        return iso_us(text) // 1_000_000
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be like 90d, 12h, 30m or 2027-06-01T00:00:00Z") from None


def _action(args: argparse.Namespace) -> str:
    if args.action == "create":
        return "" if args.first else CREATE
    return "keys.revoke" if args.action == "revoke" else ""


COMMAND = Command("Create, list and revoke API keys and device tokens.", add_arguments, run, action=_action)
