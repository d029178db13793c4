"""Resolution of a task's image: the container that it runs in, and whether its Python is the image's or ours."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.containers import runtimes
from hpc_agent.containers.choice import Choice, choose
from hpc_agent.containers.images import Image, Images
from hpc_agent.containers.prepared import PreparedContainer
from hpc_agent.containers.runtime_api import Mount, Runtime
from hpc_agent.domain.task import TaskContainer
from hpc_agent.envs.interpreter import QUERY, Interpreter
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.progress import Progress
from hpc_agent.struct_types import decodable

_LOOK_S = 300.0
"""A first start of a large image from a shared file system takes its time."""

_OLDEST = (3, 7)
"""What an older Python in an image is good for is to run the image's own tools."""

_LOOK = """
for name in python3 python; do
    command -v "$name" >/dev/null 2>&1 && exec "$name" -I -c "$1"
done
exit 42
"""
_NO_PYTHON = 42

_PACKAGES = """
import re
try:
    from importlib.metadata import distributions
    named = [(d.metadata["Name"], d.version) for d in distributions()]
    packages = {re.sub("[-_.]+", "-", name).lower(): version for name, version in named if name}
except ImportError:
    packages = {}
active = sys.prefix != getattr(sys, "base_prefix", sys.prefix)
paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")] if active else []
print(json.dumps({"packages": packages, "site": sorted(set(paths))}))
"""
"""What a Python sees. One in an activated environment (/opt/venv first on PATH) means that environment's packages."""


class ImagePackages(msgspec.Struct, frozen=True):
    """``packages``: normalised name → version. ``site``: folders of an activated environment."""

    packages: dict[str, str] = msgspec.field(default_factory=dict)
    site: tuple[str, ...] = ()


class ImageFacts(msgspec.Struct, frozen=True):
    """Facts about an image; kept next to the images, for looking takes a container."""

    python: Interpreter | None = None
    seen: ImagePackages = ImagePackages()


class ImagePython(msgspec.Struct, frozen=True):
    """The image's own Python, as ``envs.interpreter.ImagePythonApi`` requires it."""

    prepared: PreparedContainer
    interpreter: Interpreter
    packages: Mapping[str, str]
    site: tuple[str, ...]

    @property
    def identity(self) -> str:
        return self.prepared.image.identity

    def run(
        self, argv: list[str], *, timeout: float, env: Mapping[str, str], cwd: Path, folders: Mapping[Path, bool]
    ) -> CompletedProcess:
        return self.prepared.run(argv, timeout=timeout, env=env, cwd=str(cwd), mounts=_mounts(folders))


class ResolvedContainer(msgspec.Struct, frozen=True):
    """``python``: what runs the task; None where that is this site's own Python."""

    choice: Choice
    prepared: PreparedContainer
    python: ImagePython | None


class ImageResolver:
    def __init__(self, settings: AllSettings, clock: Clock) -> None:
        self._settings = settings
        self._container = settings.hpc.container
        self._clock = clock

    def choose(self, container: TaskContainer) -> Choice | None:
        """What the task runs in; None where that is the machine itself.

        Raises:
            ContainerError: its arguments are not the task's to give.
        """
        return None if self._container.runtime == "none" else choose(container, self._settings.docker)

    def stage(self, choice: Choice, progress: Progress, *, share: bool) -> ResolvedContainer:
        """The image, fetched where it is missing. Uses the network. ``share``: for jobs on other nodes too.

        Raises:
            ContainerError: it cannot be had, or does not fit.
        """
        image = self._images.stage(choice.image, progress, share=share, force=self._settings.docker.force_pull)
        return self._contained(choice, image, progress)

    def find(self, choice: Choice, progress: Progress, *, task: str) -> ResolvedContainer:
        """As ``stage``, from what this machine and the shared folder have, for use until this process ends. No network.

        Raises:
            ContainerError: as ``stage``; the sentence names the command that stages it.
        """
        image = self._images.find(choice.image, progress)
        if image is None:
            raise ContainerError(
                f"the image {choice.image} is neither on this node nor in {self._settings.hpc.images}: stage it where "
                f"there is a network with `hpc-agent cache warm --id {task}`, or put its file there"
            )
        self._images.record_use(choice.image)
        return self._contained(choice, image, progress)

    def fetched_file(self, choice: Choice) -> str:
        """As ``Images.fetched_file``."""
        return self._images.fetched_file(choice.image)

    @cached_property
    def runtime(self) -> Runtime:
        """
        Raises:
            ContainerUnavailableError: it is not on this machine.
        """
        runtime = runtimes.runtime(self._container)
        if runtime is None:
            raise ContainerError("hpc.container.runtime is none: nothing here runs containers")
        return runtime

    @cached_property
    def _images(self) -> Images:
        return Images(self.runtime, self._settings.hpc.images, self._clock)

    def _contained(self, choice: Choice, image: Image, progress: Progress) -> ResolvedContainer:
        folder = file_records.private_folder(self._settings.hpc.scratch) / "rooms"
        prepared = PreparedContainer(self.runtime, image, folder, self._container.arguments)
        return ResolvedContainer(
            choice, prepared, None if self._container.python == "shared" else self._own_python(prepared, progress)
        )

    def _own_python(self, prepared: PreparedContainer, progress: Progress) -> ImagePython | None:
        if not prepared.runtime.can_run:
            self._check_unseen(prepared)
            return None
        facts = self._facts(prepared, progress)
        python = facts.python
        if python is not None and python.version >= _OLDEST:
            return ImagePython(prepared, python, facts.seen.packages, facts.seen.site)
        if self._container.python == "image":
            found = f"only {python.description}" if python else "no Python"
            raise ContainerError(
                f"the image {prepared.image.reference} has {found}, and hpc.container.python is image: choose an image "
                "with Python, or let tasks use this site's own (hpc.container.python = auto)"
            )
        return None

    def _check_unseen(self, prepared: PreparedContainer) -> None:
        """Our own Python.

        Raises:
            ContainerError: the settings want the image's.
        """
        if self._container.python == "image":
            raise ContainerError(
                f"the image {prepared.image.reference} cannot be inspected here, for {prepared.runtime.name} runs "
                "containers in jobs only: let tasks use this site's own Python (hpc.container.python = auto), or stage "
                "in jobs (hpc.envs.build_on = job)"
            )

    def _facts(self, prepared: PreparedContainer, progress: Progress) -> ImageFacts:
        path = self._settings.hpc.images / ".facts" / f"{prepared.image.identity.replace(':', '-')}.json"
        with contextlib.suppress(file_records.CorruptFileError):
            if known := file_records.read_record(path, ImageFacts):
                return known
        progress(f"Looking into the image {prepared.image.reference}")
        facts = _look(prepared)
        # A folder of images that we may only read saves nothing, which is not a reason to fail.
        with contextlib.suppress(OSError):
            file_records.ensure_shared_directory(path.parent)
            file_records.write_record(path, facts)
        return facts


def _look(prepared: PreparedContainer) -> ImageFacts:
    try:
        answer = prepared.run(["/bin/sh", "-c", _LOOK, "look", f"{QUERY}{_PACKAGES}"], timeout=_LOOK_S)
    except ProcessError as error:
        raise ContainerError(f"the image {prepared.image.reference} does not start: {error}") from error
    if answer.returncode == _NO_PYTHON:
        return ImageFacts()
    lines = answer.stdout.strip().splitlines()
    try:
        python = msgspec.json.decode(lines[-2], type=decodable(Interpreter))
        seen = msgspec.json.decode(lines[-1], type=decodable(ImagePackages))
    except (msgspec.DecodeError, IndexError) as error:
        raise ContainerError(
            f"the image {prepared.image.reference} does not run: "
            f"{answer.last_words or f'exit code {answer.returncode}'}"
        ) from error
    return ImageFacts(python, seen)


def _mounts(folders: Mapping[Path, bool]) -> list[Mount]:
    """One for each folder that is not inside another."""
    outer = [path for path in folders if not any(other in path.parents for other in folders)]
    return [Mount(path, str(path), folders[path]) for path in outer]
