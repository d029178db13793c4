"""Queues and projects that two programs make at once, or one program twice: the name is looked up again."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from faulty_server import EMPTY_ONCE, LOST_ONCE, faulty_server
from waiting import HANG_S

from hpc_agent.api.client import Client
from hpc_agent.errors import ApiError


def through(client: Client, url: str) -> Client:
    return Client(msgspec.structs.replace(client.session.settings, api_server=url))


def test_a_queue_that_another_made_in_between_is_taken(client: Client, api: Any) -> None:
    present = api("queues.create", name="made in between")["id"]
    with faulty_server(client.session.settings.api_server, {"queues.get_all": EMPTY_ONCE}) as url:
        assert through(client, url).queues.resolve("made in between", create=True) == present


def test_a_queue_whose_creation_was_not_answered_is_taken(client: Client) -> None:
    with faulty_server(client.session.settings.api_server, {"queues.create": LOST_ONCE}) as url:
        made = through(client, url).queues.resolve("answer lost", create=True)
    assert client.queues.resolve("answer lost") == made


def test_a_project_that_another_made_in_between_is_taken(client: Client, api: Any) -> None:
    present = api("projects.create", name="shared/by two")["id"]
    with faulty_server(client.session.settings.api_server, {"projects.get_all": EMPTY_ONCE}) as url:
        assert through(client, url).projects.find_or_create("shared/by two") == present


def test_a_project_whose_creation_was_not_answered_is_taken(client: Client) -> None:
    with faulty_server(client.session.settings.api_server, {"projects.create": LOST_ONCE}) as url:
        made = through(client, url).projects.find_or_create("project/answer lost")
    assert client.projects.find_or_create("project/answer lost") == made


def test_other_refusals_are_raised(client: Client) -> None:
    with pytest.raises(ApiError, match="made of non-empty parts"):
        client.projects.find_or_create("a//b")


def test_daemons_that_start_together_share_their_new_queue(clearml_server: Any, api: Any, tmp_path: Any) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text(f'{clearml_server.conf.read_text()}\nhpc {{ scheduler: "local", root: "{tmp_path}/hpc" }}\n')

    def start(number: int) -> subprocess.CompletedProcess[str]:
        argv = ["daemon", "--queue", "new for all", "--create-queue", "--once"]
        own = {"HOME": str(tmp_path), "CLEARML_CONFIG_FILE": str(conf), "CLEARML_WORKER_ID": f"together:{number}"}
        return subprocess.run(
            [sys.executable, "-m", "hpc_agent", *argv],
            env={**clearml_server.env, **own},
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )

    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(start, range(3)))
    assert [(done.returncode, done.stderr if done.returncode else "") for done in ended] == [(0, "")] * 3
    assert len(api("queues.get_all", name="^new for all$")["queues"]) == 1, json.dumps(api("queues.get_all"))
