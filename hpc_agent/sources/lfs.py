"""Git Large File Storage: content fetched next to the mirror, put in place of pointers without git-lfs on the node.

git-lfs is needed only where the mirror is fetched. A file without content stays a pointer, with a note.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.errors import SourceError
from hpc_agent.retry import NETWORK_BRIEFLY, is_away, retry
from hpc_agent.sources import git
from hpc_agent.sources.mirror import Mirror

_POINTER = re.compile(rb"\Aversion https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:(?P<oid>[0-9a-f]{64})\n")
_MAX_POINTER_SIZE = 1024


def uses_lfs(mirror: Path, commit: str) -> bool:
    """Whether any folder of the commit keeps files there."""
    pattern = ["-e", "filter=lfs", commit, "--", ".gitattributes", "*/.gitattributes"]
    return git.run(["grep", "--quiet", "--full-name", *pattern], mirror=mirror).ok


def fetch(mirror: Mirror, commit: str, clock: Clock) -> str | None:
    """Fetch the content for ``commit`` into the cache. Uses the network. Returns the reason if that failed, or None."""
    if not uses_lfs(mirror.path, commit):
        return None
    try:
        retry(lambda: _fetch(mirror, commit), NETWORK_BRIEFLY, clock)
    except SourceError as error:
        return f"large files of {mirror.remote.url} (Git LFS) are not in the cache: {error}"
    return None


def _fetch(mirror: Mirror, commit: str) -> None:
    """Fetch the content of one commit with git-lfs.

    Raises:
        SourceError: with a short reason.
    """
    file_records.ensure_shared_directory(mirror.path / "lfs")
    answer = git.run(
        ["lfs", "fetch", "origin", commit],
        mirror=mirror.path,
        remote=mirror.remote,
        timeout=git.TRANSFER_SECONDS,
        settings={"remote.origin.url": mirror.remote.url},
    )
    if answer.ok:
        return
    missing = "not a git command" in answer.stderr
    error = SourceError("git-lfs is not installed where it was staged" if missing else git.last_line(answer))
    error.retryable = is_away(answer.stderr)
    raise error


def fill_pointers(mirror: Path, git_dir: Path, root: Path, commit: str) -> tuple[str, ...]:
    """Put content in place of the pointers below ``root``; returns notes about those that stay."""
    if not uses_lfs(mirror, commit):
        return ()
    left = [path for path in _tracked(git_dir, root) if not _is_filled(mirror, root / path)]
    if not left:
        return ()
    names = ", ".join(left[:5]) + (" …" if len(left) > 5 else "")
    return (f"{len(left)} files are Git LFS pointers, for their content is not in the cache: {names}",)


def _tracked(git_dir: Path, root: Path) -> list[str]:
    """The files of a checkout that git-lfs looks after."""
    listed = git.run(["ls-files", "-z"], git_dir=git_dir, work_tree=root).stdout
    answer = git.run(["check-attr", "-z", "--stdin", "filter"], git_dir=git_dir, work_tree=root, input=listed)
    fields = answer.stdout.split("\0")
    return [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == "lfs"]


def _is_filled(mirror: Path, file: Path) -> bool:
    """Whether the file holds its content, copied now if need be."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _MAX_POINTER_SIZE:
        return True
    pointer = _POINTER.match(file.read_bytes())
    if not pointer:
        return True
    oid = pointer["oid"].decode()
    content = mirror / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    if not file_records.exists_uncached(content):
        return False
    shutil.copyfile(content, file)
    return True
