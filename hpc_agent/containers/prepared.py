"""An image made ready to run something in it: the start script, its folder, mount points, and the end of it all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent import file_records
from hpc_agent.containers import start_script
from hpc_agent.containers.gpu_share import NO_GPUS, GpuShare
from hpc_agent.containers.images import Image
from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount, Runtime
from hpc_agent.containers.start_script import StartScript
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.process import programs
from hpc_agent.process.programs import CompletedProcess

START = "/hpc-agent/start"
"""Where a container finds its start script."""
_REMOVE_S = 60.0


class PreparedContainer(msgspec.Struct, frozen=True):
    """``folder``: private to this user and local; start scripts are written there. ``site_arguments``: what every
    container gets here."""

    runtime: Runtime
    image: Image
    folder: Path
    site_arguments: Sequence[str] = ()

    def command(
        self,
        name: str,
        start: StartScript,
        mounts: Sequence[Mount],
        *,
        gpus: GpuShare = NO_GPUS,
        arguments: Sequence[str] = (),
        labels: Sequence[str] = (),
        keep: bool = False,
    ) -> Argv:
        """The command that runs ``start`` in a container called ``name``. Its script is written to ``folder``.

        Raises:
            ContainerError: the image lacks a folder to mount something at.
        """
        file_records.ensure_directory(self.folder, mode=0o700)
        file_records.write_atomic(
            self.folder / "start", start_script.script(start, self.image.reference).encode(), mode=0o600
        )
        mounts = [Mount(self.folder, START), *mounts]
        self._make_mount_points(mounts)
        command = start_script.command(f"{START}/start")
        arguments = [*self.site_arguments, *arguments]
        spec = ContainerSpec(self.image.location, name, command, mounts, gpus, arguments, labels, keep)
        return self.runtime.wrap(spec)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        mounts: Sequence[Mount] = (),
        arguments: Sequence[str] = (),
    ) -> CompletedProcess:
        """Run a short program in the image, with ``env`` over the image's own variables, to its end.

        Raises:
            ProcessError: it could not be started, or was still running after ``timeout`` seconds.
            ContainerError: as ``command``.
        """
        with self._own_folder() as prepared:
            start = StartScript(cwd, argv, env or {}, first=self.runtime.isolated)
            name = f"hpc-agent-{os.getpid()}-{prepared.folder.name}"
            command = prepared.command(name, start, mounts, arguments=arguments)
            try:
                return programs.run(command, timeout=timeout)
            except BaseException:
                remove(self.runtime, name)
                raise

    @contextmanager
    def _own_folder(self) -> Iterator[PreparedContainer]:
        file_records.ensure_directory(self.folder, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield replace(self, folder=folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_mount_points(self, mounts: Sequence[Mount]) -> None:
        root = Path(self.image.location)
        if self.runtime.suffix or not root.is_dir():
            return
        for mount in mounts:
            point = root / mount.target.lstrip("/")
            # The machine's own /tmp is there in any case.
            if mount.target.startswith("/tmp/") or point.exists():  # noqa: S108
                continue
            try:
                point.mkdir(parents=True, exist_ok=True)  # another node of the job may be as quick
            except OSError as error:
                raise ContainerError(
                    f"the image {self.image.reference} has no folder {mount.target} to mount at, and none can be made "
                    f"in it ({error.strerror}): `mkdir -p {point}`, as its owner"
                ) from error


def remove(runtime: Runtime, name: str) -> None:
    """End the container of that name, if there is one."""
    argv = runtime.remove(name)
    if argv is not None:
        with contextlib.suppress(ProcessError):
            programs.run(argv, timeout=_REMOVE_S)
