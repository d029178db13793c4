"""A commit's files from a mirror, offline and without a copy of its history."""

from __future__ import annotations

from pathlib import Path

from hpc_agent import file_records
from hpc_agent.errors import SourceError
from hpc_agent.sources import git, lfs
from hpc_agent.sources.layout import StagedSource


def check_out(staged: StagedSource, mirrors: Path, root: Path) -> tuple[str, ...]:
    """Put the staged commit and its submodules below ``root``, which must not exist; returns notes for the user.

    The new repository borrows the mirror's objects (alternates): nothing is copied but the files themselves, and
    nothing is written to the mirror, which may belong to another user and may be fetched into at the same time.

    Raises:
        SourceError: the mirror or the commit is not there, or the disk is full.
    """
    notes = _check_out_one(mirrors / staged.mirror, staged.commit, staged.repository, root)
    for submodule in staged.submodules:
        notes += _check_out_one(mirrors / submodule.mirror, submodule.commit, submodule.address, root / submodule.path)
    return notes


def detach_from_mirror(staged: StagedSource, root: Path) -> None:
    """Make a checkout independent of its mirror, so that it can be moved: it gets its commit without history.

    Raises:
        SourceError: git failed, or the disk is full.
    """
    places = [(root, staged.commit)] if staged.commit else []
    places += [(root / submodule.path, submodule.commit) for submodule in staged.submodules]
    for folder, commit in places:
        git_dir = folder / ".git"
        alternates = git_dir / "objects" / "info" / "alternates"
        if not alternates.exists():
            continue
        (git_dir / "shallow").write_text(f"{commit}\n", encoding="utf-8")
        answer = git.run(["repack", "-a", "-d", "--quiet"], git_dir=git_dir, work_tree=folder)
        if not answer.ok:
            raise SourceError(f"the code in {folder} cannot be made independent: {git.last_line(answer)}")
        alternates.unlink()


def _check_out_one(mirror: Path, commit: str, address: str, root: Path) -> tuple[str, ...]:
    if not file_records.exists_uncached(mirror):
        raise SourceError(f"repository {address} is not in the cache {mirror.parent}")
    git_dir = root / ".git"
    try:
        file_records.ensure_directory(git_dir / "objects" / "info")
        (git_dir / "objects" / "info" / "alternates").write_text(f"{mirror.resolve()}/objects\n", encoding="utf-8")
    except OSError as error:
        raise SourceError(f"the code cannot be written to {root}: {error.strerror}") from error
    # init finds its folders itself; the others get them as options, which avoids git's ownership check.
    answer = git.run(["init", "--quiet", "--template=", str(root)])
    for arguments in (["remote", "add", "origin", address], ["checkout", "--quiet", "--force", "--detach", commit]):
        if answer.ok:
            answer = git.run(arguments, git_dir=git_dir, work_tree=root, timeout=git.TRANSFER_SECONDS)
    if not answer.ok:
        raise SourceError(f"commit {commit} of {address} cannot be checked out in {root}: {git.last_line(answer)}")
    return lfs.fill_pointers(mirror, git_dir, root, commit)
