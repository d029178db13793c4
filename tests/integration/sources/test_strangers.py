"""Repositories that never answer, hosts that ask for passwords, and a mirror that another user has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from silent_server import silent_server

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret
from hpc_agent.sources import git


def hurried_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Between us and git: writes down git's arguments, and makes a limit on silence a second of a minute."""
    folder.mkdir()
    git_log = folder / "git_log"
    (folder / "git").write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" >> {git_log}\nprintf "%s\\n" "$GIT_SSH_COMMAND" >> {git_log}\n'
        f'exec {shutil.which("git")} "${{@/http.lowSpeedTime=60/http.lowSpeedTime=1}}"\n'
    )
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return git_log


def test_silent_http_remote_times_out(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried_git(tmp_path / "bin", monkeypatch)
    with silent_server() as address, pytest.raises(SourceError, match="too slow") as error:
        world.store().stage(TaskScript(f"http://{address}/x.git", branch="main"), world.say)
    assert error.value.retryable


def test_ssh_times_out_on_a_silent_server(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git_log = hurried_git(tmp_path / "bin", monkeypatch)
    with pytest.raises(SourceError):
        world.store().stage(TaskScript("ssh://127.0.0.1:9/x.git", branch="main"), world.say)
    assert "-oConnectTimeout=" in git_log.read_text() and "-oServerAliveInterval=" in git_log.read_text()


def test_git_protocol_is_refused_before_a_host_is_asked(world: Any) -> None:
    with silent_server() as address, pytest.raises(SourceError, match="https or ssh address"):
        world.store().stage(TaskScript(f"git://{address}/x.git", branch="main"), world.say)


def test_submodule_over_git_protocol_is_named_and_left_out(world: Any) -> None:
    top = world.repository("top", {"train.py": "1"})
    inner = world.repository("inner", {"a": "1"})
    top.git("submodule", "add", "--quiet", inner.url, "lib")
    (top.path / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = git://127.0.0.1/x\n')
    top.commit({})
    staged = world.store().stage(TaskScript(top.url, branch="main", entry_point="train.py"), world.say)
    assert "submodule lib will be missing" in staged.notes[0] and "git://" in staged.notes[0]


def test_configuration_of_a_mirror_names_no_program(world: Any, tmp_path: Path) -> None:
    """Who may write to a group's cache could otherwise run code as any user who fetches."""
    repository = world.repository("model", {"train.py": "1"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    world.store().stage(script, world.say)
    [mirror] = world.mirrors.iterdir()
    ran = tmp_path / "ran"
    hook = mirror / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    with (mirror / "config").open("a") as config:
        config.write(
            f"[core]\n\tsshCommand = touch {ran}\n\tfsmonitor = touch {ran}\n\talternateRefsCommand = touch {ran}\n"
            f"\thooksPath = {hook.parent}\n[credential]\n\thelper = !touch {ran}\n"
            f'[remote "origin"]\n\turl = {repository.url}\n\tuploadpack = touch {ran}; git-upload-pack\n'
            f'[remote "{repository.url}"]\n\tuploadpack = touch {ran}; git-upload-pack\n'
        )
    second = repository.commit({"train.py": "2"})
    assert world.store().stage(script, world.say).commit == second
    assert not ran.exists()


def test_configuration_of_a_mirror_names_no_other_remote(world: Any) -> None:
    repository = world.repository("model", {"train.py": "1"})
    evil = world.repository("evil", {"train.py": "evil"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    world.store().stage(script, world.say)
    [mirror] = world.mirrors.iterdir()
    with (mirror / "config").open("a") as config:
        config.write(f'[url "{evil.url}"]\n\tinsteadOf = {repository.url}\n[remote "origin"]\n\turl = {evil.url}\n')
    second = repository.commit({"train.py": "2"})
    assert world.store().stage(script, world.say).commit == second


def test_password_is_not_sent_to_a_host_that_only_a_task_names(world: Any, http_remote: Any) -> None:
    world.repository("model", {"train.py": "1"})
    settings = GitSettings(user=http_remote.user, password=Secret(http_remote.password))
    with pytest.raises(SourceError, match=r"agent\.git_host"):
        world.store(settings).stage(TaskScript(f"{http_remote.url}/model", branch="main"), world.say)
    assert http_remote.asked == 1 and len(http_remote.requests) == 1


def test_hosts_of_the_accounts_own_git_configuration_are_known(tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(
        '[credential "https://gitlab.lab.org"]\n\thelper = store\n[url "https://Mirror.lab.org:8443/x"]\n'
        '\tinsteadOf = y:\n[user]\n\tname = me\n[http "https://proxied.lab.org/"]\n\tproxy = p\n'
        "[credential]\n\thelper = cache\n"
    )
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_SYSTEM": os.devnull}
    assert git.named_hosts(environ) == {"gitlab.lab.org", "mirror.lab.org", "proxied.lab.org"}


def test_task_whose_changes_are_neither_patch_nor_script_fails(world: Any) -> None:
    repository = world.repository("model", {"train.py": "print(1)\n"})
    for diff in ("# WARNING: git diff too large to store\n", "train.py --- Python\n1 print(1)  2 print(2)\n"):
        script = TaskScript(repository.url, branch="main", entry_point="train.py", diff=diff)
        staged = world.store().stage(script, world.say)
        with pytest.raises(SourceError, match="neither a patch nor a script"):
            world.store().checkout(script, staged, world.runs, world.say)


def test_own_text_of_a_task_that_is_not_used_is_named(world: Any) -> None:
    repository = world.repository("model", {"train.py": "print(1)\n"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py", diff="print(2)\n")
    workspace = world.store().checkout(script, world.store().stage(script, world.say), world.runs, world.say)
    assert "train.py is not used" in workspace.notes[0]


def test_requirements_behind_a_link_are_read(world: Any) -> None:
    repository = world.repository("model", {"lists/base.txt": "six\n"})
    (repository.path / "requirements.txt").symlink_to("lists/base.txt")
    (repository.path / "setup.py").symlink_to("/etc/hostname")
    repository.commit({"environment.yml": "dependencies: []\n"})
    store, script = world.store(), TaskScript(repository.url, branch="main", entry_point="x.py")
    found = store.requirement_files(script, store.stage(script, world.say))
    assert found.texts["requirements.txt"] == "six\n"
    assert "setup.py" not in found.texts
    assert found.unread == ("environment.yml",)


def test_lists_in_a_folder_and_locks_are_found(world: Any) -> None:
    files = {"app/requirements/base.txt": "six\n", "app/requirements/README": "", "app/x.py": "", "uv.lock": ""}
    repository = world.repository("model", {**files, "app/setup.py": "", "app/poetry.lock": ""})
    script = TaskScript(repository.url, branch="main", entry_point="x.py", working_dir="app")
    store = world.store()
    found = store.requirement_files(script, store.stage(script, world.say))
    assert found.unread == ("app/requirements/base.txt",)
    assert found.locks == ("app/poetry.lock",)  # the root has no project that the other would be for
