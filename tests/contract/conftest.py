"""The embedded server as its clients see it over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clearml_server import ClearmlServer
from http_api import Api


@pytest.fixture(scope="module")
def api(clearml_server: ClearmlServer) -> Iterator[Api]:
    client = Api(clearml_server.url, clearml_server.conf)
    yield client
    client.http.close()


@pytest.fixture
def queue(api: Api, request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    return str(api("queues.create", name=f"queue of {request.node.name}")["id"])
