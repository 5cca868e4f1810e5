"""`/docs` and `/redoc`: viewers of `/openapi.json` that load no files from other hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.legacy.swagger import POLICY, REDOC_POLICY
from api.responses.html import page

DOCUMENT = "/openapi.json"
PAGES = {"/docs": ("swagger.html", POLICY), "/redoc": ("redoc.html", REDOC_POLICY)}


def routes() -> list[Route]:
    """Both pages, each with and without a trailing slash."""
    return [
        Route(address, _viewer(template, policy))
        for path, (template, policy) in PAGES.items()
        for address in (path, f"{path}/")
    ]


def _viewer(template: str, policy: str) -> Callable[[Request], Awaitable[Response]]:
    async def get_page(_request: Request) -> Response:
        headers = {"Content-Security-Policy": policy}
        return page(template, headers=headers, title="The API of Whimbrel", document=DOCUMENT)

    return get_page
