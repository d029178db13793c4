"""Flags of ``hpc-task``, the paths in them, and which flags exclude each other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hpc_agent.errors import InputError

_SCP = re.compile(r"^(?:[^/@:#]+@)?[^/@:#]+:[^/@:#]")


class WrongUsageError(InputError):
    """Flags are missing or exclude each other, independent of files and server."""


class DraftRequest(msgspec.Struct, frozen=True):
    """The flags of ``hpc-task`` by their names; empty text and None mean that a flag was not given."""

    name: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    repo: str = ""
    folder: str = ""
    branch: str = ""
    commit: str = ""
    script: str = ""
    module: str = ""
    cwd: str = ""
    binary: str = ""
    args: tuple[str, ...] = ()
    requirements: str = ""
    packages: tuple[str, ...] = ()
    docker: str = ""
    docker_args: str = ""
    docker_bash_setup_script: str = ""
    output_uri: str = ""
    task_type: str = ""
    queue: str = ""
    base_task_id: str = ""
    skip_task_init: bool = False
    skip_repo_detection: bool = False
    skip_python_env_install: bool = False
    force_no_requirements: bool = False
    pipeline: bool = False
    pipeline_version: str = ""
    pipeline_dont_add_run_number: bool = False
    resources: Mapping[str, str] = msgspec.field(default_factory=dict)
    """User properties such as ``num_gpus`` (``domain.resources.PROPERTY_FIELDS``, ``domain.launch_plan``), as texts."""

    @property
    def remote(self) -> str:
        """The repository's address, if ``--repo`` gives one (it may also name a local folder)."""
        return self.repo if is_address(self.repo) else ""

    @property
    def local(self) -> str:
        """The local folder that holds the code, if one was named."""
        return self.folder or (self.repo if not self.remote else "")

    @property
    def has_code(self) -> bool:
        return bool(self.script or self.module)


def is_address(repo: str) -> bool:
    """Whether git would fetch this from elsewhere: a URL, or ``user@host:path``."""
    return bool(urlsplit(repo).scheme) or bool(_SCP.match(repo))


def check_usage(request: DraftRequest) -> None:
    """Check the flags themselves.

    Raises:
        WrongUsageError: the first thing wrong with the flags themselves.
    """
    for wrong, sentence in _rules(request):
        if wrong:
            raise WrongUsageError(sentence)


def _rules(r: DraftRequest) -> list[tuple[bool, str]]:
    return [
        (not r.name.strip(), "a task needs a name: give --name"),
        (not r.project.strip() and not r.base_task_id, "a task needs a project: give --project"),
        (bool(r.script and r.module), "give --script or --module, not both: a task has one entry point"),
        (not r.has_code and not r.base_task_id, "nothing to run: give --script, --module or --base-task-id"),
        (bool(r.branch and r.commit), "give --branch (its newest commit) or --commit, not both"),
        (bool(r.repo and r.folder), "give --repo or --folder, not both: a task has one repository"),
        (bool(r.remote) and r.cwd.startswith("/"), f"--cwd {r.cwd} must be relative to the root of the repository"),
        (bool(r.base_task_id) and r.pipeline, "--base-task-id and --pipeline cannot be used together"),
        (
            bool(r.base_task_id) and not r.has_code and bool(r.repo or r.folder),
            "--base-task-id keeps the code of that task: with --repo or --folder also give --script or --module",
        ),
        *((not _is_argument(word), _bad_argument(word)) for word in r.args),
        *((not tag.strip(), "--tags has an empty tag") for tag in r.tags),
    ]


def _is_argument(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals and name.strip())


def _bad_argument(word: str) -> str:
    return f"--args takes name=value pairs such as lr=0.003, not {word!r}"


def typed_path(text: str, base: Path) -> Path:
    """Path with ``~`` and ``$VARIABLES`` expanded, below ``base`` unless absolute; links and ``..`` followed."""
    # os.path leaves "~nobody" as it is, where Path.expanduser would raise.
    return (base / os.path.expandvars(os.path.expanduser(text))).resolve()  # noqa: PTH111
