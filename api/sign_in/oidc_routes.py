"""`/login/oidc` and `/login/callback`: the way to the OIDC provider and back. Loaded only where one is configured."""

from __future__ import annotations

import asyncio
import logging

import redis
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.responses.html import page
from api.sign_in.oidc import Person, Provider, Refused, Unreachable, provider_of
from api.sign_in.oidc_attempts import ATTEMPT_S
from api.sign_in.routes import CALLBACK, PROVIDER_LOGIN, address_of, login_page
from api.sign_in.session_start import NO_STORE, SignIn, own_address
from telemetry.access import user_store
from telemetry.access.users import InvalidUser, User, make_user
from telemetry.browsers.session_cookie import Cookies
from telemetry.config.settings import Settings
from telemetry.coordination import rejection_counts
from telemetry.http.authentication import Sessions
from telemetry.http.problem_responses import ProblemError
from telemetry.limits.client_address import Addresses
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError

COOKIE = "whimbrel_login"

log = logging.getLogger(__name__)


class ProviderLogin:
    """The two routes."""

    def __init__(
        self, provider: Provider, sign_in: SignIn, client: redis.Redis, cookies: Cookies, addresses: Addresses
    ) -> None:
        self._provider = provider
        self._sign_in = sign_in
        self._client = client
        self._cookies = cookies
        self._addresses = addresses

    def routes(self) -> list[Route]:
        """Both routes."""
        return [
            Route(PROVIDER_LOGIN, self.get_provider, methods=["GET"]),
            Route(CALLBACK, self.get_callback, methods=["GET"]),
        ]

    async def get_provider(self, request: Request) -> Response:
        """Redirect to the provider."""
        target = own_address(request.query_params.get("next", "/"))
        try:
            url, cookie = await self._provider.begin(target)
        except Unreachable as error:
            return self._failed(error, target)
        response = RedirectResponse(url, 303, NO_STORE)
        response.headers.append("Set-Cookie", self._cookies.set(cookie, ATTEMPT_S, COOKIE))
        return response

    async def get_callback(self, request: Request) -> Response:
        """Sign in the person whom the provider names.

        The answer is a page, not a redirect, so that the next request is one of this box's own page: the session counts
        on no other.
        """
        cookie = self._cookies.read(request.scope["headers"], COOKIE)
        try:
            person = await self._provider.complete(dict(request.query_params), cookie)
            role = await self._role(person)
            session = await self._sign_in.begin(request, person.name, address_of(request, self._addresses), role)
        except (Refused, Unreachable) as error:
            return self._failed(error)
        except ProblemError as error:
            return self._cleared(login_page("/", error, provider=self._provider.name))
        response = page("signed_in.html", headers=NO_STORE, target=own_address(person.target))
        response.headers.append("Set-Cookie", session)
        return self._cleared(response)

    async def _role(self, person: Person) -> str:
        """The role for the session; empty if the stored user's counts. Raises `Refused`."""
        try:
            make_user(person.name, "viewer", 0)
            stored = await asyncio.to_thread(user_store.user, self._client, person.name)
        except InvalidUser:
            raise Refused("cannot sign in: the name that the provider gives cannot be a user's name") from None
        except (StoreError, BusyError) as error:
            raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
        return _role_beside(stored, person.role)

    def _failed(self, error: Refused | Unreachable, target: str = "/") -> Response:
        kind = problems.BUSY if isinstance(error, Unreachable) else problems.LOGIN_REFUSED
        rejection_counts.count(kind)
        log.warning("OIDC: %s", error)
        shown = "the provider cannot be asked now" if isinstance(error, Unreachable) else str(error)
        return self._cleared(login_page(target, ProblemError(kind, shown), provider=self._provider.name))

    def _cleared(self, response: Response) -> Response:
        response.headers.append("Set-Cookie", self._cookies.clear(COOKIE))
        return response


def _role_beside(stored: User | None, role: str) -> str:
    if stored is None:
        if not role:
            raise Refused("cannot sign in: the provider gives this person no role here (oidc.roles)")
        return role
    if stored.is_disabled:
        raise Refused("cannot sign in: this user is disabled")
    if stored.password:
        raise Refused("cannot sign in: this user has a password here, and signs in with it")
    return ""


def routes_of(
    settings: Settings, sessions: Sessions, sign_in: SignIn, client: redis.Redis, addresses: Addresses
) -> list[Route]:
    """The routes, as the settings say. Raises `ConfigError`."""
    provider = provider_of(settings, CALLBACK)
    return ProviderLogin(provider, sign_in, client, sessions.cookies, addresses).routes()
