"""Configurations of jobs with key pairs of their own, which the embedded server makes for many tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clearml_server import ClearmlServer
from manual_clock import ManualClock

from hpc_agent.api.client import Client
from hpc_agent.config.job_config import share_job_config, shared_config_path
from hpc_agent.config.load import Configuration, load
from hpc_agent.daemon.job_launch import TaskConfigs
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, InputError
from hpc_agent.redact import Secret
from hpc_agent.request_counts import COUNTS
from hpc_agent.runs.directory import RunDirectory, RunsFolder


@pytest.fixture
def configuration(clearml_server: ClearmlServer) -> Configuration:
    return load(clearml_server.conf, {})


def new_tasks(client: Client, queue: str, count: int) -> list[Task]:
    ids = [client.tasks.create({"name": f"task {number}", "type": "training"}) for number in range(count)]
    for task in ids:
        client.tasks.enqueue(task, QueueId(queue))
    return [client.tasks.get(task) for task in ids]


def directories(runs: Path, queue: str, tasks: Sequence[Task]) -> list[RunDirectory]:
    attempts = (attempt_for("cluster", QueueId(queue), task.id, "now") for task in tasks)
    return [RunsFolder(runs).of(attempt).create() for attempt in attempts]


def test_keys_made_ahead_cost_one_request_and_are_each_jobs_own(
    client: Client, queue: str, configuration: Configuration, tmp_path: Path
) -> None:
    tasks = new_tasks(client, queue, 3)
    folders = directories(tmp_path, queue, tasks)
    configs = TaskConfigs(client, configuration)
    before = COUNTS.so_far()
    configs.read_ahead([folder.attempt for folder in folders])
    for job in zip(tasks, folders, strict=True):
        configs.write([job])
    assert COUNTS.so_far() == before + 1
    keys = [load(folder.owner_config, {}).settings.api.access_key for folder in folders]
    assert len(set(keys)) == len(tasks)
    for task, folder in zip(tasks, folders, strict=True):
        own = Client(load(folder.owner_config, {}).settings.api)
        assert own.tasks.get(task.id).id == task.id
        with pytest.raises(ApiError, match="403"):
            own.tasks.edit(tasks[0].id if task is not tasks[0] else tasks[1].id, {"comment": "another's"})


def test_one_for_which_no_key_could_be_made_ahead_is_asked_for_again(
    client: Client, queue: str, configuration: Configuration, tmp_path: Path
) -> None:
    tasks = new_tasks(client, queue, 2)
    ended, waiting = tasks
    client.tasks.dequeue(ended.id)
    api: Any = client.session
    api.call("tasks.failed", {"task": ended.id, "force": True})
    configs = TaskConfigs(client, configuration)
    ended_folder, folder = directories(tmp_path, queue, tasks)
    configs.read_ahead([ended_folder.attempt, folder.attempt])
    configs.write([(waiting, folder)])
    assert folder.owner_config.exists()
    with pytest.raises(InputError, match=f"no credentials for a job of task {ended.id}"):
        configs.write([(ended, ended_folder)])


def test_a_key_is_used_once(client: Client, queue: str, configuration: Configuration, tmp_path: Path) -> None:
    tasks = new_tasks(client, queue, 2)
    folders = directories(tmp_path, queue, tasks)
    configs = TaskConfigs(client, configuration)
    configs.read_ahead([folder.attempt for folder in folders])
    found = []
    for _ in range(2):
        configs.write([(tasks[0], folders[0])])
        found.append(load(folders[0].owner_config, {}).settings.api.access_key)
    assert len(set(found)) == 2


def test_tasks_that_are_not_ready_get_no_further_keys_in_each_pass(
    client: Client, queue: str, configuration: Configuration, tmp_path: Path
) -> None:
    tasks = new_tasks(client, queue, 3)
    folders = directories(tmp_path, queue, tasks)
    attempts = [folder.attempt for folder in folders]
    configs = TaskConfigs(client, configuration)
    configs.read_ahead(attempts)
    before = COUNTS.so_far()
    for asked_for in (attempts, attempts[:1], attempts):
        configs.read_ahead(asked_for)
    for job in zip(tasks, folders, strict=True):
        configs.write([job])
    assert COUNTS.so_far() == before


def test_keys_made_ahead_are_not_those_of_a_task_that_was_reset_or_ended_since(
    client: Client, queue: str, configuration: Configuration, tmp_path: Path
) -> None:
    tasks = new_tasks(client, queue, 2)
    folders = directories(tmp_path, queue, tasks)
    clock = ManualClock()
    configs = TaskConfigs(client, configuration, clock)
    configs.read_ahead([folder.attempt for folder in folders])
    reset, waiting = tasks
    client.session.call("tasks.reset", {"task": reset.id, "force": True})
    again = attempt_for("cluster", QueueId(queue), reset.id, "later")
    folder = RunsFolder(tmp_path).of(again).create()
    configs.write([(reset, folder)])
    clock.advance(3600)
    before = COUNTS.so_far()
    configs.write([(waiting, folders[1])])
    assert COUNTS.so_far() == before + 1, "it might have ended and have been dropped since"
    for task, own in ((reset, folder), (waiting, folders[1])):
        assert Client(load(own.owner_config, {}).settings.api).tasks.get(task.id).id == task.id


@pytest.mark.parametrize("count", [1, 2])
def test_a_job_need_not_log_in_first(
    client: Client, queue: str, configuration: Configuration, tmp_path: Path, count: int
) -> None:
    """``count``: a pair made for one task, and pairs made for many."""
    tasks = new_tasks(client, queue, count)
    folders = directories(tmp_path, queue, tasks)
    TaskConfigs(client, configuration).write(list(zip(tasks, folders, strict=True)))
    job = Client(load(folders[-1].owner_config, {}).settings.api)
    before = COUNTS.so_far()
    job.tasks.get(tasks[-1].id)
    assert COUNTS.so_far() == before + 1


def test_jobs_that_share_a_configuration_go_on_with_the_daemons_login(
    client: Client, configuration: Configuration, tmp_path: Path
) -> None:
    path = share_job_config(configuration, tmp_path, {}, client.session.current_login)
    assert path == shared_config_path(configuration, tmp_path, {}), "the name is the same after each login"
    job = Client(load(path, {}).settings.api)
    before = COUNTS.so_far()
    job.session.call("queues.get_all")
    assert COUNTS.so_far() == before + 1


@pytest.mark.parametrize(
    ("key", "token", "requests"),
    [
        ("", "not.a.token", 3),  # refused, a login, and once more
        ("another key", "", 2),
        ("", "", 2),
    ],
)
def test_a_login_of_other_keys_and_one_that_is_refused_are_not_used(
    client: Client, key: str, token: str, requests: int
) -> None:
    """``key``, ``token``: empty for our own."""
    api = client.session.settings
    own = client.session.current_login.reveal().partition(":")[2]
    text = f"{key or api.access_key}:{token or own}" if key or token else ""
    other = Client(msgspec.structs.replace(api, login_token=Secret(text)))
    before = COUNTS.so_far()
    other.session.call("queues.get_all")
    assert COUNTS.so_far() == before + requests
