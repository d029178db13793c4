"""``hpc.user_map`` on real Slurm: tasks of ClearML users run as the Linux users that they are mapped to."""

from __future__ import annotations

import json
import pwd
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from capabilities import missing
from e2e_site import Site
from sudo_program import sudo
from waiting import contains, wait_until

from hpc_agent.api.client import Client
from hpc_agent.api.credentials import UsersApi
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.root]

_IN_USE = 8
"""Exit code of userdel."""
WHO = "import os, pwd; print('user', pwd.getpwuid(os.getuid()).pw_name, os.environ['HOME'], flush=True)"
SLOW = f"{WHO}\nimport time; time.sleep(float(os.environ.get('LONG', '5'))); print('over')"


@dataclass(frozen=True)
class Member:
    """A ClearML user, and the client that acts for it."""

    id: str
    client: Client

    def task(self, site: Site, text: str) -> TaskId:
        script = {
            "entry_point": "who.py",
            "working_dir": ".",
            "diff": text,
            "requirements": {"pip": ""},
            "binary": f"python{sys.version_info[0]}.{sys.version_info[1]}",
        }
        task = self.client.tasks.create(
            {"name": "who", "type": "training", "project": _project(site), "script": script}
        )
        self.client.tasks.enqueue(task, site.queue_id)
        return task


def _project(site: Site) -> str:
    return site.client.projects.find_or_create("e2e")


def member(site: Site) -> Member:
    users = UsersApi(site.client.session)
    id = users.create(f"m-{uuid.uuid4().hex[:8]}", "user")
    pair = users.new_keys(id, "test")
    conf = site.folder / f"{id}.conf"
    keys = {"access_key": pair.access_key, "secret_key": pair.secret_key.reveal()}
    conf.write_text(f'include "{site.conf}"\napi.credentials: {json.dumps(keys)}\n')
    return Member(id, Client(load(conf, {}).settings.api))


@pytest.fixture(scope="module")
def linux_users(slurm_cluster: Any) -> Iterator[tuple[str, str]]:
    """Two users of this machine, with accounts in Slurm, who reach the tests' Slurm and this program."""
    for folder in (*Path(slurm_cluster.dir).parents, Path(slurm_cluster.dir)):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    names = tuple(f"hpcu{uuid.uuid4().hex[:6]}" for _ in range(2))
    try:
        for name in names:
            wait_until(f"a user {name}", lambda: _run("useradd", "--create-home", "--user-group", name))  # noqa: B023
            # Where accounting did not start in time, Slurm asks for no account.
            words = ("add", "user", name, "account=lab", "cluster=hpcagent", "qos=normal")
            subprocess.run(["sacctmgr", "-i", *words], env=slurm_cluster.env, capture_output=True, check=False)
        yield names[0], names[1]
    finally:
        for name in names:
            wait_until(f"{name}'s last process to end", lambda: _removed(name))  # noqa: B023


@pytest.fixture(scope="module")
def agent(linux_users: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """This program as the two users can run it: the tests' own interpreter may be in a home that is closed to them."""
    folder = tmp_path_factory.mktemp("agent")
    for above in (folder, *folder.parents):
        if above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o055)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    runs = ["runuser", "-u", linux_users[0], "--"]
    for base in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if subprocess.run([*runs, base, "-V"], capture_output=True, cwd="/", check=False).returncode == 0:
            break
    else:
        missing("root", f"no {version} that another user can run")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", base, folder / "env"], check=True)
    packages = next((folder / "env").glob("lib/*/site-packages"))
    own = Path(sys.executable).parents[1] / packages.relative_to(folder / "env")
    (packages / "tests.pth").write_text(f"{Path(__file__).parents[2]}\n{own}\n")
    (folder / "env" / "bin" / "uv").symlink_to(uv)
    argv = [str(folder / "env" / "bin" / "python"), "-m", "hpc_agent"]
    seen = subprocess.run([*runs, *argv, "--version"], cwd="/", text=True, capture_output=True, check=False)
    if seen.returncode:
        missing("root", f"another user cannot run this checkout: {seen.stderr}")
    return argv


@pytest.fixture(autouse=True)
def _agent_of_the_site(site: Site, request: pytest.FixtureRequest) -> None:
    if "linux_users" in request.fixturenames:
        site.configure(f"hpc.agent_command: {json.dumps(request.getfixturevalue('agent'))}")
        # In hpc.root, as where nothing is set: the tests' common cache is root's.
        site.configure(f'hpc.cache_dir: "{site.root}/cache"')


def _run(*argv: str) -> bool:
    """Whether it succeeded: another program may have the password file locked."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _removed(name: str) -> bool:
    """Whether a user is gone; one whose processes still run cannot be removed."""
    done = subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)
    return done.returncode != _IN_USE


def mapped(site: Site, lines: dict[str, str], more: str = "") -> None:
    """``agent.slurm.user_map`` as the paid glue documents it."""
    users = "\n".join(f'"{user}" = "{name}"' for user, name in lines.items())
    site.configure(f"agent {{ slurm {{ user_map {{\n{users}\n}} }} }}\n{more}")


def _folders_in(root: Path) -> str:
    return f'hpc {{ root: "{root}", cache_dir: "{root}/cache", scratch_dir: "{root}/scratch" }}'


def run_directory(user: str, task: TaskId) -> Path:
    [attempt] = (Path(pwd.getpwnam(user).pw_dir) / ".clearml" / "hpc" / "runs" / task).iterdir()
    return attempt


def owners(folder: Path) -> set[str]:
    return {path.owner() for path in (folder, *folder.rglob("*"))}


def readable(folder: Path, user: str) -> list[str]:
    """Files in a folder that another user can read."""
    find = ["runuser", "-u", user, "--", "find", str(folder), "-type", "f", "-readable"]
    done = subprocess.run(find, cwd="/", text=True, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_each_users_tasks_run_as_their_linux_user(site: Site, linux_users: tuple[str, str]) -> None:
    first, second = linux_users
    members = [member(site) for _ in range(3)]
    mapped(site, {members[0].id: first, members[1].id: second})
    tasks = [each.task(site, WHO) for each in members]
    daemon = site.daemon()
    assert [site.wait_for_end(task) for task in tasks[:2]] == [TaskStatus.COMPLETED] * 2
    for user, other, task in zip(linux_users, (second, first), tasks[:2], strict=True):
        home = pwd.getpwnam(user).pw_dir
        assert f"user {user} {home}" in site.lines(task)
        folder = run_directory(user, task)
        assert owners(folder) == {user} and (folder / "console.log").exists()
        assert owners(folder.parents[2] / "cache") == {user}
        assert (folder.parents[2].stat().st_mode & 0o077, readable(folder.parents[2], other)) == (0, [])
        job = json.loads((folder / "submit.json").read_text())["job"]
        assert f"UserId={user}(" in site.slurm("scontrol", "show", "job", job)
    assert site.wait_for_end(tasks[2]) is TaskStatus.FAILED
    assert f"hpc.user_map has no Linux user for the ClearML user {members[2].id}" in site.reason(tasks[2])
    assert not (site.root / "runs" / tasks[0]).exists()
    daemon.terminate()
    assert daemon.wait(60) == 0


def test_a_daemon_that_is_not_roots_goes_through_sudo(
    site: Site, linux_users: tuple[str, str], agent: list[str], tmp_path: Path
) -> None:
    service, user = linux_users
    owner, other = member(site), member(site)
    root = site.folder / "service"
    root.mkdir(mode=0o700)
    shutil.chown(root, service, service)
    for above in (site.folder, *site.folder.parents):
        if above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o011)
    mapped(site, {owner.id: user, other.id: service}, _folders_in(root))
    own_conf = root / "clearml.conf"
    include, _, rest = site.conf.read_text().strip().partition("\n")
    included = Path(include.split('"')[1]).read_text(encoding="utf-8")
    own_conf.write_text(f"{included}\n{rest}\n")
    own_conf.chmod(0o600)
    shutil.chown(own_conf, service, service)
    # The line of docs/user-map.md. sudo takes its own PATH, in which Slurm may not be.
    allowed = f"{service} ALL=({user}) NOPASSWD: {shlex.join(agent)} daemon --for-user *"
    program = sudo(tmp_path / "sudo", f'Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"\n{allowed}\n')
    flags = ["daemon", "--queue", site.queue, "--foreground", "--polling-interval", "0.5"]
    env = {
        **site.env,
        "PATH": f"{program.bin_dir}:{site.env['PATH']}",
        "HOME": pwd.getpwnam(service).pw_dir,
        "CLEARML_CONFIG_FILE": str(own_conf),
    }
    tasks = [owner.task(site, WHO), other.task(site, WHO)]
    with (site.folder / "daemon.log").open("ab") as sink:
        argv = [*program.under, "runuser", "-u", service, "--", *agent, *flags]
        site.processes.append(subprocess.Popen(argv, env=env, cwd="/", stdout=sink, stderr=sink))
    assert [site.wait_for_end(task) for task in tasks] == [TaskStatus.COMPLETED] * 2
    assert f"user {user} {pwd.getpwnam(user).pw_dir}" in site.lines(tasks[0])
    assert f"user {service} " in site.console(tasks[1])
    assert owners(run_directory(user, tasks[0])) == {user}
    assert readable(root, user) == [] and readable(run_directory(user, tasks[0]), service) == []


def test_with_tokens_of_owners_each_clearml_user_has_a_daemon(site: Site, linux_users: tuple[str, str]) -> None:
    members = [member(site) for _ in range(2)]
    mapped(site, {each.id: linux_users[0] for each in members})
    tasks = [each.task(site, WHO) for each in members]
    site.daemon("--use-owner-token")
    assert [site.wait_for_end(task) for task in tasks] == [TaskStatus.COMPLETED] * 2
    hpc = Path(pwd.getpwnam(linux_users[0]).pw_dir) / ".clearml" / "hpc"
    for each, task in zip(members, tasks, strict=True):
        assert f"user {linux_users[0]} {hpc.parents[1]}" in site.lines(task)
        [attempt] = (hpc / each.id / "runs" / task).iterdir()
        assert owners(attempt) == {linux_users[0]}
        conf = json.loads((hpc / each.id / "daemons" / "served.conf").read_text())
        # Neither the daemon's keys, nor a way to the other's tasks.
        assert conf["api"]["auth_token"] and not conf["api"]["credentials"]
        client = Client(load(hpc / each.id / "daemons" / "served.conf", {}).settings.api)
        assert client.tasks.get(task).user == each.id


def test_a_default_takes_the_rest_and_an_abort_reaches_it(site: Site, linux_users: tuple[str, str]) -> None:
    first, second = linux_users
    owner, other = member(site), member(site)
    mapped(site, {owner.id: first, "default": second})
    site.daemon()
    kept = other.task(site, SLOW.replace("'5'", "'600'"))
    wait_until("its first line", lambda: site.console(kept), contains(f"user {second} "))
    site.client.session.call("tasks.stop", {"task": kept})
    assert site.wait_for_end(kept) is TaskStatus.STOPPED


def test_jobs_survive_the_daemon_and_the_next_one_takes_them_up(site: Site, linux_users: tuple[str, str]) -> None:
    owner = member(site)
    mapped(site, {owner.id: linux_users[0]})
    task = owner.task(site, SLOW.replace("'5'", "'30'"))
    daemon = site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("user "))
    daemon.kill()
    daemon.wait()
    site.slurm("scancel", "--signal=KILL", "--full", *site.jobs(task))
    site.daemon(log="second.log")
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "was cancelled by root" in site.reason(task)


def test_a_command_that_does_not_work_is_shown_on_the_task(site: Site, linux_users: tuple[str, str]) -> None:
    owner = member(site)
    mapped(
        site, {owner.id: linux_users[0]}, 'hpc.user_command: [/bin/sh, -c, "echo no such luck for {user} >&2; exit 1"]'
    )
    task = owner.task(site, WHO)
    site.daemon()
    message = wait_until("a message", lambda: site.message(task), contains("no such luck"))
    assert f"Waiting: the daemon for the Linux user {linux_users[0]} does not run: no such luck for" in message
    assert site.status(task) is TaskStatus.QUEUED


def test_once_serves_all_users(site: Site, linux_users: tuple[str, str]) -> None:
    owner = member(site)
    mapped(site, {owner.id: linux_users[1]})
    task = owner.task(site, WHO)
    done = site.agent("daemon", "--queue", site.queue, "--once", timeout=600)
    assert done.returncode == 0, done.stderr
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert f"user {linux_users[1]} " in site.console(task)


@pytest.mark.parametrize(
    ("user", "sentence"),
    [("no-such-user", "who is not a user of this machine"), ("root", "who is root: no task may run as root")],
)
def test_a_wrong_map_is_refused_at_the_start(site: Site, user: str, sentence: str) -> None:
    mapped(site, {"default": user})
    answer = site.agent("daemon", "--queue", site.queue, "--once")
    assert answer.returncode == 2 and sentence in answer.stderr
