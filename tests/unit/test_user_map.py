"""Map of ClearML users to Linux users: who runs what, and what the main daemon leaves to others."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from manual_clock import ManualClock

from hpc_agent.cli.user_daemon import _document as document_of
from hpc_agent.config.load import load
from hpc_agent.daemon.task_owners import MainEntries, ShareEntries
from hpc_agent.daemon.user_daemons import UserDaemons, command
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.domain.task import TaskOwner
from hpc_agent.domain.user_map import UserMap, UserShare
from hpc_agent.errors import InputError, UserMapError
from hpc_agent.redact import Secret

USERS = UserMap({"c-alice": "alice", "c-bob": "bob", "c-robert": "bob"})
OWNERS = {"t1": "c-alice", "t2": "c-bob", "t3": "c-eve", "t4": "", "t5": "c-robert"}
QUEUE = Queue(QueueId("q"), "gpu", tuple(QueueEntry(TaskId(task), "now") for task in (*OWNERS, "gone")))


class Tasks:
    """The part of the client that is asked for owners; notes what is shown on tasks."""

    def __init__(self) -> None:
        self.tasks = self
        self.asked: list[list[str]] = []
        self.messages: list[tuple[str, str]] = []

    def get_owners(self, tasks: list[str], budget: object) -> dict[str, TaskOwner]:
        self.asked.append(tasks)
        return {task: TaskOwner(OWNERS[task], "") for task in tasks if task in OWNERS}

    def set_status_message(self, task: str, message: str, budget: object) -> None:
        self.messages.append((task, message))


class Others:
    def __init__(self, trouble: str = "") -> None:
        self.shares: list[UserShare] = []
        self.trouble = trouble

    def require(self, share: UserShare) -> str:
        self.shares.append(share)
        return self.trouble


def served(queue: Queue) -> list[str]:
    return [entry.task for entry in queue.entries]


def main(tasks: Any, others: Others, users: UserMap = USERS, *, by_clearml_user: bool = False) -> MainEntries:
    return MainEntries(tasks, users, others, "service", by_clearml_user=by_clearml_user)


def test_a_user_without_a_line_needs_a_default() -> None:
    assert USERS.linux_user("c-alice") == "alice"
    assert UserMap({**USERS.users, "default": "guest"}).linux_user("c-eve") == "guest"
    for user, words in (("c-eve", "the ClearML user c-eve"), ("", "a task that has no ClearML user")):
        with pytest.raises(UserMapError, match=words):
            USERS.linux_user(user)


def test_the_main_daemon_keeps_what_is_to_be_rejected_and_starts_the_others() -> None:
    tasks, others = Tasks(), Others()
    assert served(main(tasks, others)(QUEUE)) == ["t3", "t4", "gone"]
    assert {*others.shares} == {UserShare("alice"), UserShare("bob")}


def test_it_serves_its_own_users_tasks_itself() -> None:
    tasks, others = Tasks(), Others()
    assert served(main(tasks, others, UserMap({"c-alice": "alice", "default": "service"}))(QUEUE))[0] == "t2"
    assert others.shares == [UserShare("alice")]


def test_with_tokens_of_owners_each_clearml_user_is_a_share() -> None:
    others = Others()
    main(Tasks(), others, by_clearml_user=True)(QUEUE)
    assert {*others.shares} == {
        UserShare("alice", "c-alice"),
        UserShare("bob", "c-bob"),
        UserShare("bob", "c-robert"),
    }


def test_a_daemon_that_does_not_run_is_shown_once() -> None:
    tasks, others = Tasks(), Others("no such luck")
    entries = main(tasks, others)
    for _ in range(3):
        entries(QUEUE)
    assert sorted(tasks.messages) == [(task, "Waiting: no such luck") for task in ("t1", "t2", "t5")]
    assert tasks.asked[0] == [*OWNERS, "gone"] and tasks.asked[1:] == [["gone"], ["gone"]]


def test_a_share_has_its_users_tasks_only() -> None:
    tasks: Any = Tasks()
    assert served(ShareEntries(tasks, USERS, UserShare("bob"))(QUEUE)) == ["t2", "t5"]
    assert served(ShareEntries(tasks, USERS, UserShare("bob", "c-robert"))(QUEUE)) == ["t5"]


def test_the_key_of_the_paid_glue_is_ours_too(tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    theirs = 'agent { slurm { user_map { "9848dbd7" = "alice", "default" = "guest" } } }\n'
    conf.write_text(theirs)
    assert load(conf, {}).settings.hpc.user_map == {"9848dbd7": "alice", "default": "guest"}
    conf.write_text(f"{theirs}hpc.user_map {{ a: bob }}\n")
    assert load(conf, {}).settings.hpc.user_map == {"a": "bob"}


def test_the_sites_command_gets_the_users_name() -> None:
    assert command(("site-run", "--as={user}", "--"), "alice") == ["site-run", "--as=alice", "--"]
    assert "alice" in command((), "alice")


def test_daemons_of_users_are_started_again_and_forgotten_when_idle(tmp_path: Path) -> None:
    clock = ManualClock()
    script = 'read -r line; echo "$line" >> {folder}/got; [ -e {folder}/idle ] || {{ echo broken >&2; exit 3; }}'
    daemons = UserDaemons(
        tmp_path,
        lambda share: {"user": share.name},
        lambda _user: ["/bin/sh", "-c", script.format(folder=tmp_path)],
        {"PATH": "/usr/bin:/bin"},
        clock,
    )
    share = UserShare("alice")
    assert daemons.require(share) == ""
    while not daemons.require(share):
        daemons.look()
    assert "the daemon for the Linux user alice does not run: broken (command: /bin/sh" in daemons.require(share)
    (tmp_path / "idle").touch()
    clock.advance(10)
    while share in daemons.recorded():
        daemons.look()
    assert (tmp_path / "got").read_text() == '{"user": "alice", "once": false}\n' * 2
    daemons.close()


def test_a_user_without_a_token_does_not_keep_the_others_from_their_daemons(tmp_path: Path) -> None:
    def document(share: UserShare) -> dict[str, str]:
        if share.only == "gone":
            raise InputError("the server gives no token of gone")
        return {"user": share.name}

    daemons = UserDaemons(
        tmp_path,
        document,
        lambda _user: ["/bin/sh", "-c", f"cat > {tmp_path}/got"],
        {"PATH": "/usr/bin:/bin"},
        ManualClock(),
    )
    assert "does not run: the server gives no token of gone" in daemons.require(UserShare("alice", "gone"))
    assert daemons.require(UserShare("bob")) == ""
    daemons.close()
    assert '"user": "bob"' in (tmp_path / "got").read_text()


def test_after_a_change_to_tokens_of_owners_no_daemon_serves_a_linux_user_as_a_whole(tmp_path: Path) -> None:
    def daemons(*, by_clearml_user: bool) -> UserDaemons:
        return UserDaemons(
            tmp_path,
            lambda _share: {},
            lambda _user: ["true"],
            {},
            ManualClock(),
            starts=False,
            by_clearml_user=by_clearml_user,
        )

    daemons(by_clearml_user=False).require(UserShare("alice"))
    assert daemons(by_clearml_user=False).recorded() == (UserShare("alice"),)
    now = daemons(by_clearml_user=True)
    assert now.recorded() == ()
    now.require(UserShare("alice", "c-alice"))
    assert now.recorded() == (UserShare("alice", "c-alice"),)


def test_a_daemon_of_one_user_gets_no_credentials_of_the_main_daemon(tmp_path: Path) -> None:
    """The main daemon may itself run with the configuration of a job, which holds a login."""
    conf = tmp_path / "clearml.conf"
    credentials = 'credentials { access_key: "K", secret_key: "main secret" }'
    conf.write_text(
        f'api {{ api_server: "http://there", {credentials}, login_token: "K:main login" }}\n'
        'hpc.user_map { "c-alice": "alice" }\n'
    )
    plan: Any = SimpleNamespace(
        configuration=(configuration := load(conf, {})),
        settings=configuration.settings,
        client=SimpleNamespace(owners=SimpleNamespace(token=lambda user: Secret(f"token of {user}"))),
        flags=SimpleNamespace(from_anywhere=lambda: SimpleNamespace(given=dict)),
    )
    text = json.dumps(document_of(plan, UserShare("alice", "c-alice")))
    assert "token of c-alice" in text
    assert "main secret" not in text
    assert "main login" not in text
