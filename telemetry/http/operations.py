"""Declarations of HTTP operations, from which routes, request checks and the OpenAPI document are made.

A `Parameter` parses the text of a query parameter and has its JSON Schema. An `Operation` is one method of one path.
api/pages/openapi.py describes them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.routing import Route

from telemetry.http.problem_responses import invalid_parameter
from telemetry.model.problems import Problem

T = TypeVar("T")
Schema = dict[str, Any]
"""A JSON Schema 2020-12."""

_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,17})?", re.ASCII)


class InvalidValue(ValueError):
    """Why a text is not a valid value of a parameter: `must be …`."""


@dataclass(frozen=True, eq=False)
class Parameter(Generic[T]):
    """One parameter: its name, description, schema and parser.

    `read` raises `Unfit`. `default` is the value of a missing parameter.
    """

    name: str
    sentence: str
    schema: Schema
    read: Callable[[str], T]
    default: T
    place: Literal["query", "path", "header"] = "query"
    is_repeated: bool = False
    """True if it may occur several times; otherwise an array is separated by commas."""

    @property
    def has_commas(self) -> bool:
        """True if it is one text with parts separated by commas. The parts may also be separate parameters."""
        return self.schema.get("type") == "array" and not self.is_repeated

    def of(self, request: Request) -> T:
        """The value in a request's query. Raises `ProblemError`."""
        if self.has_commas:
            text = ",".join(request.query_params.getlist(self.name)) if self.name in request.query_params else None
        else:
            text = request.query_params.get(self.name)
        return self.default if text is None else self.of_text(text)

    def of_text(self, text: str) -> T:
        """Parse a text. Raises `ProblemError`."""
        try:
            return self.read(text)
        except InvalidValue as unfit:
            raise invalid_parameter(self.name, str(unfit)) from None


Parameters = tuple[Parameter[Any], ...]


def names(parameters: Parameters) -> list[str]:
    """Names of the query parameters."""
    return [one.name for one in parameters if one.place == "query"]


def whole(name: str, sentence: str, default: int, least: int, most: int) -> Parameter[int]:
    """An integer from `least`, which is not negative, to `most`."""

    def read(text: str) -> int:
        if not (_DIGITS.fullmatch(text) and least <= int(text) <= most):
            raise InvalidValue(f"must be a whole number from {least} to {most}")
        return int(text)

    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return Parameter(name, sentence, schema, read, default)


def number(name: str, sentence: str, default: float, least: float, most: float) -> Parameter[float]:
    """A number from `least`, which is not negative, to `most`."""

    def read(text: str) -> float:
        if not (_DECIMAL.fullmatch(text) and least <= float(text) <= most):
            raise InvalidValue(f"must be a number from {least:g} to {most:g}")
        return float(text)

    schema = {"type": "number", "minimum": least, "maximum": most, "default": default}
    return Parameter(name, sentence, schema, read, default)


def choice(name: str, sentence: str, values: Sequence[str], default: str | None) -> Parameter[str | None]:
    """One of a set of words."""
    words = " or ".join(values) if len(values) == 2 else f"one of {', '.join(values)}"

    def read(text: str) -> str:
        if text not in values:
            raise InvalidValue(f"must be {words}")
        return text

    schema = {"type": "string", "enum": list(values), **({} if default is None else {"default": default})}
    return Parameter(name, sentence, schema, read, default)


def flag(name: str, sentence: str, default: bool) -> Parameter[bool]:
    """`true` or `false`."""

    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise InvalidValue("must be true or false")
        return text == "true"

    return Parameter(name, sentence, {"type": "boolean", "default": default}, read, default)


class Content(NamedTuple):
    """A request or response body: its description, and for each media type a type or a schema."""

    sentence: str
    kinds: Mapping[str, Any]
    is_required: bool = True


class Operation(NamedTuple):
    """One method of one path. `problems` are in addition to the problems of every request (api/pages/openapi.py)."""

    method: str
    path: str
    name: str
    summary: str
    tag: str
    answers: Mapping[int, Content]
    parameters: Parameters = ()
    body: Content | None = None
    problems: tuple[Problem, ...] = ()
    description: str = ""

    def route(self, endpoint: Callable[..., Any]) -> Route:
        """The Starlette route of this operation."""
        return Route(self.path, endpoint, methods=[self.method])
