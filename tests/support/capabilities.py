"""Capabilities: the parts of a machine that some tests need, and what becomes of these tests where one is missing.

Where a part is missing, ``missing()`` skips the test, or fails it where the run requires the capability
(``--require slurm,podman``). No other code of the tests skips.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

CAPABILITIES = {
    "slurm": "Slurm's commands and daemons, its accounting and munge",
    "gridengine": "Grid Engine's commands and daemons, as scripts/gridengine-cluster fetches them",
    "peers": "the real clearml and clearml-agent, in an environment of their own",
    "podman": "a podman that runs containers",
    "apptainer": "the Apptainer that scripts/apptainer.py fetches, if it runs containers",
    "charliecloud": "a ch-run that runs containers",
    "browser": "chromium",
    "fuse": "/dev/fuse, and mfusepy for file systems of the tests' own",
    "squashfs": "mksquashfs, squashfuse and /dev/fuse",
    "namespaces": "user, mount and network namespaces (unshare)",
    "root": "being root: other users, mounts",
    "git-lfs": "git-lfs",
    "locales": "localedef and the sources of locales",
    "compiler": "gcc",
    "perl": "perl",
    "shells": "zsh and fish",
    "systemd": "systemd-analyze",
    "torch": "PyTorch and Lightning, as tests/support/torch_site.py fetches them",
    "mpi": "mpirun and orted of Open MPI",
    "sshd": "OpenSSH's server, as tests/support/openssh_server.py fetches it",
}
"""Name → what has to be there."""

_required: frozenset[str] = frozenset()


class UnknownCapabilityError(Exception):
    """A name that is in no table."""


def parse_names(text: str) -> frozenset[str]:
    """``slurm,podman`` → the names.

    Raises:
        UnknownCapabilityError: one of them does not exist; the message lists those that do.
    """
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if unknown := sorted(names - CAPABILITIES.keys()):
        raise UnknownCapabilityError(
            f"--require: no capability is named {', '.join(unknown)}; there are {', '.join(CAPABILITIES)}"
        )
    return names


def require(names: frozenset[str]) -> None:
    """From now on, a test that lacks one of these fails."""
    global _required
    _required = names


def missing(capability: str, reason: str) -> NoReturn:
    """End the running test: it needs a capability that is not there, for this reason."""
    assert capability in CAPABILITIES, capability
    if capability in _required:
        pytest.fail(f"{capability} is required and cannot be had here: {reason}", pytrace=False)
    pytest.skip(f"{capability}: {reason}")
