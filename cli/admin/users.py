"""`whimbrel users`: people who may sign in at the page, their roles and their sessions."""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
import time

import msgspec
import redis

from cli.admin.keys import second
from cli.command import FAILED, OK, Command
from cli.stdout import output
from telemetry.access import user_store
from telemetry.access.passwords import MAX_BYTES, SALT_BYTES, hash_password, require_usable
from telemetry.access.users import MAX_USERS, ROLES, SHOWN_ID_CHARACTERS, InvalidUser, User, make_user, with_role
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.model.errors import WhimbrelError
from telemetry.model.terminal_text import printable
from telemetry.model.utc import iso, to_second

DESCRIPTION = """\
Users are people who sign in at the page where auth.required = true; programs and devices have keys (whimbrel keys).

create         create a user. The password is read from the terminal, or from standard input; it is never an argument.
               viewer reads records; dispatcher reads them and asks in SQL; admin may do all. With --device or --prefix
               the user sees these devices only. With --oidc the user has no password and signs in by OIDC.
list           list users
set-role       change a role; open sessions have it within 5 seconds
set-password   set a new password; ends the user's sessions
disable        refuse a user, and end the sessions within 5 seconds; also a name that only the OIDC provider knows
enable         let a disabled user sign in again
delete         delete a user, and end the sessions
sessions       list or end sessions: sessions list, sessions end ID|NAME, sessions end --all
"""

LINE = "{:<24}  {:<10}  {:<9}  {:<20}  {:<8}  {}"
SESSION_LINE = "{:<12}  {:<24}  {:<20}  {:<20}  {:<20}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|set-role|…|sessions")
    create = actions.add_parser("create", help="create a user")
    create.add_argument("name", metavar="NAME", type=str.lower, help="name or email address, of a-z 0-9 . _ @ + -")
    create.add_argument("--role", required=True, choices=ROLES, help="what the user may do")
    bound = create.add_mutually_exclusive_group()
    bound.add_argument("--device", action="append", default=[], metavar="ID", help="only this device; repeatable")
    bound.add_argument("--prefix", default="", metavar="TEXT", help="only devices whose id begins so")
    create.add_argument("--oidc", action="store_true", help="no password: signs in by OIDC, with this email address")
    listing = actions.add_parser("list", help="list users")
    listing.add_argument("--json", action="store_true", help="answer with one JSON object")
    role = _named(actions.add_parser("set-role", help="change a role"))
    role.add_argument("role", metavar="ROLE", choices=ROLES, help=", ".join(ROLES))
    for name, words in (
        ("set-password", "set a new password"),
        ("disable", "refuse a user"),
        ("enable", "let a disabled user sign in again"),
        ("delete", "delete a user"),
    ):
        _named(actions.add_parser(name, help=words))
    sessions = actions.add_parser("sessions", help="list or end sessions")
    which = sessions.add_subparsers(dest="session_action", required=True, metavar="list|end")
    which.add_parser("list", help="list sessions").add_argument("--json", action="store_true", help="answer in JSON")
    end = which.add_parser("end", help="end sessions")
    whose = end.add_mutually_exclusive_group(required=True)
    whose.add_argument("session", nargs="?", metavar="ID|NAME", help="a session as list shows it, or all of a user")
    whose.add_argument("--all", action="store_true", help="all sessions of all users")


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", type=str.lower, help="as list shows it")
    return parser


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked."""
    with connect(settings) as client, output():
        if args.action == "create":
            return run_create(args, client)
        if args.action == "list":
            return run_list(args, client)
        if args.action == "sessions":
            return run_sessions(args, client)
        found = user_store.user(client, args.name)
        if found is None and args.action == "disable":
            return run_block(args, client)
        if found is None:
            print(f"whimbrel users: there is no user {printable(args.name)}", file=sys.stderr)
            return FAILED
        return run_change(args, client, found)


# Changing --------------------------------------------------------------------------------------------


def run_create(args: argparse.Namespace, client: redis.Redis) -> int:
    """Create a user."""
    new = make_user(args.name, args.role, int(time.time()), tuple(args.device), args.prefix)
    people = user_store.people(client)
    if new.name in people.users:
        raise InvalidUser(f"cannot create user {new.name}: the name is taken")
    if len(people.users) >= MAX_USERS:
        raise InvalidUser(f"cannot create user {new.name}: there are {MAX_USERS} users, the maximum; delete some")
    if not args.oidc:
        new = with_password(new, read_password())
    if not user_store.add_user(client, new):
        raise InvalidUser(f"cannot create user {new.name}: the name is taken")
    print(f"user {new.name}: {new.role} for {new.binding}")
    return OK


def run_block(args: argparse.Namespace, client: redis.Redis) -> int:
    """Refuse a name that only the OIDC provider knows."""
    blocked = make_user(args.name, "viewer", int(time.time()))
    ended = end_of(client, blocked.name)
    user_store.add_user(client, msgspec.structs.replace(blocked, is_disabled=True))
    print(f"user {blocked.name} is disabled, was not known here before; {ended} sessions ended")
    return OK


def run_change(args: argparse.Namespace, client: redis.Redis, found: User) -> int:
    """Change or delete a user that exists."""
    if args.action == "set-role":
        user_store.change_user(client, with_role(found, args.role))
        print(f"user {found.name} is {args.role} now")
        return OK
    if args.action == "enable":
        user_store.change_user(client, msgspec.structs.replace(found, is_disabled=False))
        print(f"user {found.name} is enabled")
        return OK
    if args.action == "set-password":
        user_store.change_user(client, with_password(found, read_password()))
    elif args.action == "disable":
        end_of(client, found.name)  # first: a full Redis still accepts removals
        user_store.change_user(client, msgspec.structs.replace(found, is_disabled=True))
    else:
        user_store.remove_user(client, found.name)
    ended = end_of(client, found.name)
    done = {"set-password": "has a new password", "disable": "is disabled", "delete": "is deleted"}[args.action]
    print(f"user {found.name} {done}; {ended} sessions ended")
    return OK


def end_of(client: redis.Redis, name: str) -> int:
    """End all sessions of a user; returns how many there were."""
    sessions = user_store.people(client).sessions
    return user_store.end_sessions(client, [at for at, one in sessions.items() if one.user == name])


def with_password(user: User, password: str) -> User:
    """The user with a new password. Raises `InvalidPassword`."""
    require_usable(password)
    return msgspec.structs.replace(user, password=hash_password(password, secrets.token_bytes(SALT_BYTES)))


def read_password() -> str:
    """A new password: asked twice on a terminal, else the first line of standard input. Raises `WhimbrelError`."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(4 * MAX_BYTES).rstrip("\r\n")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Again: ") != password:
        raise WhimbrelError("cannot set the password: the two entries differ; try again")
    return password


# Showing ---------------------------------------------------------------------------------------------


class Line(msgspec.Struct):
    """One user in `list --json`."""

    name: str
    role: str
    devices: tuple[str, ...]
    prefix: str
    oidc: bool
    disabled: bool
    created_at: str
    sessions: int


class SessionLine(msgspec.Struct):
    """One session in `sessions list --json`."""

    id: str
    user: str
    role: str | None
    address: str
    created_at: str
    used_at: str
    expires_at: str


def run_list(args: argparse.Namespace, client: redis.Redis) -> int:
    """Print all users."""
    people = user_store.people(client)
    users = sorted(people.users.values(), key=lambda user: user.name)
    count = {user.name: sum(one.user == user.name for one in people.sessions.values()) for user in users}
    if args.json:
        lines = [line_of(u, count[u.name]) for u in users]
        print(msgspec.json.encode({"users": lines}).decode())
        return OK
    print(LINE.format("name", "role", "state", "created", "sessions", "devices"))
    for u in users:
        state = "disabled" if u.is_disabled else "oidc" if not u.password else "password"
        print(LINE.format(u.name, u.role, state, second(u.created_s), count[u.name], printable(str(u.binding))))
    return OK


def line_of(user: User, sessions: int) -> Line:
    """One user, without its password's hash."""
    has_provider, created = not user.password, iso(user.created_s * 1_000_000)
    return Line(user.name, user.role, user.devices, user.prefix, has_provider, user.is_disabled, created, sessions)


def run_sessions(args: argparse.Namespace, client: redis.Redis) -> int:
    """List or end sessions."""
    sessions = user_store.people(client).sessions
    if args.session_action == "list":
        return _list_sessions(args, client)
    chosen = [at for at, one in sessions.items() if args.all or is_named(args.session, at, one.user)]
    if not chosen and not args.all:
        print(f"whimbrel users: there is no session {printable(args.session)}, and no user with one", file=sys.stderr)
        return FAILED
    print(f"{user_store.end_sessions(client, chosen)} sessions ended")
    return OK


def is_named(text: str, at: str, user: str) -> bool:
    """Whether a text names a session, or its user."""
    return text == user or (len(text) >= SHOWN_ID_CHARACTERS and at.startswith(text))


def _list_sessions(args: argparse.Namespace, client: redis.Redis) -> int:
    used_s = user_store.used(client)
    lines = [
        SessionLine(
            at[:SHOWN_ID_CHARACTERS],
            one.user,
            one.role or None,
            one.address,
            iso(one.created_s * 1_000_000),
            iso(used_s.get(at, one.created_s) * 1_000_000),
            iso(one.expires_s * 1_000_000),
        )
        for at, one in sorted(user_store.people(client).sessions.items(), key=lambda pair: pair[1].created_s)
    ]
    if args.json:
        print(msgspec.json.encode({"sessions": lines}).decode())
        return OK
    print(SESSION_LINE.format("id", "user", "created", "last used", "expires", "address"))
    for line in lines:
        times = map(to_second, (line.created_at, line.used_at, line.expires_at))
        print(SESSION_LINE.format(line.id, printable(line.user), *times, line.address))
    return OK


def _action(args: argparse.Namespace) -> str:
    if args.action == "sessions":
        return "users.sessions.end" if args.session_action == "end" else ""
    return "" if args.action == "list" else f"users.{args.action}"


COMMAND = Command("Manage people who sign in at the page: users, roles, sessions.", add_arguments, run, action=_action)
