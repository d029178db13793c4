"""The embedded server as its clients see it over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clearml_server import ClearmlServer
from http_api import Api
from sdk_programs import SdkPrograms
from server_core import ServerCore

from hpc_agent.api.client import Client
from hpc_agent.config.load import load


@pytest.fixture(scope="module")
def api(clearml_server: ClearmlServer) -> Iterator[Api]:
    client = Api(clearml_server.url, clearml_server.conf)
    yield client
    client.http.close()


@pytest.fixture(scope="module")
def program(peers: Path, clearml_server: ClearmlServer, tmp_path_factory: pytest.TempPathFactory) -> SdkPrograms:
    """Runs programs with the SDK in a home of the module's own."""
    home = tmp_path_factory.mktemp("home")
    return SdkPrograms(peers, {**clearml_server.env, "HOME": str(home)}, home)


@pytest.fixture
def queue(api: Api, request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    return str(api("queues.create", name=f"queue of {request.node.name}")["id"])


@pytest.fixture
def client(clearml_server: ClearmlServer) -> Client:
    """Our own client, as its administrator."""
    return Client(load(clearml_server.conf, {}).settings.api)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerCore]:
    """A server of the test's own, without HTTP and under a clock of its own."""
    made = ServerCore(tmp_path)
    yield made
    made.close()
