"""`next` and `previous`: absolute URLs with the parameters sorted by name and encoded again."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

from starlette.requests import Request

from api.requests.query_headers import SCHEME


def to_page(request: Request, number: int) -> str:
    """The URL of a page, with `page=number`, or without it for the first. Keeps repeated and empty parameters."""
    arguments = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    arguments.pop("page", None)
    if number > 1:
        arguments["page"] = [str(number)]
    query = urlencode(sorted(arguments.items()), doseq=True)
    scheme = "https" if request.headers.get(SCHEME.decode()) == "https" else "http"
    return f"{scheme}://{_host(request)}{request.scope['path']}" + (f"?{query}" if query else "")


def _host(request: Request) -> str:
    host, port = request.scope["server"]
    return request.headers.get("host") or f"{host}:{port}"
