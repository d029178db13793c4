"""One bare mirror for each remote in the shared cache: fetched when something is missing, read by every job."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.lease import only_one
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.progress import Progress
from hpc_agent.retry import is_away
from hpc_agent.sources import git
from hpc_agent.sources.remote import Remote

_HASH = re.compile(r"^[0-9a-fA-F]{4,64}$")
_FULL_HASH = re.compile(r"^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$")
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$")
_FETCH = ("--quiet", "--no-tags", "--upload-pack=git-upload-pack")
"""The remote program is fixed: a configuration could name any."""
_REMOTE_HEAD = "refs/hpc-agent/remote-head"
_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

_WHAT_TO_CHECK = (
    "is the address right, was the commit pushed, and are there credentials for it (git_user and git_pass, or an ssh "
    "key without passphrase)?"
)
_WITHHELD = (
    "git_user and git_pass were not sent there: if they are for this host, name it in agent.git_host (over http they "
    "are sent only to the host that git_host names)"
)


class Revision(msgspec.Struct, frozen=True):
    """Revision that a task requests. ``names`` are tried in order. ``moves``: the same name may mean another commit
    tomorrow, so the remote must be asked. ``label``: for messages."""

    names: tuple[str, ...]
    moves: bool
    label: str


def revision_of(script: TaskScript) -> Revision:
    """Commit beats tag beats branch; without any, master or main, or what the remote has checked out.

    See docs/internals/clearml-protocol.md#script-section.

    Raises:
        SourceError: a name that git does not allow, or that it could take for an option.
    """
    commit, tag, branch = (name.strip() for name in (script.commit, script.tag, script.branch))
    for name in (commit, tag, branch):
        if name and _FORBIDDEN_IN_NAMES.search(name):
            raise SourceError(f"{name!r} is refused: git allows no such name for a branch, tag or commit")
    if commit and _HASH.match(commit):
        return Revision((commit,), False, f"commit {commit}")
    if commit or tag:
        name = (commit or tag).removeprefix("refs/tags/")
        return Revision((f"refs/tags/{name}", *_branches(name)), True, commit or f"tag {name}")
    if branch:
        return Revision((*_branches(branch), f"refs/tags/{branch}"), True, f"branch {branch}")
    return Revision(("refs/heads/master", "refs/heads/main"), True, "its default branch")


def _branches(name: str) -> tuple[str, ...]:
    """The SDK records ``origin/main`` where it means the branch ``main``."""
    plain = name.removeprefix("refs/heads/").removeprefix("refs/remotes/")
    return tuple(dict.fromkeys((f"refs/heads/{plain}", f"refs/heads/{plain.removeprefix('origin/')}")))


class Mirror:
    """The mirror of ``remote`` at ``path``; offline unless a method documents otherwise."""

    def __init__(self, path: Path, remote: Remote, clock: Clock) -> None:
        self.path = path
        self.remote = remote
        self._clock = clock

    @property
    def exists(self) -> bool:
        return file_records.exists_uncached(self.path)

    def commit_of(self, revision: Revision) -> str | None:
        """The full hash of what ``revision`` means to the mirror as it is, or None."""
        if not self.exists:
            return None
        for name in revision.names:
            answer = self._git(["rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"])
            if answer.ok:
                return answer.stdout.strip()
        return None

    def obtain(self, revision: Revision, progress: Progress) -> str:
        """The commit that ``revision`` means, fetched where missing. Uses the network only if it must.

        Raises:
            SourceError: the remote cannot be reached, refuses, or has no such revision.
        """
        commit = None if revision.moves else self.commit_of(revision)
        if commit is None:
            with self._locked(progress):
                # The previous holder of the lease may have fetched it.
                commit = None if revision.moves else self.commit_of(revision)
                commit = commit or self._fetch(revision, progress)
        self._pin(commit)
        return commit

    @contextlib.contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        lease = self.path.with_name(f".{self.path.name}.lease")
        with only_one(
            lease,
            self._clock,
            done=lambda: False,
            waiting=lambda: progress(f"Waiting for another fetch of {self.remote.url}"),
        ):
            yield

    def _fetch(self, revision: Revision, progress: Progress) -> str:
        progress(f"Fetching {self.remote.url}")
        self._create()
        self._remove_locks()
        answer = self._git(
            ["fetch", *_FETCH, "--force", "--prune", "--no-recurse-submodules", "--", self.remote.url, *_REFS],
            network=True,
        )
        if not answer.ok:
            raise self._failure(revision, answer)
        commit = self.commit_of(revision) or self._fetch_other(revision)
        if commit is None:
            raise SourceError(
                f"{revision.label} is not in repository {self.remote.url}: was it pushed, and is the name right?"
            )
        return commit

    def _fetch_other(self, revision: Revision) -> str | None:
        """A commit that no branch holds (a merge request, a branch deleted since), or the remote's own default."""
        [name, *_] = revision.names
        if _FULL_HASH.match(name):
            self._fetch_one(revision, name)
            return self.commit_of(revision)
        if revision.label == revision_of(TaskScript()).label:
            self._fetch_one(revision, f"+HEAD:{_REMOTE_HEAD}")
            return self.commit_of(Revision((_REMOTE_HEAD,), True, revision.label))
        return None

    def _fetch_one(self, revision: Revision, name: str) -> None:
        answer = self._git(["fetch", *_FETCH, "--", self.remote.url, name], network=True)
        if not answer.ok and is_away(answer.stderr):
            raise self._failure(revision, answer)

    def _create(self) -> None:
        """Make the bare repository; under another name first, so that no process sees a partial one."""
        if self.exists:
            return
        file_records.ensure_shared_directory(self.path.parent)
        partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.new")
        mode = git.shared_mode(self.path.parent)
        sharing = [f"--shared=0{mode:o}"] if mode else []
        try:
            for arguments in (
                ["init", "--quiet", "--bare", "--template=", *sharing, str(partial)],
                [f"--git-dir={partial}", "config", "remote.origin.url", self.remote.url],
                [f"--git-dir={partial}", "config", "gc.auto", "0"],
            ):
                answer = git.run(arguments)
                if not answer.ok:
                    raise SourceError(f"no mirror can be made in {self.path.parent}: {git.last_line(answer)}")
            file_records.rename_new(partial, self.path)
        except OSError as error:
            raise SourceError(f"no mirror can be made in {self.path.parent}: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _remove_locks(self) -> None:
        """Remove lock files of killed git processes; we hold the lease, so none is in use."""
        for lock in (*self.path.glob("*.lock"), *self.path.glob("refs/**/*.lock")):
            lock.unlink(missing_ok=True)

    def _pin(self, commit: str) -> None:
        """Add a reference of our own: a pruned branch or a ``git gc`` must not remove a staged commit."""
        reference = f"refs/hpc-agent/{commit}"
        if not (self.path / reference).exists():
            self._git(["update-ref", reference, commit])

    def read(self, commit: str, path: str) -> bytes | None:
        """The content of a file at a commit, links followed within it, or None if the file does not exist."""
        if "\n" in path:
            return None
        answer = git.run(
            ["cat-file", "--batch=%(objecttype) %(objectsize)", "--follow-symlinks"],
            mirror=self.path,
            input=f"{commit}:{path}\n",
        )
        head, _, content = answer.output.partition(b"\n")
        kind, _, size = head.partition(b" ")
        return content[: int(size)] if answer.ok and kind == b"blob" else None

    def names_in(self, commit: str, folder: str) -> tuple[str, ...]:
        """The names in a folder (relative to the root, empty for the root) at a commit; none if it is not there."""
        answer = self._git(["ls-tree", "-z", "--name-only", f"{commit}:{folder}"])
        return tuple(filter(None, answer.stdout.split("\0"))) if answer.ok else ()

    def _git(self, arguments: list[str], *, network: bool = False) -> CompletedProcess:
        return git.run(
            arguments,
            mirror=self.path,
            remote=self.remote if network else None,
            timeout=git.TRANSFER_SECONDS if network else git.QUICK_SECONDS,
        )

    def _failure(self, revision: Revision, answer: CompletedProcess) -> SourceError:
        error = SourceError(
            f"repository {self.remote.url} cannot be fetched for {revision.label}: {git.last_line(answer)}; "
            f"{_WITHHELD if self.remote.withheld else _WHAT_TO_CHECK}"
        )
        error.retryable = is_away(answer.stderr)
        return error
