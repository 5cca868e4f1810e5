"""`/openapi.json`: the OpenAPI 3.1 document, created at the start from the objects that serve requests.

Routes and parameter checks use the same operations (telemetry/http/operations.py), and responses are encoded from the
same types. The query program creates and serves it, because its operations import modules that the API program does
not load.
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
"""Problems that any request may have."""

ABOUT = """Records of devices: stored before the response, and immediately visible in `latest` and in every range.

Errors are `application/problem+json`; `docs/errors.md` explains each `type`. The routes of the older service
(`/tracking/`, `/tcp_tracking/`) have their own document, shown at `/tracking/swagger/`."""

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer wk_…`"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password, or the user without one."},
    "token": {"type": "apiKey", "in": "query", "name": "token", "description": "For clients that cannot set a header."},
}
"""Ways to send a key (telemetry/http/authentication.py)."""


class ProblemAnswer(Struct, rename={"violated_policies": "violated-policies"}):
    """An error (RFC 9457). The members after `detail` are present only for types that define them."""

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
    """The document of the given operations. `has_keys`: requests need a key."""

    def __init__(self, operations: Sequence[Operation], has_keys: bool, max_page_records: int) -> None:
        self._has_keys = has_keys
        self._limit = limit_to(max_page_records)
        self._types = _Types(operations)
        paths: defaultdict[str, dict[str, Schema]] = defaultdict(dict)
        for operation in operations:
            paths[re.sub(r":\w+}", "}", operation.path)][operation.method.lower()] = self._operation(operation)
        document: Schema = {
            "openapi": "3.1.0",
            "info": {"title": "Whimbrel", "version": version("whimbrel"), "description": ABOUT},
            "servers": [{"url": "/"}],
            "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
            "paths": paths,
            "components": {"schemas": self._types.components},
        }
        if has_keys:
            document["components"]["securitySchemes"] = SCHEMES
        self.json = msgspec.json.encode(document)

    def routes(self) -> list[Route]:
        """The route."""
        return [OPENAPI.route(self.get)]

    async def get(self, _request: Request) -> Response:
        """The document."""
        return Response(self.json, headers={"Cache-Control": "no-cache"}, media_type="application/json")

    def _operation(self, operation: Operation) -> Schema:
        need = need_of({"method": operation.method, "path": operation.path})
        schema: Schema = {
            "operationId": operation.name,
            "summary": operation.summary,
            "description": operation.description,
            "tags": [operation.tag],
            "parameters": [self._parameter(parameter) for parameter in operation.parameters],
            "responses": self._responses(operation, need),
        }
        if operation.body is not None:
            content = self._types.content(operation.body)
            schema["requestBody"] = {
                "description": operation.body.sentence,
                "content": content,
                "required": operation.body.is_required,
            }
        if self._has_keys:
            schema["security"] = _security(need)
        return {name: value for name, value in schema.items() if value or name == "security"}

    def _parameter(self, parameter: Parameter[Any]) -> Schema:
        if parameter is LIMIT:
            parameter = self._limit
        schema: Schema = {
            "name": parameter.name,
            "in": parameter.place,
            "description": parameter.sentence,
            "schema": parameter.schema,
        }
        if parameter.place == "path":
            schema["required"] = True
        if parameter.schema.get("type") == "array":
            schema["explode"] = parameter.is_repeated
        return schema

    def _responses(self, operation: Operation, need: Need) -> Schema:
        problems_by_status = self._problems(operation, need)
        responses: Schema = {}
        for status in sorted({*operation.answers, *problems_by_status}):
            answer, kinds = operation.answers.get(status), problems_by_status.get(status, [])
            sentences = ([answer.sentence] if answer else []) + [kind.title for kind in kinds]
            content = self._types.content(answer) if answer else {}
            if kinds:
                content[problems.CONTENT_TYPE] = {"schema": _of_kinds(kinds)}
            responses[str(status)] = {
                "description": ". ".join(sentences) or HTTPStatus(status).phrase,
                **({"content": content} if content else {}),
            }
        return responses

    def _problems(self, operation: Operation, need: Need) -> dict[int, list[Problem]]:
        kinds = [*operation.problems, *ANY]
        if self._has_keys and not need.is_open:
            kinds += [problems.NO_KEY, problems.WRONG_KEY, problems.NO_SESSION, problems.WRONG_SCOPE]
            if operation.method not in SAFE_METHODS:
                kinds.append(problems.WRONG_CSRF)
            if not need.is_whole:
                kinds.append(problems.OTHER_DEVICE)
        by_status: defaultdict[int, list[Problem]] = defaultdict(list)
        for kind in kinds:
            by_status[kind.status].append(kind)
        return by_status


class _Types:
    """The schemas of all types in operations."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        contents = [
            content for operation in operations for content in (*operation.answers.values(), operation.body) if content
        ]
        types = [kind for content in contents for kind in content.kinds.values() if not isinstance(kind, dict)]
        types.append(ProblemAnswer)
        schemas, self.components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        _for_generators([schemas, self.components])
        self._schemas = [*zip(types, schemas, strict=True)]

    def content(self, body: Content) -> Schema:
        """The schema of a body, by media type."""
        return {media_type: {"schema": self._schema(kind)} for media_type, kind in body.kinds.items()}

    def _schema(self, kind: Any) -> Schema:
        if isinstance(kind, dict):
            return kind
        return next(schema for known, schema in self._schemas if known == kind)


def _for_generators(part: Any) -> None:
    """Adapt schemas to client generators: some drop types with an array without `items`, and some require a value for
    each property with a default, even null."""
    if isinstance(part, dict):
        if part.get("type") == "array" and "prefixItems" not in part:
            part.setdefault("items", {})
        if part.get("default", ...) is None:
            del part["default"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            _for_generators(item)


def _of_kinds(kinds: Sequence[Problem]) -> Schema:
    """The schema of a problem of the given types."""
    types = {"type": "object", "properties": {"type": {"enum": [kind.type for kind in kinds]}}}
    return {"allOf": [{"$ref": f"#/components/schemas/{ProblemAnswer.__name__}"}, types]}


def _security(need: Need) -> list[dict[str, list[str]]]:
    """Security requirements: the ways to send a key, with the required scope; empty for open routes."""
    scopes = [need.scope] if need.scope in api_keys.SCOPES else []
    ways = [{name: scopes} for name in SCHEMES] if scopes else []
    return [{}, *ways] if need.is_open and ways else ways
