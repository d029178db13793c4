"""Images: in the runtime's own store on this machine, and as files in a folder that all nodes share.

<images>/<name>.tar, .sif, .sqsh, or a folder    published by one rename; a site may put its own there
<images>/<name>.json                             which image of a name the nodes shall run
<images>/.uses/…                                 uses of what was fetched here, not of what the site put there
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from pathlib import Path
from typing import cast

import msgspec

from hpc_agent import file_records
from hpc_agent.cache_uses import UseRecords
from hpc_agent.clock import Clock
from hpc_agent.containers.pull import ImagePull
from hpc_agent.containers.runtime_api import Argv, ImageStore, Runtime
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.lease import only_one
from hpc_agent.process import programs
from hpc_agent.progress import Progress
from hpc_agent.redact import without_credentials

_QUICK_S = 60.0
_LOAD_S = 7200.0

_LONGEST_NAME = 180
"""File systems allow 255 characters, and names of leases and of unfinished files are longer."""
_TELLING = ("bin", "usr/bin", "usr/lib", "usr/local/bin", "usr/local/lib")
"""Folders of an unpacked image whose times say whether it was changed; others' change with each mount point."""


class Image(msgspec.Struct, frozen=True):
    """``reference``: as the task names it. ``location``: what the runtime is given. ``identity``: its content."""

    reference: str
    location: str
    identity: str


class _ImageRecord(msgspec.Struct, frozen=True):
    identity: str


def use_records(folder: Path) -> UseRecords:
    """Uses of the images that were fetched into the shared folder ``folder``, by their files' names."""
    return UseRecords(folder / ".uses")


class Images:
    """``folder`` is the shared one."""

    def __init__(self, runtime: Runtime, folder: Path, clock: Clock) -> None:
        self._runtime = runtime
        self._store = cast(ImageStore, runtime) if hasattr(runtime, "inspect") else None
        self._folder = folder
        self._uses = use_records(folder)
        self._clock = clock

    def find(self, reference: str, progress: Progress) -> Image | None:
        """The image, as far as this machine and the shared folder have it. No registry is asked.

        Raises:
            ContainerError: the runtime cannot be asked, or a file cannot be loaded.
        """
        file = self._file(reference)
        if self._store is None:
            return _of_file(reference, file) if file else None
        if _is_path(reference):
            return self._loaded(self._store, reference, file, progress) if file else None
        wanted = file_records.read_record(self._record(reference), _ImageRecord)
        present = self._inspect(self._store, reference)
        if present and (wanted is None or present.identity == wanted.identity or file is None):
            return present
        return self._loaded(self._store, reference, file, progress) if file else present

    def stage(self, reference: str, progress: Progress, *, share: bool, force: bool = False) -> Image:
        """The image, fetched if it is nowhere, or in any case with ``force``. Uses the network.

        ``share``: for jobs on other nodes, so that it must be in the shared folder.

        Raises:
            ContainerError: it is not available; the message has the reason.
        """
        share = share and not (self._store is not None and self._store.is_shared)
        found = None if force and not _is_path(reference) else self.find(reference, progress)
        if found and (self._store is None or not share or self._file(reference)):
            if name := self.fetched_file(reference):
                self._uses.record_staged(name)
            return found
        if _is_path(reference):
            raise ContainerError(f"the image {reference} is not there; is the path right, on all nodes?")
        if self._store is not None and not share:
            progress(f"Fetching the image {without_credentials(reference)}")
            ImagePull(reference, None, self._clock, progress).run([self._store.pull(reference)])
        else:
            self._fetch(reference, force, progress)
        found = self.find(reference, progress)
        if found is None:
            raise ContainerError(f"the image {reference} was fetched, but {self._runtime.program} does not find it")
        return found

    def record_use(self, reference: str) -> None:
        """Note that this process uses the image until it ends, for ``hpc-agent cache``."""
        if name := self.fetched_file(reference):
            self._uses.record_use(name)
            self._uses.hold(name, self._clock)

    def fetched_file(self, reference: str) -> str:
        """Name of the image's file in the shared folder; empty where there is none, or the site put it there."""
        name = self._path(reference).name
        return name if not _is_path(reference) and self._uses.of(name) else ""

    def _fetch(self, reference: str, force: bool, progress: Progress) -> None:
        target = self._path(reference)
        leases = file_records.ensure_shared_directory(self._folder) / ".leases"
        with only_one(
            leases / target.name,
            self._clock,
            done=lambda: not force and file_records.exists_uncached(target),
            waiting=lambda: progress(f"Waiting for another process that fetches the image {reference}"),
        ) as mine:
            if not mine:
                return
            progress(f"Fetching the image {without_credentials(reference)} into {self._folder}")
            making = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
            try:
                ImagePull(reference, making, self._clock, progress).run(self._runtime.fetch(reference, making))
                _replace(making, target, in_use=target.name in self._uses.held(self._clock))
                self._uses.record_staged(target.name)
            finally:
                remove_image(making)
            if self._store and (present := self._inspect(self._store, reference)):
                file_records.write_record(self._record(reference), _ImageRecord(present.identity))

    def _inspect(self, store: ImageStore, reference: str) -> Image | None:
        argv = store.inspect(reference)
        try:
            answer = programs.run(argv, timeout=_QUICK_S)
        except ProcessError as error:
            raise ContainerError(f"no image can be looked up: {error}") from error
        if answer.ok:
            identity = next(iter(answer.stdout.split()), "")
            return Image(reference, identity, identity) if identity else None
        message = answer.last_words.lower()
        if "no such image" in message or "image not known" in message or "not found" in message:
            return None
        raise ContainerError(f"{self._runtime.program} cannot say whether it has {reference}: {answer.last_words}")

    def _loaded(self, store: ImageStore, reference: str, file: Path, progress: Progress) -> Image:
        progress(f"Loading the image {file}")
        printed = self._run(store.load(file), f"the image file {file} cannot be loaded")
        # "Loaded image: docker.io/library/x:1" or "Loaded image ID: sha256:…"
        name = next((line.partition(": ")[2].strip() for line in printed.splitlines() if line.startswith("Loaded")), "")
        present = self._inspect(store, name or reference)
        if present is None:
            raise ContainerError(
                f"the image file {file} was loaded, but {self._runtime.program} does not know {name!r}"
            )
        return Image(reference, present.location, present.identity)

    def _run(self, argv: Argv, what: str) -> str:
        try:
            answer = programs.run(argv, timeout=_LOAD_S)
        except ProcessError as error:
            raise ContainerError(f"{what}: {error}") from error
        if not answer.ok:
            raise ContainerError(f"{what}: {without_credentials(answer.last_words)}")
        return answer.stdout

    def _file(self, reference: str) -> Path | None:
        """The image's file, if there is one: the path that the reference is, else in the shared folder."""
        path = Path(reference).expanduser() if _is_path(reference) else self._path(reference)
        return path if file_records.exists_uncached(path) else None

    def _path(self, reference: str) -> Path:
        return self._folder / f"{_file_name(reference)}{self._runtime.suffix}"

    def _record(self, reference: str) -> Path:
        return self._folder / f"{_file_name(reference)}.json"


def _is_path(reference: str) -> bool:
    return reference.startswith(("/", "./", "../", "~"))


def _file_name(reference: str) -> str:
    """As Charliecloud names its folders: ``nvcr.io%nvidia%pytorch+24.05``."""
    name = reference.removeprefix("docker://").replace("/", "%").replace(":", "+")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _of_file(reference: str, path: Path) -> Image:
    """Of what a runtime runs from where it lies. Its content is known by its times: hashing 10 GB takes a minute."""
    places = [path / name for name in _TELLING] if path.is_dir() else [path]
    times = [(str(place), s.st_size, s.st_mtime_ns) for place in places if place.exists() and (s := place.stat())]
    digest = hashlib.sha256(repr((str(path), times)).encode()).hexdigest()
    return Image(reference, str(path), digest)


def _replace(making: Path, target: Path, *, in_use: bool) -> None:
    """Publish a file over the old one, or a folder in place of the old, which goes out of sight first. What jobs run in
    stays under a hidden name, for a file server forgets what has none; ``hpc-agent cache prune`` removes it."""
    old = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    if target.is_dir():
        target.rename(old)
        if not in_use:
            file_records.remove_tree(old)
    elif in_use:
        with contextlib.suppress(OSError):  # a file system without hard links, or it is gone
            old.hardlink_to(target)
    making.rename(target)
    file_records.fsync_directory(target.parent)


def remove_image(path: Path) -> None:
    """Remove an image's file, or its folder as far as it is ours."""
    if path.is_dir() and not path.is_symlink():
        file_records.remove_tree(path)
    else:
        path.unlink(missing_ok=True)
