"""OpenID Connect: people sign in at a provider, by the authorization code flow with PKCE (OpenID Connect Core, 3.1).

Loaded by the API program alone, and only if `oidc.issuer` is set: Authlib and cryptography take 12 MB. Authlib makes
the requests and checks the claims, joserfc checks signatures, httpx sends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx
import msgspec
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from api.sign_in.oidc_attempts import ATTEMPT_S, Attempt, Attempts
from telemetry.config.secret_values import value_of
from telemetry.config.settings import OidcSection, Settings
from telemetry.model.errors import WhimbrelError
from telemetry.network.tls import trusting_files

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
"""Signatures with a private key of the provider; never `none`, nor a shared secret."""

LEEWAY_S = 60
"""How far the clocks of box and provider may differ."""

TIMEOUT_S = 10.0
FRESH_S = 3_600.0
KEYS_GAP_S = 30.0
"""Keys are read again for a key id that is not known, but not more often than this."""

MAX_ANSWER_BYTES = 2**20

Http = Callable[[], httpx.AsyncClient]


class Refused(WhimbrelError):
    """Somebody cannot sign in: the provider's answer is not acceptable, or names nobody with a role here."""


class Unreachable(WhimbrelError):
    """The provider cannot be asked, or its answer cannot be used."""


class Person(NamedTuple):
    """Who signed in. `role` is the one that the claims give; empty if they give none."""

    name: str
    role: str
    target: str


class Metadata(Struct, frozen=True):
    """What is used of the provider's discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Provider:
    """The provider that the settings name."""

    def __init__(
        self, settings: OidcSection, redirect_url: str, secret: str, http: Http, now_s: Callable[[], float] = time.time
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._redirect_url = redirect_url
        self._secret = secret
        self._http = http
        self._now_s = now_s
        self._attempts = Attempts(secrets.token_bytes(32), now_s)
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None
        self._read_at_s = self._keys_at_s = 0.0
        self._lock = asyncio.Lock()

    # The two steps -----------------------------------------------------------------------------------

    async def begin(self, target: str) -> tuple[str, str]:
        """The address at the provider to go to, and the cookie of this attempt. Raises `Unreachable`."""
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = Attempt(state, nonce, verifier, target, int(self._now_s()) + ATTEMPT_S)
        url = prepare_grant_uri(
            metadata.authorization_endpoint,
            self._settings.client_id,
            "code",
            self._redirect_url,
            self._settings.scopes,
            state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier).rstrip("="),
            code_challenge_method="S256",
        )
        return str(url), self._attempts.sealed(attempt)

    async def complete(self, query: Mapping[str, str], cookie: str) -> Person:
        """Who the provider says has signed in, by the query of the callback. Raises `Refused`, `Unreachable`."""
        attempt = self._attempts.completed(cookie, query.get("state", ""))
        if attempt is None:
            raise Refused("cannot sign in: this attempt is of another browser, took too long or is complete; try again")
        metadata = await self._discover()
        self._check_response(query, metadata)
        tokens = await self._tokens(metadata, query["code"], attempt.verifier)
        claims = await self._claims(metadata, tokens, attempt.nonce)
        return Person(self._name_of(claims), self._role_of(claims), attempt.target)

    def _check_response(self, query: Mapping[str, str], metadata: Metadata) -> None:
        issuer = query.get("iss", "")
        if issuer != metadata.issuer and (issuer or metadata.authorization_response_iss_parameter_supported):
            raise Refused("cannot sign in: the response is not of the configured provider (oidc.issuer)")
        if not query.get("code"):
            error = query.get("error", "")
            raise Refused(f"cannot sign in: the provider says {error if error.isidentifier() else 'nothing usable'}")

    # Asking the provider -----------------------------------------------------------------------------

    async def _discover(self) -> Metadata:
        async with self._lock:
            if self._metadata is None or not 0 <= self._now_s() - self._read_at_s < FRESH_S:
                self._metadata = await self._read_metadata()
                self._read_at_s = self._now_s()
            return self._metadata

    async def _read_metadata(self) -> Metadata:
        url = get_well_known_url(self._settings.issuer, external=True)
        try:
            found = msgspec.json.decode(await self._ask("GET", url), type=Metadata)
        except msgspec.DecodeError as error:
            raise Unreachable(f"cannot use {url}: {error}") from None
        if found.issuer != self._settings.issuer:
            raise Unreachable(f"cannot use {url}: it is of issuer {found.issuer!r}, not of oidc.issuer")
        for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if self._settings.issuer.startswith("https:") and not endpoint.startswith("https:"):
                raise Unreachable(f"cannot use {url}: {endpoint!r} is not https")
        return found

    async def _tokens(self, metadata: Metadata, code: str, verifier: str) -> Mapping[str, Any]:
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self._redirect_url, code_verifier=verifier
        )
        supported = metadata.token_endpoint_auth_methods_supported
        how = "client_secret_basic" if "client_secret_basic" in supported else "client_secret_post"
        auth = ClientAuth(self._settings.client_id, self._secret, how if self._secret else "none")
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        url, headers, body = auth.prepare("POST", metadata.token_endpoint, headers, body)
        try:
            return msgspec.json.decode(await self._ask("POST", url, headers, body), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Unreachable(f"cannot use the answer of {metadata.token_endpoint}: {error}") from None

    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "") -> bytes:
        try:
            async with (
                self._http() as http,
                http.stream(method, url, headers=headers, content=body.encode() or None) as answer,
            ):
                data = b""
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise Unreachable(f"cannot use {url}: its answer is larger than {MAX_ANSWER_BYTES} bytes")
        except httpx.HTTPError as error:
            raise Unreachable(f"cannot reach {url}: {error!r}") from None
        if method == "POST" and 400 <= answer.status_code < 500:
            raise Refused("cannot sign in: the provider does not accept this code; try again")
        if answer.status_code != httpx.codes.OK:
            raise Unreachable(f"cannot use {url}: its status is {answer.status_code}")
        return data

    # The ID token ------------------------------------------------------------------------------------

    async def _claims(self, metadata: Metadata, tokens: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        try:
            token = await self._verified(metadata, str(tokens.get("id_token", "")))
            options = {name: {"essential": True, "value": value} for name, value in self._expected(metadata).items()}
            params = {
                "nonce": nonce,
                "client_id": self._settings.client_id,
                "access_token": tokens.get("access_token"),
            }
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(now=int(self._now_s()), leeway=LEEWAY_S)
        except (JoseError, msgspec.MsgspecError, ValueError, TypeError, LookupError) as error:
            raise Refused(f"cannot sign in: the provider's ID token is not valid: {type(error).__name__}") from None
        return dict(claims)

    def _expected(self, metadata: Metadata) -> dict[str, str]:
        return {"iss": metadata.issuer, "aud": self._settings.client_id}

    async def _verified(self, metadata: Metadata, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, await self._key_set(metadata), algorithms=ALGORITHMS)
        except InvalidKeyIdError:  # the provider may have changed its keys
            return jwt.decode(token, await self._key_set(metadata, KEYS_GAP_S), algorithms=ALGORITHMS)

    async def _key_set(self, metadata: Metadata, max_age_s: float = FRESH_S) -> KeySet:
        async with self._lock:
            if self._keys is None or not 0 <= self._now_s() - self._keys_at_s < max_age_s:
                found = msgspec.json.decode(await self._ask("GET", metadata.jwks_uri))
                self._keys, self._keys_at_s = KeySet.import_key_set(found), self._now_s()
            return self._keys

    # The person --------------------------------------------------------------------------------------

    def _name_of(self, claims: Mapping[str, Any]) -> str:
        is_email_needed = bool(self._settings.email_domains) or self._settings.name_claim == "email"
        email = str(claims.get("email", "")).lower() if claims.get("email_verified") is True else ""
        if is_email_needed and not email:
            raise Refused("cannot sign in: the provider gives no verified email address")
        if self._settings.email_domains and email.rpartition("@")[2] not in self._settings.email_domains:
            raise Refused("cannot sign in: this email address is not of a domain in oidc.email_domains")
        name = claims.get(self._settings.name_claim)
        if not isinstance(name, str) or not name:
            raise Refused(f"cannot sign in: the ID token has no claim {self._settings.name_claim} (oidc.name_claim)")
        return name.lower()

    def _role_of(self, claims: Mapping[str, Any]) -> str:
        found = _claim(claims, self._settings.role_claim)
        values = {found} if isinstance(found, str) else set(map(str, found)) if isinstance(found, list) else set()
        pairs = (one.rpartition("=") for one in self._settings.roles)
        return next((role for value, _, role in pairs if value in values), "")


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by names with dots in between inside of another, as in `realm_access.roles`."""
    if name in claims or "." not in name:
        return claims.get(name)
    first, _, rest = name.partition(".")
    inner = claims.get(first)
    return _claim(inner, rest) if isinstance(inner, dict) else None


def provider_of(settings: Settings, callback: str) -> Provider:
    """The provider. Raises `ConfigError` if its secret or certificates cannot be read."""
    o = settings.oidc
    context: ssl.SSLContext | bool = trusting_files(o.ca_file) if o.issuer.startswith("https:") else False

    def http() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=context, timeout=TIMEOUT_S)

    secret = value_of(o.client_secret, os.environ)
    return Provider(o, settings.auth.public_url + callback, secret, http)
