"""A published environment made ready to run on this machine: unpacked, mounted, or used where it lies."""

from __future__ import annotations

import atexit
import contextlib
import socket
from pathlib import Path
from typing import Literal

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import interpreter, mounted, node_cache
from hpc_agent.envs.node_cache import NodeCache
from hpc_agent.envs.shared_cache import Manifest, SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.progress import Progress

Access = Literal["ready", "unpacked", "mounted", "in place"]


class UsableEnv(msgspec.Struct, frozen=True):
    """Environment ready for use: its interpreter, its folder, and its packages as ``pip freeze`` prints them.

    ``access``: ``ready`` (unpacked on this node by another job), ``unpacked`` (by this call), ``mounted`` (until this
    process ends), or ``in place`` (on the shared file system). ``base``: the interpreter that it was made with, in the
    container image ``image`` (its identity) if that is not empty. ``conda``: made by conda, with its own interpreter.
    """

    python: Path
    root: Path
    key: EnvKey
    access: Access
    packages: tuple[str, ...] = ()
    image: str = ""
    base: str = ""
    conda: bool = False


class EnvMaterializer:
    """Opens published environments on this machine, without the network.

    ``scratch``: this node's folder. ``mount``: mount images where that works.
    """

    def __init__(self, shared: SharedCache, scratch: Path, clock: Clock, *, mount: bool) -> None:
        self._shared = shared
        self._scratch = scratch
        self._clock = clock
        self._mount = mount

    def open(self, manifest: Manifest, progress: Progress) -> UsableEnv:
        """Mount or unpack the environment, or use it in place.

        Raises:
            ArchiveError: the archive is damaged.
            EnvironmentBuildError: this machine cannot run it, or has no room for it.
        """
        _check_node(manifest, progress)
        self._shared.uses.record_use(manifest.key)
        folder = file_records.user_scratch_dir(self._scratch)
        if folder:
            found = self._mounted(manifest, folder, progress) or self._unpacked(manifest, folder, progress)
            if found:
                return found
        return self._in_place(manifest, progress)

    def _mounted(self, manifest: Manifest, folder: Path, progress: Progress) -> UsableEnv | None:
        if not self._mount or manifest.conda:  # its files name the folder that they are unpacked to
            return None
        root = mounted.mount(self._shared.image(manifest.key), folder / "mounts")
        if root is None:
            progress(f"Environment {manifest.key} cannot be mounted on this node: unpacking it")
            return None
        atexit.register(mounted.unmount, root)
        return _usable_env(manifest, root, "mounted")

    def _unpacked(self, manifest: Manifest, folder: Path, progress: Progress) -> UsableEnv | None:
        try:
            found = NodeCache(folder).obtain(manifest, self._shared.archive(manifest.key), progress)
        except (OSError, ProcessError) as error:
            progress(f"The environment cannot be unpacked to {folder}: {error}")
            return None
        return _usable_env(manifest, found[0], "unpacked" if found[1] else "ready") if found else None

    def _in_place(self, manifest: Manifest, progress: Progress) -> UsableEnv:
        """Use a tree on the shared file system, unpacked by the first job that finds no space on its node."""
        from hpc_agent.lease import only_one  # only needed here

        root = self._shared.unpacked / manifest.key
        self._shared.uses.hold(manifest.key, self._clock)

        def is_unpacked() -> bool:
            return file_records.exists_uncached(root)

        try:
            # 89,000 requests to the file server for numpy and friends: not once for each node.
            with contextlib.ExitStack() as stack:
                lease = self._shared.leases / f"unpack-{manifest.key}"
                if not is_unpacked() and stack.enter_context(only_one(lease, self._clock, done=is_unpacked)):
                    progress(f"Unpacking environment {manifest.key} to {root}: this node has too little free space")
                    file_records.ensure_shared_directory(root.parent)
                    node_cache.unpack_to(self._shared.archive(manifest.key), root, manifest.sha256)
        except (OSError, ProcessError) as error:
            raise EnvironmentBuildError(
                f"environment {manifest.key} fits neither {self._scratch} nor {root.parent}: {error}; "
                "give the job local scratch space (SLURM_TMPDIR, TMPDIR or hpc.scratch_dir)"
            ) from error
        return _usable_env(manifest, root, "in place")


def _usable_env(manifest: Manifest, root: Path, access: Access) -> UsableEnv:
    python = root / "bin" / "python"
    return UsableEnv(
        python, root, manifest.key, access, manifest.packages, manifest.image, manifest.executable, manifest.conda
    )


def _check_node(manifest: Manifest, progress: Progress) -> None:
    if manifest.image or manifest.conda:
        return
    if not interpreter.exists(manifest.executable):
        raise EnvironmentBuildError(
            f"environment {manifest.key} needs the interpreter {manifest.executable} (Python {manifest.version}), "
            f"which {socket.gethostname()} does not have: install it there, load it as a module, or build the "
            "environment with an interpreter on the shared file system (agent.python_binary)"
        )
    if interpreter.has_older_libc(manifest.libc):
        progress(
            f"Environment {manifest.key} was built with {manifest.libc}, which is newer than this node's: if a package "
            "cannot be loaded, stage the task on a machine like this one"
        )
