"""What a user, a task's credentials and an administrator may do, on every endpoint; how long keys and tokens live."""

from __future__ import annotations

import contextlib
import typing
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec.structs import fields as fields_of
from server_core import Caller, ServerCore

from hpc_agent.server.action import RequestBody
from hpc_agent.server.authentication import LINGER
from hpc_agent.server.roles import PERMISSIONS, OwnerKind, Scope
from hpc_agent.server.services import ENDPOINTS

FORBIDDEN = "403/20"


@pytest.fixture
def alice(server: ServerCore) -> Caller:
    return server.user("alice")


@pytest.fixture
def bob(server: ServerCore) -> Caller:
    return server.user("bob")


def new_task(caller: Any, **fields: Any) -> str:
    return str(caller("tasks.create", **{"name": "task", "type": "training", **fields})["id"])


def test_every_endpoint_has_a_permission() -> None:
    assert set(PERMISSIONS) == set(ENDPOINTS)


OPEN_AND_CHANGING = {"tasks.create", "tasks.clone", "projects.create", "reports.create", "pipelines.start_pipeline"}
"""They make something new, and change nothing of another's."""


def test_only_reading_endpoints_are_for_all_users_on_everything() -> None:
    open_to_tasks = {name for name, row in PERMISSIONS.items() if row.task is Scope.ALL}
    changing = {name for name in open_to_tasks if ENDPOINTS[name].access.value != "read"}
    assert changing == OPEN_AND_CHANGING
    for name, row in PERMISSIONS.items():
        if Scope.OWN in (row.user, row.task):
            assert row.own or row.or_own, f"{name} names nothing that could be one's own"


@pytest.mark.parametrize("name", sorted(PERMISSIONS))
def test_the_fields_that_a_row_names_are_fields_of_the_request(name: str) -> None:
    row = PERMISSIONS[name]
    fields = {target.field for target in (*row.own, *row.or_own) if target.kind is not OwnerKind.EVENTS}
    assert fields <= set(getattr(ENDPOINTS[name].request, "__struct_fields__", ()))


OWNED = [
    (name, target)
    for name, row in sorted(PERMISSIONS.items())
    for target in (*row.own, *row.or_own)
    if row.user is Scope.OWN
    and target.kind in (OwnerKind.TASK, OwnerKind.MODEL, OwnerKind.PROJECT, OwnerKind.QUEUE, OwnerKind.WORKER)
]


class Things:
    """One of everything, of one owner."""

    def __init__(self, caller: Caller, suffix: str) -> None:
        task = new_task(caller)
        queue = caller("queues.create", name=f"queue {suffix}")["id"]
        caller("workers.register", worker=f"worker {suffix}")
        self.ids = {
            OwnerKind.TASK: task,
            OwnerKind.MODEL: caller("models.create", name="net", uri="u")["id"],
            OwnerKind.PROJECT: caller("projects.create", name=f"project {suffix}")["id"],
            OwnerKind.QUEUE: queue,
            OwnerKind.WORKER: f"worker {suffix}",
        }

    def shown(self, server: ServerCore) -> list[Any]:
        """All of them as they are now."""
        services = {
            OwnerKind.TASK: "tasks",
            OwnerKind.MODEL: "models",
            OwnerKind.PROJECT: "projects",
            OwnerKind.QUEUE: "queues",
        }
        listed = [server(f"{name}.get_all", id=[self.ids[kind]])[name] for kind, name in services.items()]
        return [*listed, server("workers.get_all")["workers"]]

    def request(self, name: str) -> dict[str, Any]:
        """A request for this endpoint on these things, with all that it must have."""
        row = PERMISSIONS[name]
        fields: dict[str, Any] = {
            "name": "new",
            "uri": "u",
            "requirements": {},
            "hyperparams": [],
            "configuration": [],
            "artifacts": [],
            "models": [],
            "metadata": [],
            "keys": [],
            "runtime_properties": [],
            "model": self.ids[OwnerKind.MODEL],
            "type": "output" if name == "tasks.add_or_update_model" else None,
            "queue": self.ids[OwnerKind.QUEUE],
            "task": self.ids[OwnerKind.TASK],
            "force": True,
            "project_name": "moved here",
        }
        if name == "tasks.edit":
            fields = {"comment": "changed", "force": True}
        for target in (*row.own, *row.or_own):
            if target.field and target.kind in self.ids:
                id = self.ids[target.kind]
                fields[target.field] = [id] if target.field in ("ids", "tasks") else id
        request = ENDPOINTS[name].request
        required = [field for field in fields_of(request) if field.required] if is_body(request) else []
        return {**{field.encode_name: any_value(field.type) for field in required}, **fields}


def is_body(request: Any) -> bool:
    """Whether a request has fields of its own, and is not just any JSON."""
    return isinstance(request, type) and issubclass(request, RequestBody)


def any_value(kind: Any) -> Any:
    """The first plain value that a field of this type takes."""
    values: tuple[Any, ...] = ("x", 1, True, [], {})
    for value in (*typing.get_args(kind)[:1], *values):
        with contextlib.suppress(msgspec.ValidationError, TypeError):
            msgspec.convert(value, kind)
            return value
    raise AssertionError(f"no value here is a {kind}: add one")


def test_a_required_field_of_any_name_gets_a_value() -> None:
    class Request(RequestBody, frozen=True):
        text: str
        number: int
        words: list[str]
        truth: bool
        choice: Literal["a", "b"]
        section: dict[str, str] | None

    values = {field.name: any_value(field.type) for field in fields_of(Request)}
    assert msgspec.to_builtins(msgspec.convert(values, Request)) == values
    assert values["choice"] == "a"


def test_naming_anothers_model_among_ones_outputs_gives_no_right_to_it(alice: Caller, bob: Caller) -> None:
    model = alice("models.create", name="hers", uri="hers")["id"]
    task = new_task(bob, models={"output": [{"model": model, "name": "hers"}]})
    made = bob("models.update_for_task", task=task, uri="his")
    assert made["created"] and made["id"] != model
    assert alice("models.get_by_id", model=model)["model"]["uri"] == "hers"


@pytest.mark.parametrize("name", sorted({name for name, _ in OWNED}))
def test_what_belongs_to_another_is_changed_by_an_administrator_only(
    server: ServerCore, alice: Caller, bob: Caller, name: str
) -> None:
    hers = Things(alice, "hers")
    alice("tasks.enqueue", task=hers.ids[OwnerKind.TASK], queue=hers.ids[OwnerKind.QUEUE])
    before = hers.shown(server)
    refused = bob.ask(name, hers.request(name))
    assert (refused.code, "not the caller's" in refused.message) == (FORBIDDEN, True)
    job = server.job(new_task(alice))
    assert job.ask(name, hers.request(name)).code == FORBIDDEN
    assert hers.shown(server) == before
    # The request as such is a good one.
    assert alice.ask(name, hers.request(name)).code not in (FORBIDDEN, "400/12")


@pytest.mark.parametrize("name", sorted(name for name, row in PERMISSIONS.items() if row.user is Scope.NONE))
def test_administrators_endpoints_are_refused_to_users(alice: Caller, name: str) -> None:
    assert alice.ask(name, Things(alice, "hers").request(name)).code == FORBIDDEN


@pytest.mark.parametrize("name", sorted(name for name, row in PERMISSIONS.items() if row.task is Scope.NONE))
def test_endpoints_for_people_are_refused_to_tasks(server: ServerCore, alice: Caller, name: str) -> None:
    job = server.job(new_task(alice))
    assert job.ask(name, Things(alice, "hers").request(name)).code == FORBIDDEN


@pytest.mark.parametrize(
    "event",
    [
        {"type": "log", "msg": "x"},
        {"type": "log", "msg": "x", "model_event": "false"},
        {"type": "log", "msg": "x", "model_event": 0},
        {"type": "plot", "metric": "m", "variant": "v", "plot_str": "{}"},
    ],
)
def test_events_of_anothers_task_are_refused_in_every_spelling(
    server: ServerCore, alice: Caller, bob: Caller, event: dict[str, Any]
) -> None:
    task, own = new_task(alice), new_task(bob)
    assert bob.ask("events.add", {**event, "task": task}).code == FORBIDDEN
    batch = [{"type": "log", "task": own, "msg": "mine"}, {**event, "task": task}]
    assert bob.ask("events.add_batch", batch).code == FORBIDDEN
    assert server("events.get_task_log", task=task)["total"] == 0


def test_a_model_that_a_task_only_names_is_not_published_with_it(alice: Caller, bob: Caller) -> None:
    model = alice("models.create", name="net", uri="u", ready=False)["id"]
    task = new_task(bob, models={"output": [{"name": "m", "model": model}]})
    bob("tasks.publish", task=task, force=True)
    assert alice("models.get_by_id", model=model)["model"]["ready"] is False


def test_all_users_read_and_make_things(server: ServerCore, alice: Caller, bob: Caller) -> None:
    task = new_task(alice)
    assert bob("tasks.get_by_id", task=task)["task"]["id"] == task
    copy = bob("tasks.clone", task=task)["id"]
    bob("tasks.edit", task=copy, comment="mine")
    queue = server("queues.create", name="the group's")["id"]
    bob("tasks.enqueue", task=copy, queue=queue)
    assert bob("queues.remove_task", task=copy, queue=queue) == {"removed": 1}


def test_what_the_server_keeps_for_itself_is_not_shown(server: ServerCore, alice: Caller) -> None:
    task = new_task(server.job(new_task(alice)))
    assert "made_by" not in server("tasks.get_by_id", task=task)["task"]


# Keys and tokens


def test_a_user_has_several_keys_and_loses_one_at_a_time(server: ServerCore, alice: Caller) -> None:
    second = alice("auth.create_credentials", label="laptop")["credentials"]
    laptop = Caller(server, second["access_key"], second["secret_key"])
    token = laptop.token()
    assert {c["label"] for c in alice("auth.get_credentials")["credentials"]} == {"", "laptop"}
    assert alice("auth.revoke_credentials", access_key=laptop.access_key) == {"revoked": 1}
    assert laptop.ask("users.get_current_user").code == "401/22"
    answer = server.ask("users.get_current_user", {}, token)
    assert (answer.code, "revoked" in answer.message) == ("401/30", True)
    assert alice("users.get_current_user")["user"]["name"] == "alice"


def test_only_an_administrator_manages_keys_of_other_users(server: ServerCore, alice: Caller, bob: Caller) -> None:
    user = alice("users.get_current_user")["user"]["id"]
    assert bob.ask("auth.create_credentials", {"user": user}).code == FORBIDDEN
    assert bob.ask("auth.get_credentials", {"user": user}).code == FORBIDDEN
    assert bob.ask("auth.revoke_credentials", {"user": user}).code == FORBIDDEN
    assert bob.ask("auth.revoke_credentials", {"access_key": alice.access_key}).code == FORBIDDEN
    assert server("auth.revoke_credentials", user=user) == {"revoked": 1}
    assert alice.ask("users.get_current_user").code == "401/22"


def test_a_token_in_a_users_name_makes_no_keys_of_the_users(server: ServerCore, alice: Caller) -> None:
    user = alice("users.get_current_user")["user"]["id"]
    login = server.ask("auth.login", {}, server.administrator.basic, user)
    token = f"Bearer {login.data['token']}"
    assert server.ask("users.get_current_user", {}, token).data["user"]["name"] == "alice"
    for action in ("auth.create_credentials", "auth.get_credentials", "auth.revoke_credentials"):
        assert server.ask(action, {}, token).code == FORBIDDEN
    assert server.ask("auth.revoke_credentials", {"access_key": alice.access_key}, token).code == FORBIDDEN


def test_the_servers_own_key_is_not_revoked(server: ServerCore) -> None:
    answer = server.administrator.ask("auth.revoke_credentials", {"access_key": "OWN"})
    assert (answer.code, "secrets.json" in answer.message) == ("400/12", True)
    assert server("auth.revoke_credentials") == {"revoked": 0}
    assert server("users.get_current_user")["user"]["name"] == "administrator"


def test_secrets_are_kept_as_hashes(server: ServerCore, tmp_path: Path) -> None:
    user = server("auth.create_user", name="carol")["id"]
    secret = server("auth.create_credentials", user=user)["credentials"]["secret_key"]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("server.db*"))
    assert b"carol" in kept
    assert secret.encode() not in kept


def test_a_token_expires_and_its_renewal_does_not_outlive_it(server: ServerCore) -> None:
    token = server.administrator.token(5)
    server.clock.advance(4)
    renewed = server.ask("auth.login", {"expiration_sec": 10**9}, token)
    server.clock.advance(0.5)
    again = server.ask("auth.login", {}, f"Bearer {renewed.data['token']}")
    server.clock.advance(0.6)
    for late in (token, f"Bearer {renewed.data['token']}", f"Bearer {again.data['token']}"):
        answer = server.ask("users.get_current_user", {}, late)
        assert (answer.code, "expired" in answer.message) == ("401/30", True)


@pytest.mark.parametrize("seconds", [None, 0, -1, 10**9])
def test_no_token_lives_longer_than_a_month(server: ServerCore, seconds: int | None) -> None:
    token = server.administrator.token(seconds)
    server.clock.advance(30 * 24 * 3600 - 1)
    assert server.ask("users.get_current_user", {}, token).code == "200/0"
    server.clock.advance(2)
    assert server.ask("users.get_current_user", {}, token).code == "401/30"


# The credentials of a task


def test_a_job_does_with_its_task_what_running_it_needs(server: ServerCore, alice: Caller) -> None:
    queue = server("queues.create", name="gpus")["id"]
    task = new_task(alice)
    alice("tasks.enqueue", task=task, queue=queue)
    job = server.job(task)
    assert job("users.get_current_user")["user"]["name"] == "alice"
    assert job("queues.remove_task", queue=queue, task=task) == {"removed": 1}
    job("tasks.started", task=task)
    job("workers.register", worker="node:1")
    job("workers.status_report", worker="node:1", task=task)
    job("events.add", type="log", task=task, msg="hello")
    job("tasks.add_or_update_artifacts", task=task, artifacts=[{"key": "a"}])
    model = job("models.create", name="net", uri="u", task=task)["id"]
    job("models.edit", model=model, comment="c")
    job("tasks.add_or_update_model", task=task, name="m", model=model, type="output")
    # A preempted job puts its task back to the head of its queue, and is let in again.
    job("tasks.enqueue", task=task, queue=queue, force=True)
    job("queues.move_task_to_front", task=task, queue=queue)
    server.clock.advance(40 * 24 * 3600)
    job("queues.remove_task", queue=queue, task=task)
    job("tasks.started", task=task)
    job("workers.unregister", worker="node:1")
    job("tasks.completed", task=task)


@pytest.mark.parametrize("ends", [True, False])
def test_a_worker_that_a_killed_job_left_is_the_next_ones(
    server: ServerCore, alice: Caller, bob: Caller, ends: bool
) -> None:
    """The worker of a job on GPU 3 is called ``box:gpu3``, whatever the task; a killed one does not unregister it."""
    killed, task = new_task(bob), new_task(alice)
    job, next_job = server.job(killed), server.job(task)
    job("tasks.started", task=killed)
    job("workers.status_report", worker="box:gpu3", task=killed)
    next_job("tasks.started", task=task)
    assert next_job.ask("workers.status_report", {"worker": "box:gpu3", "task": task}).code == FORBIDDEN
    if ends:
        server("tasks.failed", task=killed)
    else:
        server.clock.advance(91)
    next_job("workers.status_report", worker="box:gpu3", task=task)
    [worker] = server("workers.get_all")["workers"]
    assert (worker["task"]["id"], worker["user"]["name"]) == (task, "alice")
    assert job.ask("workers.unregister", {"worker": "box:gpu3"}).code == FORBIDDEN
    next_job("workers.unregister", worker="box:gpu3")


def test_a_job_may_not_report_as_a_users_worker(server: ServerCore, alice: Caller) -> None:
    alice("workers.register", worker="box:0")
    server.clock.advance(500)
    task = new_task(alice)
    assert server.job(task).ask("workers.status_report", {"worker": "box:0", "task": task}).code == FORBIDDEN


def test_a_job_makes_and_runs_child_tasks(server: ServerCore, alice: Caller) -> None:
    queue = server("queues.create", name="gpus")["id"]
    job = server.job(new_task(alice))
    child = new_task(job, project=job("projects.create", name="steps")["id"])
    copy = job("tasks.clone", task=child)["id"]
    for made in (child, copy):
        job("tasks.edit", task=made, comment="step")
        job("tasks.enqueue", task=made, queue=queue)
    job("tasks.dequeue", task=copy)
    job("tasks.delete", task=copy, force=True)
    assert alice("tasks.get_by_id", task=child)["task"]["user"] == alice("users.get_current_user")["user"]["id"]
    alice("tasks.dequeue", task=child)


def test_a_job_touches_nothing_else_of_its_owners(server: ServerCore, alice: Caller) -> None:
    job, other = server.job(new_task(alice)), new_task(alice)
    answer = job.ask("tasks.edit", {"task": other, "comment": "x"})
    assert (answer.code, "a task's credentials change what its task made only" in answer.message) == (FORBIDDEN, True)
    assert job.ask("tasks.enqueue", {"task": new_task(job), "queue_name": "brand new"}).code == FORBIDDEN
    assert job.ask("auth.create_task_credentials", {"task": other}).code == FORBIDDEN


def test_an_administrators_task_gives_its_job_no_administrators_rights(server: ServerCore, alice: Caller) -> None:
    job = server.job(new_task(server))
    assert job.ask("auth.create_user", {"name": "x"}).code == FORBIDDEN
    assert job.ask("tasks.delete", {"task": new_task(alice), "force": True}).code == FORBIDDEN
    login = server.ask("auth.login", {}, job.basic, alice("users.get_current_user")["user"]["id"])
    assert login.code == "400/6"


def test_credentials_end_with_their_task(server: ServerCore, alice: Caller) -> None:
    task = new_task(alice)
    job = server.job(task)
    token = job.token()
    job("tasks.started", task=task)
    job("tasks.completed", task=task)
    # The last lines are still on their way, and those who wait for the end look at it.
    job("events.add", type="log", task=task, msg="the last line")
    assert job("tasks.get_by_id", task=task)["task"]["status"] == "completed"
    for action, fields in (
        ("tasks.edit", {"task": task, "comment": "x", "force": True}),
        ("tasks.create", {"name": "new", "type": "training"}),
        ("tasks.started", {"task": task, "force": True}),
    ):
        answer = job.ask(action, fields)
        assert (answer.code, "has ended" in answer.message) == (FORBIDDEN, True)
    server.clock.advance(LINGER.total_seconds() + 1)
    assert server.ask("tasks.get_by_id", {"task": task}, token).code == "401/22"
    answer = job.ask("tasks.get_by_id", {"task": task})
    assert (answer.code, "has ended" in answer.message) == ("401/22", True)


def test_the_job_of_a_deleted_task_reads_for_a_while_that_it_is_gone(server: ServerCore, alice: Caller) -> None:
    task = new_task(alice)
    job = server.job(task)
    alice("tasks.started", task=task)
    alice("tasks.delete", task=task, force=True)
    assert job.ask("tasks.get_by_id", {"task": task}).code == "400/101"
    assert job.ask("tasks.create", {"name": "new", "type": "training"}).code == FORBIDDEN
    server.sweep(seconds=1)
    assert job.ask("tasks.get_by_id", {"task": task}).code == "400/101"
    server.sweep(seconds=LINGER.total_seconds())
    assert job.ask("tasks.get_by_id", {"task": task}).code == "401/22"


@pytest.mark.parametrize("end", ["reset", "sweep"])
def test_credentials_of_an_ended_run_do_not_come_back_with_the_next(
    server: ServerCore, alice: Caller, end: str
) -> None:
    task = new_task(alice)
    job = server.job(task)
    alice("tasks.started", task=task)
    alice("tasks.failed", task=task)
    if end == "sweep":
        server.sweep(seconds=LINGER.total_seconds() + 1)
    else:
        alice("tasks.reset", task=task)
    assert job.ask("tasks.get_all").code == "401/22"


def test_enqueuing_again_invalidates_credentials_of_the_earlier_job(server: ServerCore, alice: Caller) -> None:
    task = new_task(alice)
    earlier = server.job(task)
    alice("tasks.started", task=task)
    alice("tasks.failed", task=task)
    alice("tasks.enqueue", task=task, queue_name="gpus")
    assert earlier.ask("tasks.get_all").code == "401/22"
    assert server.job(task)("tasks.get_by_id", task=task)["task"]["status"] == "queued"


def test_an_ended_task_gets_no_credentials(server: ServerCore, alice: Caller) -> None:
    task = new_task(alice)
    alice("tasks.failed", task=task, force=True)
    assert server.administrator.ask("auth.create_task_credentials", {"task": task}).code == "400/110"
    assert server.administrator.ask("auth.create_task_credentials", {"task": "none"}).code == "400/101"


def test_running_jobs_lose_their_credentials_with_their_users(server: ServerCore, alice: Caller) -> None:
    job = server.job(new_task(alice))
    server("auth.revoke_credentials", user=alice("users.get_current_user")["user"]["id"])
    assert job.ask("tasks.get_all").code == "401/22"
