"""`/`: the page that shows the fleet, live and back in time. All that it shows this API answers, and no other host."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.answers import wants_json
from api.html import page

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "connect-src 'self' blob:",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load. MapLibre decodes images as blobs, and its style sheet has those of its controls as data;
map data that a worker of the page has unpacked come to it as blobs, too."""


def routes() -> list[Route]:
    """The page."""
    return [Route("/", get_page, methods=["GET"])]


async def get_page(request: Request) -> Response:
    """The page. Programs that ask for JSON hear, as before there was one, that there is nothing at this address."""
    if wants_json(request):
        raise HTTPException(404)
    return page("page.html", headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})
