"""People who sign in at an OpenID Connect provider, and what a provider, a stranger or another site may try."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from telemetry.access import user_store
from telemetry.access.users import make_user
from telemetry.config.settings import PROJECT
from tests.api.conftest import Box, box_on
from tests.box import plain_http
from tests.conftest import RedisServer
from tests.oidc_provider import CLIENT, SECRET, Claims, OidcProvider

pytestmark = pytest.mark.slow

SESSION, ATTEMPT = "whimbrel_session", "whimbrel_login"


class Both(NamedTuple):
    """A box and its provider."""

    box: Box
    provider: OidcProvider


@pytest.fixture(scope="module")
def both(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with OidcProvider() as provider:
        more = {
            "auth__required": "true",
            "limits__address_wrong_keys_per_min": "0",
            "auth__public_url": "http://fleet.example.com",
            "oidc__issuer": provider.issuer,
            "oidc__client_id": CLIENT,
            "oidc__client_secret": "env:SECRET_OF_PROVIDER",
            "oidc__name": "Example",
            "oidc__role_claim": "realm_access.roles",
            "oidc__roles": '["fleet-admins=admin", "fleet=viewer"]',
            "oidc__email_domains": '["example.com"]',
        }
        provider.redirect_url = "http://fleet.example.com/login/callback"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SECRET_OF_PROVIDER", SECRET)
            with box_on(shared_redis.url, tmp_path_factory.mktemp("oidc"), **more) as box:
                yield Both(box, provider)


@pytest.fixture
def person(both: Both) -> Iterator[httpx.Client]:
    """A browser of somebody in the fleet's group."""
    both.provider.reset(realm_access={"roles": ["other", "fleet"]})
    with plain_http(f"http://127.0.0.1:{both.box.port}") as http:
        yield http


def agreed(both: Both, person: httpx.Client, target: str = "/#tab=box") -> str:
    """The callback's address, path and query, after the person agreed at the provider."""
    answer = person.get("/login/oidc", params={"next": target})
    assert answer.status_code == 303, answer.text
    location = urlsplit(answer.headers["Location"])
    assert f"{location.scheme}://{location.netloc}{location.path}" == f"{both.provider.issuer}/authorization"
    back = urlsplit(both.provider.authorize(dict(parse_qsl(location.query))))
    return f"{back.path}?{back.query}"


def come_back(person: httpx.Client, callback: str) -> httpx.Response:
    """The answer to the callback, which a browser sends as a navigation from the provider."""
    return person.get(callback, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})


def assert_refused(answer: httpx.Response, why: str, status: int = 403) -> None:
    """Nobody is signed in, and the page says why."""
    assert answer.status_code == status, answer.text
    assert why in answer.text, answer.text
    assert f"{SESSION}=" not in str(answer.headers.get_list("Set-Cookie"))


def test_a_person_of_the_provider_signs_in(both: Both, person: httpx.Client) -> None:
    assert "Sign in with Example" in person.get("/login").text
    answer = come_back(person, agreed(both, person))
    assert answer.status_code == 200, answer.text
    assert 'content="0; url=/#tab=box"' in answer.text
    who = person.get("/v1/session").json()
    assert (who["user"], who["scopes"]) == ("ada@example.com", ["read"])
    assert person.get("/v1/devices").status_code == 200
    assert ATTEMPT not in person.cookies
    assert user_store.people(both.box.client).users == {}, "nothing of the person is stored but the session"
    assert person.get("/", headers={"Accept": "text/html"}).text.count('data-login="/login"') == 1


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"realm_access": {"roles": ["cleaners"]}}, "no role here"),
        ({"realm_access": "fleet"}, "no role here"),
        ({"email_verified": False}, "no verified email address"),
        ({"email_verified": "true"}, "no verified email address"),
        ({"email": ""}, "no verified email address"),
        ({"email": "ada@evil.example"}, "oidc.email_domains"),
        ({"email": "ada@example.com@evil.example"}, "oidc.email_domains"),
        ({"email": "<b>ada@example.com"}, "cannot be a user&#39;s name"),
    ],
)
def test_who_is_refused(both: Both, person: httpx.Client, claims: Claims, why: str) -> None:
    both.provider.claims |= claims
    assert_refused(come_back(person, agreed(both, person)), why)


def shifted(name: str, by_s: int) -> Callable[[Claims], Claims]:
    return lambda claims: {**claims, name: int(time.time()) + by_s}


def without(name: str) -> Callable[[Claims], Claims]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: {**claims, "nonce": "another"},
        lambda claims: {**claims, "aud": "another-client"},
        lambda claims: {**claims, "aud": [CLIENT, "another"], "azp": "another"},
        lambda claims: {**claims, "iss": "https://evil.example"},
        shifted("exp", -120),
        shifted("nbf", 600),
        *map(without, ("nonce", "aud", "iss", "exp", "sub", "iat")),
    ],
)
def test_claims_that_are_not_right(both: Both, person: httpx.Client, change: Callable[[Claims], Claims]) -> None:
    both.provider.change = change
    assert_refused(come_back(person, agreed(both, person)), "ID token is not valid")


def unsigned(claims: Claims) -> str:
    return "eyJhbGciOiJub25lIn0." + jwt.encode({"alg": "HS256"}, claims, OctKey.generate_key()).split(".")[1] + "."


def with_public_key_as_secret(provider: OidcProvider) -> Callable[[Claims], str]:
    def sign(claims: Claims) -> str:
        parts = ({"alg": "HS256", "kid": provider.key.kid}, claims)
        text = ".".join(urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts)
        seal = hmac.digest(provider.key.as_pem(private=False), text.encode(), "sha256")
        return f"{text}.{urlsafe_b64encode(seal).decode().rstrip('=')}"

    return sign


def of_another_key(kid: str) -> Callable[[Claims], str]:
    key = RSAKey.generate_key(2048)
    return lambda claims: jwt.encode({"alg": "RS256", "kid": kid}, claims, key)


def test_tokens_that_the_provider_did_not_sign(both: Both, person: httpx.Client) -> None:
    provider = both.provider
    forged: list[Callable[[Claims], str]] = [
        unsigned,
        with_public_key_as_secret(provider),
        of_another_key("first"),
        of_another_key("unknown"),
        lambda claims: provider.signed(claims)[:-4] + "AAAA",
        lambda _: "",
        lambda _: "not a token",
    ]
    for sign in forged:
        provider.sign = sign
        assert_refused(come_back(person, agreed(both, person)), "ID token is not valid")


def test_an_attempt_counts_once_and_in_its_browser_alone(both: Both, person: httpx.Client) -> None:
    callback = agreed(both, person)
    cookie = person.cookies[ATTEMPT]
    with plain_http(f"http://127.0.0.1:{both.box.port}") as other:
        assert_refused(come_back(other, callback), "of another browser")
        agreed(both, other)
        assert_refused(come_back(other, callback), "of another browser")
    assert come_back(person, callback).status_code == 200
    with plain_http(f"http://127.0.0.1:{both.box.port}") as again:
        again.cookies.set(ATTEMPT, cookie)
        assert_refused(come_back(again, callback), "is complete")
        again.cookies.set(ATTEMPT, cookie[:-1] + ("0" if cookie[-1] != "0" else "1"))
        assert_refused(come_back(again, callback), "of another browser")


def test_a_code_counts_once(both: Both, person: httpx.Client) -> None:
    used = dict(parse_qsl(urlsplit(agreed(both, person)).query))
    assert come_back(person, f"/login/callback?{httpx.QueryParams(used)}").status_code == 200
    fresh = dict(parse_qsl(urlsplit(agreed(both, person)).query))
    replayed = httpx.QueryParams({**fresh, "code": used["code"]})
    assert_refused(come_back(person, f"/login/callback?{replayed}"), "does not accept this code")


@pytest.mark.parametrize("more", [{"iss": "https://evil.example"}, {"code": ""}, {"state": "x"}, {"state": ""}])
def test_responses_that_are_not_right(both: Both, person: httpx.Client, more: dict[str, str]) -> None:
    query = dict(parse_qsl(urlsplit(agreed(both, person)).query)) | more
    assert_refused(come_back(person, f"/login/callback?{httpx.QueryParams(query)}"), "cannot sign in")


def test_an_error_of_the_provider_is_shown_as_text(both: Both, person: httpx.Client) -> None:
    state = dict(parse_qsl(urlsplit(agreed(both, person)).query))["state"]
    answer = come_back(person, f"/login/callback?{httpx.QueryParams({'state': state, 'error': 'access_denied'})}")
    assert_refused(answer, "access_denied")
    state = dict(parse_qsl(urlsplit(agreed(both, person)).query))["state"]
    answer = come_back(person, f"/login/callback?{httpx.QueryParams({'state': state, 'error': '<script>'})}")
    assert_refused(answer, "nothing usable")
    assert "<script" not in answer.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", '/"><script>'])
def test_nobody_is_led_elsewhere(both: Both, person: httpx.Client, target: str) -> None:
    answer = come_back(person, agreed(both, person, target))
    assert re.findall(r'url=([^"]*)"', answer.text) in (["/"], ["/&#34;&gt;&lt;script&gt;"])
    assert "evil" not in answer.text


def test_keys_that_the_provider_changed_are_read_again_but_not_for_each_request(
    both: Both, person: httpx.Client
) -> None:
    assert come_back(person, agreed(both, person)).status_code == 200
    both.provider.sign = of_another_key("unknown")
    for _ in range(5):
        come_back(person, agreed(both, person))
    assert both.provider.asked.count("/realm/keys") <= 2
    assert both.provider.asked.count("/realm/.well-known/openid-configuration") == 1


def test_users_stored_here_count_before_claims(both: Both, person: httpx.Client) -> None:
    def store(**more: Any) -> None:
        user_store.remove_user(both.box.client, "ada@example.com")
        user = make_user("ada@example.com", "dispatcher", int(time.time()), (), "van-")
        user_store.add_user(both.box.client, msgspec.structs.replace(user, **more))

    try:
        both.provider.claims["realm_access"] = {"roles": ["fleet-admins"]}
        store()
        assert come_back(person, agreed(both, person)).status_code == 200
        who = person.get("/v1/session").json()
        assert (who["scopes"], who["prefix"]) == (["read", "sql"], "van-")
        store(is_disabled=True)
        assert_refused(come_back(person, agreed(both, person)), "disabled")
        store(password="scrypt$…")
        assert_refused(come_back(person, agreed(both, person)), "has a password here")
    finally:
        user_store.remove_user(both.box.client, "ada@example.com")


def test_no_secret_is_shown_or_logged(both: Both, person: httpx.Client) -> None:
    callback = agreed(both, person)
    code = dict(parse_qsl(urlsplit(callback).query))["code"]
    text = come_back(person, callback).text + person.get("/login").text
    log = both.box._log.read_text()
    for secret in (SECRET, code, person.cookies[SESSION]):
        assert secret not in text + log
    assert json.dumps(SECRET) not in str(both.box.client.hgetall("whimbrel:sessions"))


def test_programs_without_a_provider_load_no_library_of_oidc() -> None:
    modules = "sys, api.__main__, api.query.program"
    text = f"import {modules}; print([one for one in ('authlib', 'joserfc') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
