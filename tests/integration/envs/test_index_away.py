"""A package index that is away: waited for by all who want the same; what it does not have fails at once."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from env_site import EnvSite
from manual_clock import ManualClock

from hpc_agent.envs.env_request import EnvRequest, request_for_file
from hpc_agent.envs.shared_cache import Failure, SharedCache
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.staging import retry_staging


@dataclass
class Index:
    url: str = ""
    away: bool = False
    asked: int = 0

    def request(self, *lines: str) -> EnvRequest:
        return request_for_file("\n".join([f"--index-url {self.url}", *lines]))


@pytest.fixture
def index(site: EnvSite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The wheelhouse over HTTP. uv itself tries once only: this is about what we do when it gives up."""
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "")
    root = site.folder / "index"
    for wheel in site.wheels.folder.iterdir():
        folder = root / wheel.name.partition("-")[0]
        folder.mkdir(parents=True)
        shutil.copy(wheel, folder)
    found = Index()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(root))

        def do_GET(self) -> None:
            found.asked += 1
            if found.away:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is for its failures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_index_that_is_away_is_waited_for(site: EnvSite, index: Index) -> None:
    index.away = True
    clock = ManualClock()
    clock.at(8, lambda: setattr(index, "away", False))  # the first pause is of 3.5 to 6.5 s, the second twice as long
    staged = retry_staging(lambda: site.store().stage(index.request("beta"), site.say), site.say, clock)
    assert staged.packages == ("alpha==1.0", "beta==1.0")
    assert len(clock.sleeps) == 2
    retries = [line for line in site.said if line.startswith("Retrying")]
    assert len(retries) == 2 and "503" in retries[0]


def test_a_package_that_it_does_not_have_is_not_waited_for(site: EnvSite, index: Index) -> None:
    with pytest.raises(EnvironmentBuildError, match="nosuchpackage") as raised:
        site.store().stage(index.request("nosuchpackage"), site.say)
    assert not raised.value.retryable


def test_who_waits_for_the_same_shares_that_it_is_away(site: EnvSite, index: Index) -> None:
    """Many tasks of one sweep ask it once a round, and each knows that it may try again."""
    index.away = True
    request = index.request("beta")
    errors: list[EnvironmentBuildError] = []
    held = threading.Barrier(8)

    def want() -> None:
        held.wait(30)
        with pytest.raises(EnvironmentBuildError) as raised:
            site.store().stage(request, site.say)
        errors.append(raised.value)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error.retryable for error in errors] == [True] * 8
    index.away = False
    assert site.store().stage(request, site.say).built


def test_record_of_a_failure_keeps_its_field_names(site: EnvSite) -> None:
    cache = SharedCache(site.folder / "cache")
    cache.write_outcome("0" * 32, Failure("f1", "the index is away", transient=True))
    record = cache.requests / f"{'0' * 32}.failed"
    assert json.loads(record.read_text()) == {"id": "f1", "error": "the index is away", "passes": True}
    assert cache.failure("0" * 32) == Failure("f1", "the index is away", transient=True)
