"""What stands before an application and asks for whom a request came and of which page."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from telemetry.browsers.host_names import Hosts
from telemetry.http.site_check import SiteCheck
from telemetry.model import problems

MAP = ("https://map.example.com",)


class App:
    """What is behind, and what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.scopes.append(scope)


def ask(app: App, check: SiteCheck, path: str = "/v1/latest", method: str = "GET", **headers: str) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("no body is read")

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "path": path, "method": method, "headers": pairs}
    asyncio.run(check(scope, receive, send))
    assert bool(sent) is not bool(app.scopes)
    return sent


def status(**more: Any) -> int:
    app = App()
    sent = ask(app, SiteCheck(app, Hosts(["box"]), MAP, lambda path: path == "/"), **more)
    return sent[0]["status"] if sent else 200


def test_what_devices_send_passes() -> None:
    assert status(host="box:8000") == 200
    assert status(host="127.0.0.1", user_agent="curl/8", method="POST") == 200
    assert status() == 200, "HTTP/1.0"


def test_other_hosts_are_misdirected() -> None:
    assert status(host="evil.example.com") == problems.MISDIRECTED.status
    assert status(host="evil.example.com", origin=MAP[0]) == problems.MISDIRECTED.status


def test_pages_of_other_sites() -> None:
    other = {"host": "box", "sec_fetch_site": "cross-site"}
    link = {**other, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(**other) == problems.FOREIGN_PAGE.status
    assert status(**other, origin=MAP[0], method="POST") == 200
    assert status(**other, origin="https://evil.example.com", method="OPTIONS") == problems.FOREIGN_PAGE.status
    assert status(**link) == problems.FOREIGN_PAGE.status
    assert status(**link, path="/") == 200
    assert status(**link, path="/", method="POST") == problems.FOREIGN_PAGE.status


def test_what_is_no_request_passes() -> None:
    app = App()

    async def none() -> Message:
        raise AssertionError

    async def nowhere(_message: Message) -> None:
        raise AssertionError

    asyncio.run(SiteCheck(app, Hosts(()), ())({"type": "lifespan"}, none, nowhere))
    assert app.scopes
