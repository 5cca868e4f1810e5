"""A real box, and a proxy before it that cuts connections when it is told to; each kind of client has its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.box import Box
from tests.client.on_a_loop import OnALoop
from tests.client.proxy import Proxy
from whimbrel_client import Client

Kind = Callable[..., Client]


@pytest.fixture(scope="module", params=[Client, OnALoop], ids=["waiting", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    """What makes a client: one that waits, or one of an event loop in the shape of the other."""
    return request.param


@pytest.fixture(scope="module")
def box(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box for all tests of a file with one kind of client; each has devices of its own."""
    with Box(tmp_path_factory.mktemp("box"), sql__enabled="true") as found:
        yield found


@pytest.fixture
def proxy(box: Box) -> Iterator[Proxy]:
    """A proxy before that box's API."""
    with Proxy(box.api_port) as found:
        yield found


@pytest.fixture
def client(kind: Kind, proxy: Proxy) -> Iterator[Client]:
    """A client behind that proxy."""
    with kind(proxy.url) as found:
        yield found
