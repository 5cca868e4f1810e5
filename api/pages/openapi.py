"""`/openapi.json`: what this API takes and answers, as OpenAPI 3.1 has it, made at the start of what serves requests.

Operations (telemetry/http/operations.py) are what routes are made of and parameters are checked by; types are those
that answers are encoded from. The query program makes and serves it: its operations need what the API program does
without.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.requests.params import LIMIT, limit_to
from api.requests.route_scopes import need_of
from telemetry.browsers.session_cookie import SAFE_METHODS
from telemetry.http.authentication import Need
from telemetry.http.operations import Content, Operation, Parameter, Schema
from telemetry.model import api_keys, problems
from telemetry.model.problems import Problem

OPENAPI = Operation(
    "GET",
    "/openapi.json",
    "get_document",
    "This document",
    "box",
    {200: Content("OpenAPI 3.1", {"application/json": {"type": "object"}})},
)

ANY = (
    problems.INVALID_REQUEST,
    problems.FOREIGN_PAGE,
    problems.MISDIRECTED,
    problems.TIMED_OUT,
    problems.ADDRESS_TOO_LONG,
    problems.RATE_LIMITED,
    problems.HEADERS_TOO_LARGE,
    problems.INTERNAL,
    problems.BUSY,
)
"""What may befall any request."""

ABOUT = """Records of devices: stored before the answer, in `latest` and in every range at once.

Errors are `application/problem+json`; `docs/errors.md` explains each `type`. The addresses of the older service
(`/tracking/`, `/tcp_tracking/`) have a document of their own, shown at `/tracking/swagger/`."""

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer wk_…`"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password, or the user without one."},
    "token": {"type": "apiKey", "in": "query", "name": "token", "description": "For who can't set a header."},
}
"""How a key may come (telemetry/http/authentication.py)."""


class ProblemAnswer(Struct, rename={"violated_policies": "violated-policies"}):
    """An error (RFC 9457). The members behind `detail` are there where the type has them."""

    type: str
    title: str
    status: int
    detail: str
    parameter: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    line: int | UnsetType = UNSET
    field: str | UnsetType | None = UNSET
    value: Any | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    violated_policies: list[str] | UnsetType = UNSET


class Document:
    """The document of some operations. `has_keys` says whether each request needs a key."""

    def __init__(self, operations: Sequence[Operation], has_keys: bool, max_page_records: int) -> None:
        self._has_keys = has_keys
        self._limit = limit_to(max_page_records)
        self._types = _Types(operations)
        paths: defaultdict[str, dict[str, Schema]] = defaultdict(dict)
        for one in operations:
            paths[re.sub(r":\w+}", "}", one.path)][one.method.lower()] = self._operation(one)
        found: Schema = {
            "openapi": "3.1.0",
            "info": {"title": "Whimbrel", "version": version("whimbrel"), "description": ABOUT},
            "servers": [{"url": "/"}],
            "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in operations)],
            "paths": paths,
            "components": {"schemas": self._types.components},
        }
        if has_keys:
            found["components"]["securitySchemes"] = SCHEMES
        self.json = msgspec.json.encode(found)

    def routes(self) -> list[Route]:
        """The route."""
        return [OPENAPI.route(self.get)]

    async def get(self, _request: Request) -> Response:
        """The document."""
        return Response(self.json, headers={"Cache-Control": "no-cache"}, media_type="application/json")

    def _operation(self, one: Operation) -> Schema:
        need = need_of({"method": one.method, "path": one.path})
        found: Schema = {
            "operationId": one.name,
            "summary": one.summary,
            "description": one.description,
            "tags": [one.tag],
            "parameters": [self._parameter(parameter) for parameter in one.parameters],
            "responses": self._responses(one, need),
        }
        if one.body is not None:
            content = self._types.content(one.body)
            found["requestBody"] = {
                "description": one.body.sentence,
                "content": content,
                "required": one.body.is_required,
            }
        if self._has_keys:
            found["security"] = _security(need)
        return {name: value for name, value in found.items() if value or name == "security"}

    def _parameter(self, one: Parameter[Any]) -> Schema:
        if one is LIMIT:
            one = self._limit
        found: Schema = {"name": one.name, "in": one.place, "description": one.sentence, "schema": one.schema}
        if one.place == "path":
            found["required"] = True
        if one.schema.get("type") == "array":
            found["explode"] = one.is_repeated
        return found

    def _responses(self, one: Operation, need: Need) -> Schema:
        refused = self._problems(one, need)
        found: Schema = {}
        for status in sorted({*one.answers, *refused}):
            answer, kinds = one.answers.get(status), refused.get(status, [])
            sentences = ([answer.sentence] if answer else []) + [kind.title for kind in kinds]
            content = self._types.content(answer) if answer else {}
            if kinds:
                content[problems.CONTENT_TYPE] = {"schema": _of_kinds(kinds)}
            found[str(status)] = {
                "description": ". ".join(sentences) or HTTPStatus(status).phrase,
                **({"content": content} if content else {}),
            }
        return found

    def _problems(self, one: Operation, need: Need) -> dict[int, list[Problem]]:
        kinds = [*one.problems, *ANY]
        if self._has_keys and not need.is_open:
            kinds += [problems.NO_KEY, problems.WRONG_KEY, problems.NO_SESSION, problems.WRONG_SCOPE]
            if one.method not in SAFE_METHODS:
                kinds.append(problems.WRONG_CSRF)
            if not need.is_whole:
                kinds.append(problems.OTHER_DEVICE)
        found: defaultdict[int, list[Problem]] = defaultdict(list)
        for kind in kinds:
            found[kind.status].append(kind)
        return found


class _Types:
    """The schemas of all types that operations name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        contents = [one for operation in operations for one in (*operation.answers.values(), operation.body) if one]
        types = [kind for content in contents for kind in content.kinds.values() if not isinstance(kind, dict)]
        types.append(ProblemAnswer)
        schemas, self.components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        _for_generators([schemas, self.components])
        self._schemas = [*zip(types, schemas, strict=True)]

    def content(self, one: Content) -> Schema:
        """What a body holds, for each of its media types."""
        return {media_type: {"schema": self._schema(kind)} for media_type, kind in one.kinds.items()}

    def _schema(self, kind: Any) -> Schema:
        if isinstance(kind, dict):
            return kind
        return next(schema for known, schema in self._schemas if known == kind)


def _for_generators(part: Any) -> None:
    """Word schemas so that generators of clients take them: some drop types with an array that does not say what it
    holds, some want a value for all that has a default, also null."""
    if isinstance(part, dict):
        if part.get("type") == "array" and "prefixItems" not in part:
            part.setdefault("items", {})
        if part.get("default", ...) is None:
            del part["default"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            _for_generators(one)


def _of_kinds(kinds: Sequence[Problem]) -> Schema:
    """A problem of some kinds."""
    types = {"type": "object", "properties": {"type": {"enum": [kind.type for kind in kinds]}}}
    return {"allOf": [{"$ref": f"#/components/schemas/{ProblemAnswer.__name__}"}, types]}


def _security(need: Need) -> list[dict[str, list[str]]]:
    """The ways to show a key; with a scope that it must have. What is open asks for none."""
    scopes = [need.scope] if need.scope in api_keys.SCOPES else []
    ways = [{name: scopes} for name in SCHEMES] if scopes else []
    return [{}, *ways] if need.is_open and ways else ways
