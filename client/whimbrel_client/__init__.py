"""Sends records to a Whimbrel box exactly once, and reads what it holds.

`Client` waits for each answer, `AsyncClient` awaits it; the methods of the first say what they take, return and raise.
`model/errors.py` draws the tree of errors.
"""

from __future__ import annotations

from whimbrel_client.aio import AsyncClient
from whimbrel_client.async_writer import AsyncWriter
from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.client import Client
from whimbrel_client.errors import (
    AnswerBrokenOff,
    AnswerTruncated,
    BoxUnavailable,
    KeyRefused,
    NotFound,
    RateLimited,
    RequestRefused,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    TooLarge,
    WhimbrelError,
    WriterClosed,
)
from whimbrel_client.spool import Spool
from whimbrel_client.writer import Writer

__all__ = [
    "AnswerBrokenOff",
    "AnswerTruncated",
    "AsyncClient",
    "AsyncWriter",
    "Batch",
    "BoxUnavailable",
    "Client",
    "KeyRefused",
    "NotFound",
    "RateLimited",
    "Refused",
    "RequestRefused",
    "Sent",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "TooLarge",
    "WhimbrelError",
    "Writer",
    "WriterClosed",
]
__version__ = "0.1.0"
