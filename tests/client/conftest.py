"""A real box, and a proxy before it that cuts connections when it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.box import Box
from tests.client.proxy import Proxy


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box for all tests of a file; each has devices of its own."""
    with Box(tmp_path_factory.mktemp("box"), sql__enabled="true") as found:
        yield found


@pytest.fixture
def proxy(box: Box) -> Iterator[Proxy]:
    """A proxy before that box's API."""
    with Proxy(box.api_port) as found:
        yield found
