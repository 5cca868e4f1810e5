"""Steps taken over HTTP: with calls that wait, or with an event loop. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple, TypeVar

import httpx

from whimbrel_client.errors import AnswerBrokenOff, BoxUnavailable
from whimbrel_client.steps import Answer, Ask, Steps, Wait

T = TypeVar("T")


class Reached(NamedTuple):
    """A box: where it is, who asks, and how long it may be silent."""

    url: str
    key: str | None
    timeout_s: float
    ca_file: str | os.PathLike[str] | None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each request. A box on this machine does not compress: that would only cost CPU time."""
        headers = {"Accept-Encoding": "identity"} if _is_loopback(httpx.URL(self.url).host) else {}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """Whom to believe: the usual authorities, or those of a file."""
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_of(box: Reached) -> httpx.Client:
    """Connections that wait."""
    return httpx.Client(base_url=box.url, headers=box.headers, timeout=box.timeout_s, verify=box.verify)


def async_client_of(box: Reached) -> httpx.AsyncClient:
    """Connections of an event loop."""
    return httpx.AsyncClient(base_url=box.url, headers=box.headers, timeout=box.timeout_s, verify=box.verify)


def run(web: httpx.Client, steps: Steps[T]) -> T:
    """Take steps to their end."""
    given: object = None
    error: Exception | None = None
    with closing(steps):  # they hear of it where they are left amid a step
        while True:
            try:
                step = steps.send(given) if error is None else steps.throw(error)
            except StopIteration as end:
                found: T = end.value
                return found
            given = error = None
            try:
                if isinstance(step, Ask):
                    given = answer(web, step)
                elif isinstance(step, Wait):
                    time.sleep(step.seconds)
                else:
                    given = step.call()
            except Exception as raised:
                error = raised


async def run_async(web: httpx.AsyncClient, steps: Steps[T]) -> T:
    """Take steps to their end."""
    given: object = None
    error: Exception | None = None
    with closing(steps):
        while True:
            try:
                step = steps.send(given) if error is None else steps.throw(error)
            except StopIteration as end:
                found: T = end.value
                return found
            given = error = None
            try:
                if isinstance(step, Ask):
                    given = await answer_async(web, step)
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                else:
                    given = await asyncio.to_thread(step.call)
            except Exception as raised:
                error = raised


def request_of(web: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    """What goes to the box."""
    content = ask.body if ask.method == "POST" else None
    return web.build_request(ask.method, ask.path, params=list(ask.parameters), headers=ask.headers, content=content)


def answer(web: httpx.Client, ask: Ask) -> Answer:
    """The answer to a request, whole. Raises `BoxUnavailable` if there is none, `AnswerBrokenOff` if it has no end."""
    request = request_of(web, ask)
    try:
        response = web.send(request, stream=True)
    except httpx.TransportError as error:
        raise unreached(request, error) from error
    try:
        return heard(response, response.read())
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise broken_off(request, error) from error
    finally:
        response.close()


async def answer_async(web: httpx.AsyncClient, ask: Ask) -> Answer:
    """The same on an event loop."""
    request = request_of(web, ask)
    try:
        response = await web.send(request, stream=True)
    except httpx.TransportError as error:
        raise unreached(request, error) from error
    try:
        return heard(response, await response.aread())
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise broken_off(request, error) from error
    finally:
        await response.aclose()


def heard(response: httpx.Response, content: bytes) -> Answer:
    """A response as steps take it."""
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


def unreached(request: httpx.Request, error: Exception) -> BoxUnavailable:
    """No answer came."""
    return BoxUnavailable(f"cannot ask {request.url.host}:{request.url.port}: {error or type(error).__name__}")


def broken_off(request: httpx.Request, error: Exception) -> AnswerBrokenOff:
    """Part of an answer came."""
    why = error or type(error).__name__
    return AnswerBrokenOff(f"cannot read all of the answer to {request.method} {request.url.path}: {why}")
