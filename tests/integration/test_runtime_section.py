"""Keys of a task's runtime section, which the SDK in the task's process replaces as a whole too."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.troubled import troubled

from hpc_agent.api.client import Client
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.load import load
from hpc_agent.retry import ONCE
from hpc_agent.wire.task_state import RUN_TOKEN


class Section:
    """One task on a real server, with a client whose calls other writers can slip between."""

    def __init__(self, server: Any, proxy: Any) -> None:
        settings = load(server.conf, {}).settings.api
        self.other = Client(settings).session
        keys = {name: getattr(settings, name) for name in ("access_key", "secret_key")}
        self.tasks = Client(ApiSettings(api_server=proxy.url, **keys)).tasks
        self.task = self.tasks.create({"name": uuid.uuid4().hex, "type": "training"})
        self.writes = 0
        self.after_write: Callable[[], None] = lambda: None
        proxy.on_answer = self._on_answer

    def _on_answer(self, endpoint: str, _request: bytes, _status: int) -> None:
        if endpoint == "tasks.edit":
            self.writes += 1
            self.after_write()

    def replace(self, **section: str) -> None:
        """As an SDK does that has read the section a while ago."""
        self.other.call("tasks.edit", {"task": self.task, "runtime": section, "force": True})

    def stamp(self, run: str) -> None:
        self.tasks.set_run_token(self.task, run, {}, budget=ONCE)

    @property
    def content(self) -> Any:
        return self.other.call("tasks.get_by_id", {"task": self.task})["task"]["runtime"]


@pytest.fixture
def section(clearml_server: Any) -> Iterator[Section]:
    with troubled(clearml_server.url) as proxy:
        yield Section(clearml_server, proxy)


def test_other_keys_are_kept(section: Section) -> None:
    section.replace(progress="10")
    section.stamp("a.0")
    assert section.content == {"progress": "10", RUN_TOKEN: "a.0"}
    assert section.writes == 1


def test_section_that_holds_the_values_is_not_written(section: Section) -> None:
    section.replace(**{RUN_TOKEN: "a.0"})
    section.stamp("a.0")
    assert section.writes == 0


def test_write_that_an_older_section_replaced_is_repeated(section: Section) -> None:
    def sdk_writes() -> None:
        if section.writes == 1:
            section.replace(progress="11")

    section.replace(progress="10")
    section.after_write = sdk_writes
    section.stamp("a.0")
    assert section.content == {"progress": "11", RUN_TOKEN: "a.0"}
    assert section.writes == 2


def test_writer_that_replaces_the_section_each_time_ends_the_repeats(section: Section) -> None:
    section.after_write = lambda: section.replace(progress="11")
    section.stamp("a.0")
    assert section.writes == 3


def test_token_of_a_later_run_stays(section: Section) -> None:
    section.replace(**{RUN_TOKEN: "a.0"})
    section.after_write = lambda: section.replace(**{RUN_TOKEN: "a.2"})
    section.stamp("a.1")
    assert section.content == {RUN_TOKEN: "a.2"}
    assert section.writes == 1
