"""The merged configuration as a file that jobs and the SDK read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.config.load import Configuration
from hpc_agent.config.names import RESOLVED
from hpc_agent.config.tree import Tree, merge, put
from hpc_agent.file_batches import FileWrite, write_together
from hpc_agent.file_records import write_atomic
from hpc_agent.redact import Secret

NO_LOGIN = Secret("")


def write_job_config(configuration: Configuration, path: Path, changes: Mapping[str, object] = {}) -> None:
    """Write everything that was read, environment and flags included, as JSON (which is HOCON) with mode 0600.

    A compute job gets the path of this file and no secret by any other way. It holds the resolved folders and
    servers, so that a job sees what the daemon saw. ``changes``: dotted keys that are to be otherwise there.
    """
    write_together([job_config_write(configuration, path, changes)])


def job_config_write(configuration: Configuration, path: Path, changes: Mapping[str, object]) -> FileWrite:
    """What ``write_job_config`` writes, for many jobs together."""
    return FileWrite(path, _text(configuration, changes), mode=0o600)


def share_job_config(
    configuration: Configuration, folder: Path, changes: Mapping[str, object] = {}, login: Secret = NO_LOGIN
) -> Path:
    """As ``write_job_config``, for many jobs: the file's name comes from its content without ``login``, which is
    ``api.login_token`` there.

    A job that waits keeps what its own daemon wrote, even if another one serves the queue when it starts.
    """
    path = shared_config_path(configuration, folder, changes)
    write_atomic(path, _text(configuration, {**changes, "api.login_token": login.reveal()}), mode=0o600)
    return path


def shared_config_path(configuration: Configuration, folder: Path, changes: Mapping[str, object] = {}) -> Path:
    """Where ``share_job_config`` writes it."""
    return folder / f"job.{hashlib.sha256(_text(configuration, changes)).hexdigest()[:12]}.conf"


def resolved_tree(configuration: Configuration, changes: Mapping[str, object]) -> Tree:
    """What ``write_job_config`` writes."""
    tree: Tree = {}
    merge(tree, configuration.tree)
    for key, value in {**_resolved(configuration), **changes}.items():
        put(tree, key, value)
    return tree


def _text(configuration: Configuration, changes: Mapping[str, object]) -> bytes:
    # On one line: json indents in Python, which takes ten times as long, and there is one such file for each job.
    return json.dumps(resolved_tree(configuration, changes), sort_keys=True).encode()


def _resolved(configuration: Configuration) -> Mapping[str, object]:
    settings = configuration.settings
    return {
        RESOLVED: True,
        "api.api_server": settings.api.api_server,
        "api.web_server": settings.api.web_server,
        "api.files_server": settings.api.files_server,
        "hpc.runs_dir": str(settings.hpc.runs.absolute()),
        "hpc.cache_dir": str(settings.hpc.cache.absolute()),
        "hpc.root": str(settings.hpc.root.absolute()),
        # Only the daemon sends notifications; tasks do not need the addresses of webhooks.
        "hpc.notify": {},
    }
