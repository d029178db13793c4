"""Queues and workers. The whole design rests on ``queues.remove_task`` having one winner.

See docs/internals/clearml-protocol.md#claim.
"""

from __future__ import annotations

import threading

import pytest
from http_api import Answered, Api
from server_core import ServerCore


def tasks_of(api: Api, queue: str) -> list[str]:
    return [entry["task"] for entry in api("queues.get_by_id", queue=queue)["queue"]["entries"]]


@pytest.fixture
def three(api: Api, queue: str) -> list[str]:
    """Three tasks waiting in ``queue``."""
    ids = [api.task(f"task {i}") for i in range(3)]
    for task in ids:
        api("tasks.enqueue", task=task, queue=queue)
    return ids


def test_of_many_claims_at_once_exactly_one_wins(api: Api, queue: str) -> None:
    for _ in range(5):
        task = api.task()
        api("tasks.enqueue", task=task, queue=queue)
        start = threading.Barrier(12)
        answers: list[Answered] = []

        def claim(task: str = task, start: threading.Barrier = start, answers: list[Answered] = answers) -> None:
            start.wait()
            answers.append(api.ask("queues.remove_task", {"queue": queue, "task": task}))

        threads = [threading.Thread(target=claim) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.code for answer in answers) == ["200/0"] + ["400/703"] * 11
        assert [answer.data["removed"] for answer in answers if answer.status == 200] == [1]
        assert api.status(task) == "queued"


def test_a_task_that_left_and_came_back_is_another_entry(api: Api, queue: str) -> None:
    task = api.task()
    api("tasks.enqueue", task=task, queue=queue)
    first = api("queues.get_by_id", queue=queue)["queue"]["entries"]
    api("tasks.dequeue", task=task)
    api("tasks.enqueue", task=task, queue=queue)
    second = api("queues.get_by_id", queue=queue)["queue"]["entries"]
    assert first[0]["task"] == second[0]["task"]
    assert first[0]["added"] < second[0]["added"]


def test_enqueue_sets_the_queue_and_drops_the_development_tag(api: Api, queue: str) -> None:
    task = api.task(system_tags=["development"])
    answer = api("tasks.enqueue", task=task, queue=queue, verify_watched_queue=True)
    found = api("tasks.get_by_id", task=task)["task"]
    assert (answer["queued"], answer["updated"], answer["queue_watched"]) == (1, 1, False)
    assert answer["fields"]["execution.queue"] == found["execution"]["queue"] == queue
    assert (found["status"], found["system_tags"], found["enqueue_status"]) == ("queued", [], "created")
    assert api.ask("tasks.enqueue", {"task": task, "queue": queue}).code == "400/706"
    assert api.status(task) == "queued"


def test_a_running_task_is_not_enqueued_without_force(api: Api, queue: str) -> None:
    task = api.task()
    api("tasks.started", task=task)
    assert api.ask("tasks.enqueue", {"task": task, "queue": queue}).code == "400/110"
    api("tasks.enqueue", task=task, queue=queue, force=True)
    assert tasks_of(api, queue) == [task]


def test_enqueue_elsewhere_moves_the_task(api: Api, queue: str, three: list[str]) -> None:
    other = api("tasks.enqueue", task=three[0], queue_name="made by its name")["fields"]["execution.queue"]
    assert tasks_of(api, queue) == three[1:]
    assert tasks_of(api, other) == three[:1]
    assert api("queues.get_all", name="^made by its name$", only_fields=["id"])["queues"] == [{"id": other}]


def test_a_name_is_one_queues_only(api: Api) -> None:
    first, second = (api("queues.create", name=name)["id"] for name in ("taken", "free"))
    answer = api.ask("queues.create", {"name": "taken"})
    assert answer.code == "400/801"
    assert "already exists" in answer.meta["result_msg"]
    assert api.ask("queues.update", {"queue": second, "name": "taken"}).code == "400/801"
    assert api("queues.update", queue=first, name="taken", tags=["t"])["updated"] == 1


def test_missing_queue_has_its_own_subcode_in_each_call(api: Api) -> None:
    task = api.task()
    assert api.ask("queues.get_by_id", {"queue": "by-name"}).code == "400/701"
    assert api.ask("queues.get_next_task", {"queue": "none"}).code == "400/701"
    assert api.ask("tasks.enqueue", {"task": task, "queue": "none"}).code == "400/701"
    assert api.ask("queues.remove_task", {"queue": "none", "task": task}).code == "400/703"
    assert api.status(task) == "created"


def test_the_default_queue_is_the_one_tagged_so(server: ServerCore) -> None:
    # A new server has one, as ClearML's has.
    (made,) = server("queues.get_all", name="^default$")["queues"]
    assert server("queues.get_default") == {"id": made["id"], "name": "default"}
    server("queues.delete", queue=made["id"])
    assert server.administrator.ask("queues.get_default").code == "400/707"
    first = server("queues.create", name="default one", system_tags=["default"])["id"]
    assert server("queues.get_default") == {"id": first, "name": "default one"}
    server("queues.create", name="default two", system_tags=["default"])
    assert server.administrator.ask("queues.get_default").code == "400/708"


def test_dequeue_with_a_new_status_is_how_the_reference_agent_claims(api: Api, queue: str, three: list[str]) -> None:
    popped = api("queues.get_next_task", queue=queue)["entry"]["task"]
    assert popped == three[0]
    assert api.status(popped) == "queued"
    assert api("tasks.dequeue", task=popped, new_status="in_progress")["updated"] == 1
    assert api.status(popped) == "in_progress"
    # No fence: the reference server lets a running task through again (docs/internals/clearml-protocol.md#dequeue).
    assert api("tasks.dequeue", task=popped, new_status="in_progress")["updated"] == 1
    api("tasks.completed", task=popped)
    assert api("tasks.dequeue", task=popped, new_status="in_progress")["updated"] == 0
    assert api("tasks.dequeue", task="0" * 32)["updated"] == 0


def test_dequeue_goes_back_to_what_the_task_was(api: Api, queue: str) -> None:
    task = api.task()
    api("tasks.started", task=task)
    api("tasks.stopped", task=task)
    api("tasks.enqueue", task=task, queue=queue)
    answer = api("tasks.dequeue", task=task, status_reason="changed my mind")
    assert (answer["dequeued"], api.status(task)) == (1, "stopped")


def test_next_task_pops_the_oldest_and_an_empty_queue_answers_nothing(api: Api, queue: str, three: list[str]) -> None:
    entry = api("queues.get_next_task", queue=queue, get_task_info=True)
    assert entry["entry"].keys() == {"task", "added"}
    assert entry["task_info"].keys() == {"company", "user"}
    assert [api("queues.get_next_task", queue=queue)["entry"]["task"] for _ in range(2)] == three[1:]
    assert api("queues.get_next_task", queue=queue) == {}


def test_next_task_repairs_a_task_stopped_after_it_was_enqueued_again(api: Api, queue: str) -> None:
    task = api.task()
    api("tasks.enqueue", task=task, queue=queue)
    api("tasks.stopped", task=task, force=True)
    api("queues.get_next_task", queue=queue)
    assert api.status(task) == "queued"


@pytest.mark.parametrize(
    ("action", "count", "order", "position"),
    [
        ("move_task_forward", 1, "021", 1),
        ("move_task_forward", 9, "201", 0),
        ("move_task_to_front", None, "201", 0),
        ("move_task_to_back", None, "012", 2),
        ("move_task_backward", 1, "012", 2),
    ],
)
def test_entries_are_moved(
    api: Api, queue: str, three: list[str], action: str, count: int | None, order: str, position: int
) -> None:
    assert api(f"queues.{action}", queue=queue, task=three[2], count=count) == {"position": position}
    assert tasks_of(api, queue) == [three[int(i)] for i in order]
    later = api.task()
    api("tasks.enqueue", task=later, queue=queue)
    assert tasks_of(api, queue)[-1] == later


def test_a_task_is_put_back_at_the_head(api: Api, queue: str, three: list[str]) -> None:
    # How the daemon repairs a claim whose owner died before it started the task.
    api("queues.remove_task", queue=queue, task=three[1])
    api("queues.add_task", queue=queue, task=three[1])
    api("queues.move_task_to_front", queue=queue, task=three[1])
    assert tasks_of(api, queue) == [three[1], three[0], three[2]]
    assert api.ask("queues.add_task", {"queue": queue, "task": three[1]}).code == "400/706"


def test_lists_of_queues_show_entries_only_when_asked(api: Api, queue: str, three: list[str]) -> None:
    name = api("queues.get_by_id", queue=queue)["queue"]["name"]
    everything = api("queues.get_all", name=f"^{name.replace('[', '.').replace(']', '.')}$")["queues"]
    assert [entry["task"] for entry in everything[0]["entries"]] == three
    assert api("queues.get_all", id=[queue], only_fields=["name", "id"])["queues"] == [{"id": queue, "name": name}]
    assert len(api("queues.get_all", id=[queue], only_fields=["entries"])["queues"][0]["entries"]) == 3
    assert len(api("queues.get_by_id", queue=queue, max_task_entries=2)["queue"]["entries"]) == 2
    assert api("queues.get_num_entries", queue=queue) == {"num": 3}
    assert api("queues.peek_task", queue=queue) == {"task": three[0]}


def test_deleting_a_queue_makes_its_tasks_drafts_again(api: Api, queue: str, three: list[str]) -> None:
    assert api.ask("queues.delete", {"queue": queue}).code == "400/702"
    assert api("queues.delete", queue=queue, force=True) == {"deleted": 1}
    assert [api.status(task) for task in three] == ["created"] * 3
    assert api.ask("queues.get_by_id", {"queue": queue}).code == "400/701"


def test_hidden_queues_are_found_by_who_looks_for_them(api: Api) -> None:
    api("queues.create", name="glue's own", system_tags=["k8s-glue"])
    assert "glue's own" not in [queue["name"] for queue in api("queues.get_all")["queues"]]
    assert "glue's own" in [queue["name"] for queue in api("queues.get_all", search_hidden=True)["queues"]]
    assert len(api("queues.get_all", name="glue's own")["queues"]) == 1


def test_workers_are_listed_with_what_they_do(api: Api, queue: str) -> None:
    project = api("projects.create", name="of workers")["id"]
    task = api.task("busy", project=project)
    api("workers.register", worker="host:gpu0", queues=[queue], tags=["night"])
    api("tasks.started", task=task)
    report = {"worker": "host:gpu0", "timestamp": 1000, "tags": None, "machine_stats": None}
    api("workers.status_report", **report, task=task, queue=queue, queues=[queue])
    (worker,) = api("workers.get_all", worker_pattern="^host:gpu0$")["workers"]
    assert worker["task"]["name"] == "busy"
    assert (worker["queue"]["id"], worker["queues"][0]["id"], worker["project"]["id"]) == (queue, queue, project)
    assert worker["tags"] == ["night"]
    assert api("tasks.get_by_id", task=task)["task"]["last_worker"] == "host:gpu0"
    api("workers.status_report", **report)
    (idle,) = api("workers.get_all", tags=["night"])["workers"]
    assert "task" not in idle
    waiting = api.task()
    assert api("tasks.enqueue", task=waiting, queue=queue, verify_watched_queue=True)["queue_watched"] is True
    api("workers.unregister", worker="host:gpu0", queues=[])
    assert api("workers.get_all", worker_pattern="^host:gpu0$") == {"workers": []}
    assert api.ask("workers.unregister", {"worker": "host:gpu0"}).code == "400/1001"


def test_runtime_properties_are_kept_until_they_expire(api: Api) -> None:
    assert api("workers.get_runtime_properties", worker="props") == {"runtime_properties": []}
    properties = [{"key": "force", "value": "on", "expiry": 1000}, {"key": "old", "value": "x", "expiry": -1}]
    api("workers.set_runtime_properties", worker="props", runtime_properties=properties)
    (kept,) = api("workers.get_runtime_properties", worker="props")["runtime_properties"]
    assert (kept["key"], kept["value"]) == ("force", "on")
