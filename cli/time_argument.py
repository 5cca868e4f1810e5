"""Times as arguments, read as the API reads them."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from api.requests.params import moment_us
from telemetry.model.errors import RecordError


def moment(of_day_us: int) -> Callable[[str], int]:
    """A kind of argument: ISO 8601, epoch seconds, or a date, to whose midnight `of_day_us` is added; to µs."""

    def read(text: str) -> int:
        try:
            return moment_us(text, of_day_us)
        except RecordError as error:
            raise ArgumentTypeError(f"{text!r} {error.reason}") from None

    return read
