"""A git host that is away: waited for a while; what it does not have fails at once."""

from __future__ import annotations

from typing import Any

import pytest
from http_git import HttpRemote
from manual_clock import ManualClock
from source_site import SourceSite

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret
from hpc_agent.staging import retry_staging


def refused(world: SourceSite, script: TaskScript, **settings: Any) -> SourceError:
    with pytest.raises(SourceError) as raised:
        world.store(GitSettings(**settings)).stage(script, world.say)
    return raised.value


def test_a_remote_that_is_away_for_a_minute_is_waited_for(world: SourceSite, http_remote: HttpRemote) -> None:
    remote, repository = http_remote, world.repository("model", {"train.py": "print('here')\n"})
    script = TaskScript(repository=f"{remote.url}/{repository.path.name}", branch="main", entry_point="train.py")
    store = world.store(GitSettings(user=remote.user, password=Secret(remote.password), host="127.0.0.1"))
    remote.unavailable = True
    clock = ManualClock()
    clock.at(60, lambda: setattr(remote, "unavailable", False))
    staged = retry_staging(lambda: store.stage(script, world.say), world.say, clock)
    assert staged.commit == repository.git("rev-parse", "HEAD")
    assert 60 <= clock.seconds < 200
    assert any("Retrying" in line and "503" in line for line in world.said)


def test_unreachable_remote_fails_the_task_with_the_remotes_message(world: SourceSite) -> None:
    script = TaskScript(repository="http://127.0.0.1:9/x.git", branch="main", entry_point="train.py")
    clock = ManualClock()
    with pytest.raises(SourceError, match=r"Failed to connect|Connection refused"):
        retry_staging(lambda: world.store().stage(script, world.say), world.say, clock)
    assert 200 < clock.seconds <= 300


def test_what_is_not_there_is_not_waited_for(world: SourceSite, http_remote: HttpRemote) -> None:
    remote, repository = http_remote, world.repository("model", {"train.py": "print('here')\n"})
    known = {"user": remote.user, "password": Secret(remote.password), "host": "127.0.0.1"}
    address = f"{remote.url}/{repository.path.name}"
    for script, settings in (
        (TaskScript(repository=f"{remote.url}/nowhere.git", branch="main"), known),
        (TaskScript(repository=address, branch="nowhere"), known),
        (TaskScript(repository=address, commit="0" * 40), known),
        (TaskScript(repository=address, branch="main"), {}),
        (TaskScript(repository=f"file://{world.folder}/nowhere", branch="main"), {}),
    ):
        assert not refused(world, script, **settings).retryable, script


def test_commit_is_not_reported_missing_when_the_remote_is_away(world: SourceSite, http_remote: HttpRemote) -> None:
    """The branches were fetched, and the remote went away before the commit that none of them holds."""
    remote, repository = http_remote, world.repository("model", {"train.py": "print('here')\n"})
    settings = {"user": remote.user, "password": Secret(remote.password), "host": "127.0.0.1"}
    first = repository.git("rev-parse", "HEAD")
    repository.git("commit", "--quiet", "--amend", "--message", "other")
    script = TaskScript(repository=f"{remote.url}/{repository.path.name}", commit=first, entry_point="train.py")

    class Going(list[str]):
        """The first fetch asks twice; then the host goes away."""

        def append(self, path: str) -> None:
            super().append(path)
            remote.unavailable = sum("git-upload-pack" in seen for seen in self) > 3

    remote.requests = Going()
    error = refused(world, script, **settings)
    assert error.retryable, error
