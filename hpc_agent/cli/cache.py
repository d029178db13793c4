"""``hpc-agent cache``: environments, repositories and images that jobs find without a network."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.job_relay import job_relay
from hpc_agent.cli.shared_options import (
    HELP,
    Shared,
    pass_shared,
    print_progress,
)
from hpc_agent.errors import InputError

if TYPE_CHECKING:
    from hpc_agent.containers.image_upkeep import ImageEntry
    from hpc_agent.domain.env import EnvKey, RequirementFiles
    from hpc_agent.envs.cache_upkeep import CacheEntry
    from hpc_agent.envs.shared_cache import SharedCache

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group(name="cache", context_settings=HELP)
def command() -> None:
    """List, warm, verify and prune the shared cache of environments and images."""


@command.command(name="list", context_settings=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
@pass_shared
def list_(shared: Shared, as_json: bool) -> None:
    """List the environments (key, size, uses, last use, Python, packages) and the images that were fetched for tasks;
    the latest used first."""
    from hpc_agent.clock import SYSTEM

    envs, images = _entries(shared)
    if as_json:
        click.echo(json.dumps([*map(_as_json, envs), *map(_image_as_json, images)], indent=2))
        return
    if not envs and not images:
        click.echo("No environments yet: the daemon stages them, or `hpc-agent cache warm`")
        return
    now = SYSTEM.now()
    for entry in envs:
        click.echo(f"{entry.name}  {_size(entry.size):>8}  Python {entry.manifest.version}  {_used(entry, now)}")
        click.echo(f"    {_short(entry.manifest.packages)}")
    for image in images:
        click.echo(f"{image.name}  {_size(image.size):>8}  {_used(image, now)}")
    click.echo(_total(envs, images))


@command.command(context_settings=HELP)
@click.option("--id", "tasks", multiple=True, metavar="TASK", help="Stage code and environment of this task.")
@click.option(
    "-r",
    "--requirement",
    "requirements",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Build the environment of this requirements.txt.",
)
@click.option("--python", metavar="VERSION", default="", help="Python for -r, as 3.11; our own when not given.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the result of one --id into this run directory, as a staging job does.",
)
@pass_shared
def warm(shared: Shared, tasks: Sequence[str], requirements: Sequence[Path], python: str, into: Path | None) -> None:
    """Bring what tasks or requirement files need into the cache. Needs the network; run it on a login node."""
    if not tasks and not requirements:
        raise click.UsageError("Give --id or -r: there is nothing to stage.")
    if into is not None and (len(tasks) != 1 or requirements):
        raise click.UsageError("--into takes the result of exactly one --id.")
    for task in tasks:
        _warm_task(shared, task, into)
    for path in requirements:
        _warm_file(shared, path, python)


@command.command(context_settings=HELP)
@click.option("--remove", is_flag=True, help="Remove what is damaged, so that the next staging builds it again.")
@pass_shared
def verify(shared: Shared, remove: bool) -> None:
    """Read every archive and compare it with its checksum. Exits 1 if anything is damaged."""
    from hpc_agent.envs import cache_upkeep

    cache = _cache(shared)
    bad = dict.fromkeys(cache_upkeep.unreadable(cache), "its manifest cannot be read")
    found = list(cache_upkeep.entries(cache))
    total = sum(entry.manifest.size for entry in found)
    with _progress(total, "Reading") as advance:
        for entry in found:
            if problem := cache_upkeep.damage(cache, entry.manifest):
                bad[entry.manifest.key] = problem
            advance(entry.manifest.size)
    for key, problem in bad.items():
        click.echo(f"Environment {key}: {problem}")
    if bad and remove:
        _remove(cache, list(bad))
    click.echo(f"{len(found) - len([e for e in found if e.manifest.key in bad])} environments are whole")
    if bad:
        raise click.exceptions.Exit(1)


@command.command(context_settings=HELP)
@click.option(
    "--max-size", metavar="SIZE", help="Keep at most this much of both, as 200G; the longest unused are removed first."
)
@click.option("--older-than", metavar="TIME", help="Remove entries unused for this long, as 30d.")
@click.option("--dry-run", is_flag=True, help="List the entries only.")
@pass_shared
def prune(shared: Shared, max_size: str | None, older_than: str | None, dry_run: bool) -> None:
    """Remove environments and images that are no longer used, never one that a job of yours waits for or runs from.

    What was staged or used within the last hour stays too, and images that were not fetched for a task.
    """
    from hpc_agent.cache_uses import removable
    from hpc_agent.clock import SYSTEM
    from hpc_agent.containers import image_upkeep
    from hpc_agent.containers.images import use_records
    from hpc_agent.envs.cache_upkeep import CacheEntry

    if max_size is None and older_than is None:
        raise click.UsageError("Give --max-size or --older-than.")
    limit = None if max_size is None else _parse(max_size, r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", _UNITS, "200G")
    span = None if older_than is None else _parse(older_than, r"(\d+(?:\.\d+)?)\s*([mhdw])", _SPANS, "30d")
    folder = shared.configuration().settings.hpc.images
    cache = _cache(shared)
    held = use_records(folder).held(SYSTEM)
    kept = {*cache.uses.held(SYSTEM), *held, *_waited_for(shared)}
    age = None if span is None else timedelta(seconds=span)
    envs, images = _entries(shared)
    present: list[CacheEntry | ImageEntry] = [*envs, *images]
    gone = removable(present, SYSTEM.now(), kept, max_size=limit, older_than=age)
    gone_envs = [entry for entry in gone if isinstance(entry, CacheEntry)]
    gone_images = [image for image in gone if isinstance(image, image_upkeep.ImageEntry)]
    for entry in gone_envs:
        click.echo(f"{entry.name}  {_size(entry.size):>8}  {_short(entry.manifest.packages)}")
    for image in gone_images:
        click.echo(f"{image.name}  {_size(image.size):>8}")
    if not dry_run:
        _remove(cache, [entry.manifest.key for entry in gone_envs])
        for name in image_upkeep.remove(folder, [image.name for image in gone_images]):
            click.echo(f"Image {name} could not be removed: it belongs to another user", err=True)
        image_upkeep.remove_leftovers(folder, SYSTEM.now(), held)
    click.echo(f"{_total(gone_envs, gone_images)} {'would be freed' if dry_run else 'freed'}")


def _cache(shared: Shared) -> SharedCache:
    from hpc_agent.envs.shared_cache import SharedCache

    return SharedCache(shared.configuration().settings.hpc.cache)


def _entries(shared: Shared) -> tuple[list[CacheEntry], list[ImageEntry]]:
    """The latest used first."""
    from hpc_agent.containers import image_upkeep
    from hpc_agent.envs import cache_upkeep

    images = image_upkeep.entries(shared.configuration().settings.hpc.images)
    envs = cache_upkeep.entries(_cache(shared))
    return (
        sorted(envs, key=lambda entry: entry.last_used, reverse=True),
        sorted(images, key=lambda image: image.last_used, reverse=True),
    )


def _remove(cache: SharedCache, keys: Sequence[EnvKey]) -> None:
    from hpc_agent.envs import cache_upkeep

    for key in cache_upkeep.remove(cache, keys):
        click.echo(f"Environment {key} could not be removed: it belongs to another user", err=True)
    cache_upkeep.remove_stale_requests(cache)


def _waited_for(shared: Shared) -> Iterator[str]:
    """Environments and images of attempts that have not ended, by the run directories."""
    from hpc_agent.file_records import read_record
    from hpc_agent.runs.directory import RunsFolder
    from hpc_agent.staging import StagedTask

    runs = RunsFolder(shared.configuration().settings.hpc.runs)
    for task in runs.tasks():
        for directory in runs.attempts(task):
            if not directory.names() & {"exit.json", "settled.json"}:
                staged = read_record(directory.stage, StagedTask)
                if staged:
                    yield from filter(None, (staged.env, staged.image))


def _warm_task(shared: Shared, name: str, into: Path | None) -> None:
    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ContainerError, EnvironmentBuildError, SourceError
    from hpc_agent.file_records import write_atomic, write_record
    from hpc_agent.retry import INTERACTIVE
    from hpc_agent.runs.directory import RunDirectory
    from hpc_agent.staging import TaskStager, retry_staging

    configuration = shared.configuration()
    shared.apply(configuration, in_job=True)
    run = RunDirectory(into) if into else None
    with job_relay(configuration.settings):
        client = shared.client(configuration, INTERACTIVE)
        task = client.tasks.get(client.tasks.resolve(name))
        try:
            stager = TaskStager(configuration.settings, SYSTEM)
            staged = retry_staging(lambda: stager.stage(task, print_progress), print_progress, SYSTEM)
        except (SourceError, EnvironmentBuildError, ContainerError) as error:
            if run:
                write_atomic(run.stage_failure, str(error).encode())
            raise
    if run:
        write_record(run.stage, staged)
    code = f"commit {staged.source.commit} of {staged.source.repository}, " if staged.source.commit else ""
    click.echo(f"Task {task.id} is staged: {code}environment {staged.env or 'none'}")


def _warm_file(shared: Shared, path: Path, python: str) -> None:
    from hpc_agent.clock import SYSTEM
    from hpc_agent.envs.env_request import request_for_file
    from hpc_agent.envs.env_store import EnvStore
    from hpc_agent.sources.git import configured_credentials

    settings = shared.configuration().settings
    credentials = configured_credentials(settings.git)
    store = EnvStore(settings.hpc.cache, settings.hpc.scratch, settings.python_packages, SYSTEM, credentials)
    request = request_for_file(path.read_text(encoding="utf-8"), _included_files(path), python=python)
    if request.needs_source:
        raise InputError(
            f"{path} names code next to it ({', '.join(request.lines.local)}), which belongs to a commit: "
            "stage a task of that repository with --id"
        )
    staged = store.stage(request, print_progress)
    click.echo(f"{path}: environment {staged.key} with {len(staged.packages)} packages")


def _included_files(path: Path) -> RequirementFiles:
    """The files that a requirements.txt on this machine includes, by path relative to its folder."""
    from hpc_agent.domain.env import RequirementFiles
    from hpc_agent.envs.requirements import included_paths

    texts: dict[str, str] = {}
    pending = list(included_paths(path.read_text(encoding="utf-8"), ""))
    while pending:
        name = pending.pop()
        file = path.parent / name
        if name not in texts and file.is_file():
            texts[name] = file.read_text(encoding="utf-8")
            pending += included_paths(texts[name], posixpath.dirname(name))
    return RequirementFiles((), texts)


@contextmanager
def _progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Progress bar on a terminal, nothing elsewhere."""
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update


def _parse(text: str, pattern: str, units: dict[str, int], example: str) -> int:
    match = re.fullmatch(pattern, text.strip().lower())
    if not match:
        raise InputError(f"{text!r} cannot be read: write it as {example}")
    return int(float(match[1]) * units[match[2]])


def _as_json(entry: CacheEntry) -> dict[str, object]:
    manifest = entry.manifest
    return {
        "key": manifest.key,
        "python": manifest.version,
        "packages": manifest.packages,
        "size": entry.size,
        "uses": entry.uses,
        "last_used": _iso(entry.last_used),
        "built_at": _iso(manifest.built_at),
        "built_by": manifest.built_by,
        "image": manifest.image,
    }


def _image_as_json(image: ImageEntry) -> dict[str, object]:
    return {"file": image.name, "size": image.size, "uses": image.uses, "last_used": _iso(image.last_used)}


def _used(entry: CacheEntry | ImageEntry, now: datetime) -> str:
    return f"{entry.uses} uses, last {_ago(now - entry.last_used)}" if entry.uses else "not used yet"


def _total(envs: Sequence[CacheEntry], images: Sequence[ImageEntry]) -> str:
    size = sum(entry.size for entry in envs) + sum(image.size for image in images)
    return f"{len(envs)} environments{f' and {len(images)} images' if images else ''}, {_size(size)}"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _size(count: float) -> str:
    """Decimal, as disks are sold: 125 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _ago(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def _short(packages: Sequence[str]) -> str:
    line = ", ".join(packages) or "no packages"
    return line if len(line) <= 110 else line[: line.rindex(",", 0, 100)] + f", … ({len(packages)} in all)"
