"""`/login`, `/logout` and `/v1/session`: people sign in with a password, sign out, and see who they are.

The login page runs no scripts. Its form is accepted from the box's own pages only, so that no other site can sign
somebody in as another person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, quote

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.responses import record_schema
from api.responses.html import HEADERS, page
from api.responses.record_schema import wants_json
from api.sign_in.password_check import Passwords
from api.sign_in.session_start import NO_STORE, SignIn, own_address, see
from telemetry.access.users import KEY_ID, csrf_token
from telemetry.browsers.session_cookie import is_same_origin
from telemetry.coordination import rejection_counts
from telemetry.http.authentication import LOGIN, Sessions, caller_of
from telemetry.http.operations import Content, Operation
from telemetry.http.problem_responses import ProblemError, refuse_unknown
from telemetry.http.rate_limiting import ASKING
from telemetry.limits.client_address import Addresses
from telemetry.model import problems
from telemetry.model.api_keys import Caller
from telemetry.model.utc import TimeText, iso

MAX_FORM_BYTES, MAX_FIELDS = 16_384, 10
PROVIDER_LOGIN, CALLBACK, LOGOUT = "/login/oidc", "/login/callback", "/logout"

POLICY = f"{HEADERS['Content-Security-Policy']}; form-action 'self'; base-uri 'none'"
FORM_TYPE = "application/x-www-form-urlencoded"


class WhoIsThere(Struct, frozen=True):
    """The caller: a person who signed in (`user`), or a key (`key_id`). `csrf_token` is that of the session."""

    user: str | None
    key_id: str | None
    scopes: list[str]
    devices: list[str]
    prefix: str
    csrf_token: str | None
    expires_at: TimeText | None


SESSION = Operation(
    "GET",
    "/v1/session",
    "get_session",
    "The caller: who signed in, or which key this is",
    "box",
    {200: Content("The caller", {"application/json": WhoIsThere})},
    problems=(problems.NO_KEY,),
    description="`csrf_token` goes into `X-CSRF-Token` of requests that change something with a session's cookie.",
)


class LoginRoutes:
    """The routes. Without sessions, on a box that asks for no credentials, there is nobody to sign in."""

    def __init__(
        self,
        sessions: Sessions | None,
        sign_in: SignIn | None,
        addresses: Addresses,
        provider: str = "",
        more: Sequence[Route] = (),
        passwords: Passwords | None = None,
    ) -> None:
        """`provider`: name of the OIDC provider on the page, `more`: its routes; empty without one."""
        self._sessions = sessions
        self._sign_in = sign_in
        self._addresses = addresses
        self._provider = provider
        self._more = more
        self._passwords = passwords or Passwords()

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route(LOGIN, self.get_login, methods=["GET"]),
            Route(LOGIN, self.post_login, methods=["POST"]),
            Route(LOGOUT, self.post_logout, methods=["POST"]),
            SESSION.route(self.get_session),
            *self._more,
        ]

    async def get_login(self, request: Request) -> Response:
        """The login page; somebody who is signed in goes on."""
        target = own_address(request.query_params.get("next", "/"))
        if self._sessions is None or caller_of(request.scope).session:
            return see(target)
        return self._page(target)

    async def post_login(self, request: Request) -> Response:
        """Sign in with the form's name and password."""
        if self._sessions is None or self._sign_in is None:
            raise ProblemError(problems.NOT_FOUND, "this box asks for no credentials")
        if not is_same_origin(request.scope["headers"]):
            raise ProblemError(problems.WRONG_CSRF, "sign in at this box's own login page")
        form = await _form(request)
        name, target = form("name").strip().lower(), own_address(form("next"))
        address = address_of(request, self._addresses)
        try:
            user = await self._passwords.check(name, self._sessions.cache.user(name), form("password"), address)
            return see(target, await self._sign_in.begin(request, user.name, address))
        except ProblemError as error:
            if wants_json(request):
                raise
            rejection_counts.count(error.kind)
            return self._page(target, error, name)

    async def post_logout(self, request: Request) -> Response:
        """End the session. Without its token in `X-CSRF-Token` it goes on."""
        if self._sign_in is None or not caller_of(request.scope).session:
            raise ProblemError(problems.WRONG_CSRF, "cannot sign out: send the session's token in X-CSRF-Token")
        return await self._sign_in.end(request)

    async def get_session(self, request: Request) -> Response:
        """The caller."""
        refuse_unknown(request, ())
        caller = caller_of(request.scope)
        if not caller.scopes:
            raise ProblemError(problems.NO_KEY, "nobody is signed in, and there is no key")
        token = None
        if self._sessions is not None and caller.session:
            token = csrf_token(self._sessions.cookies.session(request.scope["headers"]))
        return record_schema.json(_shown(caller, token), headers=NO_STORE)

    def _page(self, target: str, error: ProblemError | None = None, name: str = "") -> Response:
        return login_page(target, error, name, self._provider)


def address_of(request: Request, addresses: Addresses) -> str:
    """The address of the client, as limits know it."""
    asking = request.scope.get(ASKING)
    if asking is not None:
        return str(asking.address)
    return addresses.asking(request.client.host if request.client else "", request.scope["headers"])


def login_page(target: str, error: ProblemError | None = None, name: str = "", provider: str = "") -> Response:
    """The login page, which leads to `target`; `error`: why the last attempt failed."""
    headers = {"Content-Security-Policy": POLICY, **NO_STORE, **(error.headers or {} if error else {})}
    words = "" if error is None else f"{error.kind.title}: {error}."
    query = f"?next={quote(target, safe='')}"
    return page(
        "login.html",
        error.kind.status if error else 200,
        headers=headers,
        target=target,
        words=words,
        name=name,
        provider=provider,
        provider_url=PROVIDER_LOGIN + query,
        key_url=_with_key(target),
    )


def _with_key(target: str) -> str:
    """The page, told to ask for a key."""
    fragment = target.partition("#")[2]
    return f"/?with=key#{fragment}" if fragment else "/?with=key"


def _shown(caller: Caller, token: str | None) -> WhoIsThere:
    is_user = caller.key_id.startswith(KEY_ID)
    return WhoIsThere(
        caller.key_id.removeprefix(KEY_ID) if is_user else None,
        caller.key_id or None if not is_user else None,
        sorted(caller.scopes),
        sorted(caller.binding.devices),
        caller.binding.prefix,
        token,
        iso(caller.expires_s * 1_000_000) if caller.expires_s else None,
    )


async def _form(request: Request) -> Callable[[str], str]:
    """The fields of a form; one that is missing is empty. Raises `ProblemError`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise ProblemError(problems.UNSUPPORTED_TYPE, f"send {FORM_TYPE}", {"Accept": FORM_TYPE})
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_FORM_BYTES:
            raise ProblemError(
                problems.BODY_TOO_LARGE, f"a form may have {MAX_FORM_BYTES} bytes", {"Connection": "close"}
            )
    try:
        fields = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise ProblemError(problems.INVALID_PARAMETER, f"a form may have {MAX_FIELDS} fields") from None
    return lambda name: fields.get(name, [""])[0]
