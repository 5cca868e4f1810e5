"""People at the page: signing in, sessions, roles, and what another site or a stranger tries."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import msgspec
import pytest

from telemetry.access import user_store
from telemetry.access.passwords import SALT_BYTES, hash_password
from telemetry.access.users import ROLES, make_user
from telemetry.config.settings import PROJECT
from tests.api.conftest import Box, box_on
from tests.box import plain_http
from tests.conftest import RedisServer

pytestmark = pytest.mark.slow

PASSWORD = "a horse, a battery and a staple"
COOKIE = "whimbrel_session"
ENDS_S = 5.0
"""A change of a user or session must be known everywhere within this."""


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with a user for each role, whose passwords are alike."""
    more = {"auth__required": "true", "limits__address_wrong_keys_per_min": "0", "sql__enabled": "true"}
    more["limits__trusted_proxies"] = '["127.0.0.1"]'
    with box_on(shared_redis.url, tmp_path_factory.mktemp("users"), **more) as found:
        answer = found.http.post(
            "/v1/records", json=[{"device_id": name, "altitude": 1} for name in ("van-1", "bus-1")]
        )
        assert answer.status_code == 202
        for role in ROLES:
            add_user(found, role, role)
        add_user(found, "vans", "viewer", prefix="van-")
        yield found


def add_user(box: Box, name: str, role: str, prefix: str = "") -> None:
    """Store a user with the usual password."""
    password = hash_password(PASSWORD, secrets.token_bytes(SALT_BYTES))
    user = msgspec.structs.replace(make_user(name, role, int(time.time()), (), prefix), password=password)
    assert user_store.add_user(box.client, user)
    time.sleep(1.5)  # the cache reads once a second


class Person:
    """A browser of a box: cookies, and the headers that browsers add on requests of the box's own pages."""

    def __init__(self, box: Box) -> None:
        self.http = plain_http(f"http://127.0.0.1:{box.port}")
        address = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
        self.http.headers["X-Forwarded-For"] = address  # failures of other tests do not count against this one
        self.origin = {"Origin": f"http://127.0.0.1:{box.port}", "Sec-Fetch-Site": "same-origin"}
        self.token = ""

    def sign_in(self, name: str, password: str = PASSWORD, **more: str) -> httpx.Response:
        """Send the form of the login page."""
        form = {"name": name, "password": password, "next": "/", **more}
        answer = self.http.post("/login", data=form, headers=self.origin)
        if answer.status_code == 303:
            self.token = self.http.get("/v1/session").json()["csrf_token"]
        return answer

    def ask(self, method: str, path: str, **more: str) -> httpx.Response:
        """Ask as the page does."""
        headers = {**self.origin, "X-CSRF-Token": self.token, **more}
        return self.http.request(method, path, headers=headers)

    @property
    def cookie(self) -> str:
        """The session's cookie."""
        return self.http.cookies.get(COOKIE) or ""


@pytest.fixture
def meet(box: Box) -> Iterator[Callable[[], Person]]:
    """Makes browsers without a session."""
    with contextlib.ExitStack() as open_until_the_end:

        def make() -> Person:
            found = Person(box)
            open_until_the_end.enter_context(found.http)
            return found

        yield make


@pytest.fixture
def person(meet: Callable[[], Person]) -> Person:
    """A browser without a session."""
    return meet()


def kind_of(answer: httpx.Response) -> str:
    """The kind of a problem."""
    return str(answer.json()["type"]).rpartition(":")[2]


def until(status: int, person: Person, path: str = "/v1/latest") -> httpx.Response:
    """The answer once it has this status, which must be soon."""
    stop_s = time.monotonic() + ENDS_S
    while (answer := person.ask("GET", path)).status_code != status and time.monotonic() < stop_s:
        time.sleep(0.1)
    return answer


# Signing in ------------------------------------------------------------------------------------------


def test_a_password_gives_a_session_that_both_programs_know(box: Box, person: Person) -> None:
    assert person.ask("GET", "/v1/latest").status_code == 401
    page = person.http.get("/login", params={"next": "/#tab=box"})
    assert page.status_code == 200
    assert 'value="/#tab=box"' in page.text
    assert "script" not in page.headers["Content-Security-Policy"]
    answer = person.sign_in("viewer")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    flags = answer.headers["Set-Cookie"].lower().split("; ")
    assert {"httponly", "samesite=lax", "path=/"} <= set(flags)
    assert not any(flag.startswith(("domain", "secure")) for flag in flags), "it is plain HTTP"
    assert person.ask("GET", "/v1/latest").status_code == 200
    assert person.ask("GET", "/v1/devices").status_code == 200, "the query program knows it at once"
    who = person.ask("GET", "/v1/session").json()
    assert (who["user"], who["scopes"], who["key_id"]) == ("viewer", ["read"], None)
    assert COOKIE not in "".join(person.ask("GET", "/v1/session").text)
    stored = str(box.client.hgetall("whimbrel:sessions"))
    assert person.cookie not in stored
    assert person.token not in stored
    assert person.http.get("/login").status_code == 303, "somebody who is signed in goes on"


@pytest.mark.parametrize("name", ["viewer", "nobody", "", "' OR 1", "v" * 500])
def test_a_wrong_password_and_an_unknown_name_are_answered_alike(person: Person, name: str) -> None:
    answer = person.sign_in(name, "not the password")
    assert answer.status_code == 401
    assert "Wrong name or password" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert "not the password" not in answer.text


def test_after_some_failures_a_name_must_wait_even_with_the_right_password(
    box: Box, meet: Callable[[], Person]
) -> None:
    add_user(box, "locked", "viewer")
    person = meet()
    answers = fail(person, "locked")
    assert [one.status_code for one in answers[:5]] == [401] * 5
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert person.sign_in("locked").status_code == 429
    assert person.sign_in("viewer").status_code == 303, "others are not held up"
    unknown = [one.status_code for one in fail(meet(), "nobody-at-all")]
    assert unknown[:5] == [401] * 5, "nothing tells which names exist"


def fail(person: Person, name: str) -> list[httpx.Response]:
    """Answers to wrong passwords, until one must wait: after 5 on a machine that is quick enough."""
    answers: list[httpx.Response] = []
    while not answers or answers[-1].status_code == 401:
        answers.append(person.sign_in(name, "not the password"))
        assert len(answers) < 10, "nobody must wait"
    assert answers[-1].status_code == 429
    return answers


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "\\\\evil",
        "javascript:alert(1)",
        "",
    ],
)
def test_after_signing_in_nobody_is_led_elsewhere(person: Person, target: str) -> None:
    assert person.sign_in("viewer", next=target).headers["Location"] == "/"
    assert person.http.get("/login", params={"next": target}).headers["Location"] == "/"


def test_a_browser_is_led_to_the_login_page_and_back(person: Person) -> None:
    answer = person.http.get("/status?x=1", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/status%3Fx%3D1")
    assert person.http.get("/status").status_code == 401, "a program is told"


# Other sites -----------------------------------------------------------------------------------------


def test_the_session_of_before_is_never_the_one_after(box: Box, person: Person, meet: Callable[[], Person]) -> None:
    planted = secrets.token_urlsafe(32)
    person.http.cookies.set(COOKIE, planted, domain="127.0.0.1")
    answer = person.sign_in("viewer")
    given = re.match(rf"{COOKIE}=([^;]*)", answer.headers["Set-Cookie"])
    assert given is not None
    assert given[1] != planted
    other = meet()
    other.http.cookies.set(COOKIE, planted)
    assert other.ask("GET", "/v1/latest").status_code == 401


def test_signing_in_again_ends_the_session_of_before(person: Person, meet: Callable[[], Person]) -> None:
    person.sign_in("viewer")
    first = person.cookie
    person.sign_in("viewer")
    assert person.cookie != first
    other = meet()
    other.http.cookies.set(COOKIE, first)
    assert until(401, other).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_cookie_counts_on_no_request_of_another_site(person: Person, headers: dict[str, str]) -> None:
    person.sign_in("admin")
    answer = person.http.get("/v1/latest", headers=headers)
    assert (answer.status_code, kind_of(answer)) == (403, "foreign-page")
    token = {"X-CSRF-Token": person.token}
    assert person.http.delete("/v1/devices/van-1", headers=headers | token).status_code == 403
    assert person.http.post("/logout", headers=headers | token).status_code == 403
    form = {"name": "viewer", "password": PASSWORD}
    assert person.http.post("/login", data=form, headers=headers).status_code == 403, "nobody is signed in as another"
    assert person.ask("GET", "/v1/latest").status_code == 200


def test_what_changes_something_needs_the_token(box: Box, person: Person, meet: Callable[[], Person]) -> None:
    person.sign_in("admin")
    right = person.token
    other = meet()
    other.sign_in("admin")
    for token in ("", "x", other.token, right[:-1], right.upper(), right + right):
        person.token = token
        for method, path in (("DELETE", "/v1/devices/van-1"), ("POST", "/v1/sql"), ("POST", "/v1/records")):
            answer = person.ask(method, path)
            assert (answer.status_code, kind_of(answer)) == (403, "wrong-csrf-token"), (token, path)
        assert person.ask("POST", "/logout").status_code == 403
    person.token = right
    assert person.ask("POST", "/v1/sql").status_code not in (401, 403)
    assert person.ask("DELETE", "/v1/devices/nobody").status_code == 404


def test_pages_are_not_asked_for_a_password_by_the_browser(person: Person) -> None:
    assert not any("Basic" in one for one in person.ask("GET", "/v1/latest").headers.get_list("WWW-Authenticate"))
    challenges = person.http.get("/v1/latest").headers.get_list("WWW-Authenticate")
    assert any("Basic" in one for one in challenges), "programs are told as before"


# Ends ------------------------------------------------------------------------------------------------


def test_signing_out_ends_the_session_here_and_in_the_box(person: Person) -> None:
    person.sign_in("viewer")
    cookie = person.cookie
    answer = person.ask("POST", "/logout")
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    person.http.cookies.set(COOKIE, cookie)
    answer = person.ask("GET", "/v1/latest")
    assert (answer.status_code, kind_of(answer)) == (401, "no-session")
    assert until(401, person, "/v1/devices").status_code == 401


@pytest.mark.parametrize("how", [("disable",), ("delete",), ("set-password",), ("sessions", "end")])
def test_commands_end_sessions(box: Box, how: tuple[str, ...], meet: Callable[[], Person]) -> None:
    name = f"leaver-{how[0]}"
    add_user(box, name, "viewer")
    person = meet()
    assert person.sign_in(name).status_code == 303
    assert person.ask("GET", "/v1/devices").status_code == 200
    users(box, *how, name, stdin=f"{PASSWORD} anew\n")
    for path in ("/v1/latest", "/v1/devices"):
        assert until(401, person, path).status_code == 401
    again = person.sign_in(name).status_code
    assert again == (303 if how[0] == "sessions" else 401)


@pytest.mark.parametrize("how", [("disable", "watcher"), ("sessions", "end", "watcher")])
def test_a_stream_ends_with_its_session(box: Box, how: tuple[str, ...], meet: Callable[[], Person]) -> None:
    if how[0] == "disable":
        add_user(box, "watcher", "viewer")
    else:
        users(box, "enable", "watcher")
        time.sleep(1.5)
    person = meet()
    assert person.sign_in("watcher").status_code == 303
    with person.http.stream("GET", "/v1/live", headers=person.origin) as live:
        assert live.status_code == 200
        users(box, *how)
        by_s = time.monotonic() + ENDS_S
        *_, last = live.iter_lines()
        assert time.monotonic() < by_s
        assert "session has ended" in "".join((*_, last))


def users(box: Box, *arguments: str, stdin: str = "") -> str:
    """Run `whimbrel users`."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "users", *arguments],
        cwd=PROJECT,
        env=box.environ,
        input=stdin,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout


# Roles -----------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, str, set[str]]] = [
    ("GET", "/v1/latest", {"viewer", "dispatcher", "admin"}),
    ("GET", "/v1/records", {"viewer", "dispatcher", "admin"}),
    ("GET", "/v1/devices", {"viewer", "dispatcher", "admin"}),
    ("GET", "/v1/summary", {"viewer", "dispatcher", "admin"}),
    ("GET", "/v1/box", {"viewer", "dispatcher", "admin"}),
    ("GET", "/status", {"viewer", "dispatcher", "admin"}),
    ("GET", "/metrics", {"viewer", "dispatcher", "admin"}),
    ("POST", "/v1/sql", {"dispatcher", "admin"}),
    ("POST", "/v1/records", {"admin"}),
    ("DELETE", "/v1/devices/nobody", {"admin"}),
    ("GET", "/v1/deletions/0-1", {"admin"}),
]


@pytest.mark.parametrize("role", ROLES)
def test_roles(person: Person, role: str) -> None:
    person.sign_in(role)
    for method, path, roles in ROUTES:
        answer = person.ask(method, path)
        assert (answer.status_code not in (401, 403)) == (role in roles), (method, path, answer.text)


def test_another_role_counts_at_once(box: Box, meet: Callable[[], Person]) -> None:
    add_user(box, "riser", "viewer")
    person = meet()
    person.sign_in("riser")
    assert person.ask("GET", "/v1/deletions/0-1").status_code == 403
    users(box, "set-role", "riser", "admin")
    assert until(404, person, "/v1/deletions/0-1").status_code == 404
    users(box, "set-role", "riser", "viewer")
    assert until(403, person, "/v1/deletions/0-1").status_code == 403


def test_a_bound_user_sees_the_own_devices(person: Person) -> None:
    person.sign_in("vans")
    assert [one["device_id"] for one in person.ask("GET", "/v1/latest").json()["records"]] == ["van-1"]
    assert person.ask("GET", "/v1/devices/bus-1/latest").status_code == 403
    assert person.ask("GET", "/v1/records?device_id=bus-1").status_code == 403
    assert person.ask("GET", "/v1/box").status_code == 403
