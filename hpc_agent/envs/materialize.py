"""A published environment made ready to run on this machine: unpacked, mounted, or used where it lies."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import interpreter, mounted, node_cache
from hpc_agent.envs.node_cache import NodeCache
from hpc_agent.envs.shared_cache import Manifest, SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError

Progress = Callable[[str], None]
How = Literal["ready", "unpacked", "mounted", "in place"]


@dataclass(frozen=True)
class UsableEnv:
    """``python`` is the environment's interpreter, ``root`` its folder, ``packages`` as ``pip freeze`` prints them.

    ``how``: ``ready`` (another job had unpacked it on this node), ``unpacked`` (by this call), ``mounted`` (until this
    process ends), or ``in place`` (on the shared file system). ``base``: the interpreter that it is made with, in the
    container image ``image`` (its identity) if that is named.
    """

    python: Path
    root: Path
    key: EnvKey
    how: How
    packages: tuple[str, ...] = ()
    image: str = ""
    base: str = ""


class EnvMaterializer:
    """``scratch`` is this node's folder; with ``mount`` images are mounted where that works. Never uses the network."""

    def __init__(self, shared: SharedCache, scratch: Path, clock: Clock, *, mount: bool) -> None:
        self._shared = shared
        self._scratch = scratch
        self._clock = clock
        self._mount = mount

    def open(self, manifest: Manifest, progress: Progress) -> UsableEnv:
        """
        Raises:
            ArchiveError: the archive is damaged.
            EnvironmentBuildError: this machine cannot run it, or has no room for it.
        """
        _check_node(manifest, progress)
        self._shared.note(manifest.key, use=True)
        folder = file_records.user_scratch_dir(self._scratch)
        if folder:
            found = self._mounted(manifest, folder, progress) or self._unpacked(manifest, folder, progress)
            if found:
                return found
        return self._in_place(manifest, progress)

    def _mounted(self, manifest: Manifest, folder: Path, progress: Progress) -> UsableEnv | None:
        if not self._mount:
            return None
        root = mounted.mount(self._shared.image(manifest.key), folder / "mounts")
        if root is None:
            progress(f"Environment {manifest.key} cannot be mounted on this node: unpacking it")
            return None
        atexit.register(mounted.unmount, root)
        return _usable(manifest, root, "mounted")

    def _unpacked(self, manifest: Manifest, folder: Path, progress: Progress) -> UsableEnv | None:
        try:
            found = NodeCache(folder).obtain(manifest, self._shared.archive(manifest.key), progress)
        except (OSError, ProcessError) as error:
            progress(f"The environment cannot be unpacked to {folder}: {error}")
            return None
        return _usable(manifest, found[0], "unpacked" if found[1] else "ready") if found else None

    def _in_place(self, manifest: Manifest, progress: Progress) -> UsableEnv:
        """Without room on the node: a tree on the shared file system, unpacked by the first who needs it."""
        from hpc_agent.lease import only_one  # of no use to the others

        root = self._shared.unpacked / manifest.key
        self._stay(manifest.key)

        def done() -> bool:
            return file_records.exists_uncached(root)

        try:
            # 89,000 requests to the file server for numpy and friends: not once for each node.
            with contextlib.ExitStack() as stack:
                lease = self._shared.leases / f"unpack-{manifest.key}"
                if not done() and stack.enter_context(only_one(lease, self._clock, done=done)):
                    progress(f"Unpacking environment {manifest.key} to {root}, for there is no room on this node")
                    file_records.ensure_shared_directory(root.parent)
                    node_cache.unpack_to(self._shared.archive(manifest.key), root, manifest.sha256)
        except (OSError, ProcessError) as error:
            raise EnvironmentBuildError(
                f"environment {manifest.key} fits neither {self._scratch} nor {root.parent}: {error}; "
                "give the job local scratch space (SLURM_TMPDIR, TMPDIR or hpc.scratch_dir)"
            ) from error
        return _usable(manifest, root, "in place")

    def _stay(self, key: EnvKey) -> None:
        """Tell ``hpc-agent cache prune`` that a job runs from the shared tree, until this process ends."""
        from hpc_agent.lease import HeartbeatTiming, Lease

        lease = Lease(
            self._shared.leases / f"use-{key}-{socket.gethostname()}-{os.getpid()}", self._clock, HeartbeatTiming(60)
        )
        with contextlib.suppress(OSError):  # where we may not write, nobody prunes for us either
            if lease.acquire():
                atexit.register(lease.release)


def _usable(manifest: Manifest, root: Path, how: How) -> UsableEnv:
    python = root / "bin" / "python"
    return UsableEnv(python, root, manifest.key, how, manifest.packages, manifest.image, manifest.executable)


def _check_node(manifest: Manifest, progress: Progress) -> None:
    if manifest.image:
        return
    if not interpreter.is_there(manifest.executable):
        raise EnvironmentBuildError(
            f"environment {manifest.key} needs the interpreter {manifest.executable} (Python {manifest.version}), "
            f"which {socket.gethostname()} does not have: install it there, load it as a module, or build the "
            "environment with an interpreter on the shared file system (agent.python_binary)"
        )
    if interpreter.older_libc(manifest.libc):
        progress(
            f"Environment {manifest.key} was built with {manifest.libc}, which is newer than this node's: if a package "
            "cannot be loaded, stage the task on a machine like this one"
        )
