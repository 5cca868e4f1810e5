"""An OpenID Connect provider for tests, on loopback: discovery, keys, authorization and token endpoint.

It has the checks of a real provider (client, redirect address, PKCE, codes that are used once), and can be set to send
false responses.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "whimbrel-box", "a secret of the provider"

Claims = dict[str, Any]


class OidcProvider:
    """The provider. Each ID token contains `claims`; `change` may alter them, `sign` the token."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        self.claims: Claims = {}
        self.change: Callable[[Claims], Claims] = lambda claims: claims
        self.sign: Callable[[Claims], str] = self.signed
        self.asked: list[str] = []
        self.redirect_url = ""
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> OidcProvider:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self, **claims: Any) -> None:
        """Tell the truth again, of a person with these claims."""
        self.claims = {"sub": "person-1", "email": "ada@example.com", "email_verified": True, **claims}
        self.change, self.sign = lambda found: found, self.signed

    def signed(self, claims: Claims, **header: Any) -> str:
        """An ID token."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid, **header}, claims, self.key)

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = RSAKey.generate_key(2048, {"kid": f"key {secrets.token_hex(4)}", "use": "sig"})

    # The endpoints -----------------------------------------------------------------------------------

    def authorize(self, query: dict[str, str]) -> str:
        """The redirect address after a user has agreed."""
        assert (query["client_id"], query["response_type"]) == (CLIENT, "code")
        assert query["redirect_uri"] == self.redirect_url
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Claims]:
        """The answer of the token endpoint."""
        query = self._codes.pop(form["code"], None)
        digest = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).decode().rstrip("=")
        is_client = b64decode(authorization.removeprefix("Basic ")).decode() == f"{CLIENT}:{SECRET}"
        if query is None or digest != query["code_challenge"] or not is_client:
            return 400, {"error": "invalid_grant"}
        now_s = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now_s, "exp": now_s + 60, "nonce": query["nonce"]}
        token = self.sign(self.change(claims | self.claims))
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": token}

    def _answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Claims]:
        base = self.issuer
        self.asked.append(path)
        if path == "/realm/.well-known/openid-configuration":
            endpoints = {f"{name}_endpoint": f"{base}/{name}" for name in ("authorization", "token")}
            return 200, {"issuer": base, "jwks_uri": f"{base}/keys", **endpoints}
        if path == "/realm/keys":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        return self.token(form, authorization) if path == "/realm/token" else (404, {})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if asked.path != "/realm/authorization":
                    self.do_POST()
                    return
                self.send_response(302)  # a person who is known there, and agreed before
                self.send_header("Location", provider.authorize(dict(parse_qsl(asked.query))))
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                found = provider._answer(
                    urlsplit(self.path).path, dict(parse_qsl(body)), self.headers.get("Authorization", "")
                )
                self.send_response(found[0])
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found[1]).encode())

            def log_message(self, *_words: object) -> None:
                pass

        return Handler
