"""The state of a git folder on this machine: where it comes from, which commit, what was changed since."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hpc_agent.drafts.draft_request import is_address
from hpc_agent.errors import ProcessError, SourceError
from hpc_agent.process import programs
from hpc_agent.redact import without_credentials
from hpc_agent.sources.git import environment, last_line

LIMIT_BYTES = 5_000_000
"""Uncommitted changes are part of the task object, which is read at every turn and may not exceed 16 MB."""

_TIMEOUT_S = 120.0
# The user's own settings shape what `git diff` prints; a patch for others must not depend on them.
_DIFF_OPTIONS = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
_BINARY = re.compile(r"^Binary files .+ differ$", re.MULTILINE)


class Repository(msgspec.Struct, frozen=True):
    """Local repository. ``commit``: the newest one of the upstream branch where there is one, so that others can fetch
    it; then the commits that were not pushed are part of the uncommitted changes. ``pushed``: some remote branch has
    it."""

    root: Path
    url: str
    branch: str
    commit: str
    pushed: bool


def find_root(folder: Path) -> Path | None:
    """The top folder (links followed) of the git repository that ``folder`` is in, or None when it is in none.

    Raises:
        SourceError: git is needed and missing, or refuses to look into the repository.
    """
    try:
        answer = _git(folder, "rev-parse", "--show-toplevel")
    except SourceError:
        if any((parent / ".git").exists() for parent in (folder, *folder.parents)):
            raise
        return None
    if answer.ok:
        return Path(answer.stdout.rstrip("\n")).resolve()
    if "not a git repository" in answer.stderr:
        return None
    if "must be run in a work tree" in answer.stderr:
        raise SourceError(f"{folder} is a repository without files; to fetch from it, write --repo file://{folder}")
    raise SourceError(f"git cannot read the repository at {folder}: {last_line(answer)}")


def read_repository(root: Path) -> Repository:
    """Read the state of the repository at ``root``.

    Raises:
        SourceError: it has no commit or no remote, so that no other machine could get the code.
    """
    if not _git(root, "rev-parse", "--verify", "--quiet", "HEAD").ok:
        raise SourceError(f"the repository {root} has no commit yet: commit and push, then try again")
    url = _url(root)
    remote, upstream = _upstream(root)
    branch = _git_line(root, "rev-parse", "--abbrev-ref", "HEAD")
    if upstream:
        branch = upstream.removeprefix(f"{remote}/")
    elif branch == "HEAD":
        # A detached head has no branch; the remote's main branch is the best guess.
        branch = _git_line(root, "rev-parse", "--abbrev-ref", "origin").removeprefix("origin/") or branch
    commit = _git_line(root, "rev-parse", upstream or "HEAD")
    pushed = bool(_git_line(root, "branch", "--remotes", "--contains", commit))
    return Repository(root, url, branch, commit, pushed)


def _url(root: Path) -> str:
    # Without a remote git answers with the name that it would have asked for.
    url = _git_line(root, "ls-remote", "--get-url")
    if url in ("", "origin", ".") and not _git_line(root, "remote", "get-url", url or "origin"):
        others = _git_line(root, "remote").split()
        url = _git_line(root, "remote", "get-url", others[0]) if others else ""
    if not url:
        raise SourceError(
            f"the repository {root} has no remote, so no other machine can get its code: push it somewhere, "
            "or send the script alone with --skip-repo-detection"
        )
    if is_address(url):
        return without_password(url)
    return str((root / url).resolve())


def without_password(url: str) -> str:
    """``url`` without credentials; the user of an ssh address is part of the address and stays."""
    parts = urlsplit(url)
    if parts.scheme in ("ssh", "git+ssh", "ssh+git") and parts.username:
        return parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}").geturl()
    return without_credentials(url)


def _upstream(root: Path) -> tuple[str, str]:
    """The remote and the remote-tracking branch (``origin/main``) of the current branch, or two empty texts."""
    answer = _git(root, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    branch = _git_line(root, "rev-parse", "--abbrev-ref", "HEAD")
    remote = _git_line(root, "config", f"branch.{branch}.remote")
    # A branch may follow another local one (remote "."), which is not elsewhere.
    return (remote, answer.stdout.strip()) if answer.ok and remote not in ("", ".") else ("", "")


def uncommitted(repository: Repository) -> str:
    """The patch from ``commit`` to the files as they are, staged or not; files git does not track are not in it.

    Raises:
        SourceError: it is too large, or not UTF-8 text.
    """
    arguments = ["-c", "core.quotePath=false", "diff", *_DIFF_OPTIONS, "--submodule=diff"]
    diff = _git_output(repository.root, *arguments, repository.commit, "--")
    if _BINARY.search(diff):
        # "Binary files differ" is nothing that git apply could do.
        diff = _git_output(repository.root, *arguments, "--binary", repository.commit, "--")
    if len(diff.encode()) > LIMIT_BYTES:
        raise SourceError(
            f"the uncommitted changes in {repository.root} are {len(diff.encode()) / 1e6:.1f} MB, "
            f"more than the {LIMIT_BYTES / 1e6:.0f} MB that a task can carry: commit and push them"
        )
    if "\ufffd" in diff:
        raise SourceError(
            f"the uncommitted changes in {repository.root} are not all UTF-8 text, so they cannot be put into a task: "
            "commit and push them"
        )
    return diff


def resolve_commit(root: Path, name: str) -> str:
    """The full id of a commit that this clone knows.

    Raises:
        SourceError: it knows none of that name.
    """
    answer = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if not answer.ok:
        raise SourceError(
            f"the repository {root} does not have {name!r}: is it spelled right, and fetched (git fetch)?"
        )
    return answer.stdout.strip()


def resolve_branch(root: Path, name: str) -> str:
    """Newest commit of a branch (or tag) of the remote, as this clone has it.

    Raises:
        SourceError: it knows no such branch.
    """
    remotes = _git_line(root, "remote").split()
    for reference in (*(f"refs/remotes/{remote}/{name}" for remote in remotes), f"refs/tags/{name}"):
        if _git(root, "rev-parse", "--verify", "--quiet", reference).ok:
            return resolve_commit(root, reference)
    raise SourceError(f"the remote of {root} has no branch or tag {name!r}: is it spelled right, pushed and fetched?")


def text_at(root: Path, commit: str, path: str) -> str | None:
    """Text of a file (relative to the root) at a commit; None if the commit does not have it."""
    answer = _git(root, "show", "--no-textconv", f"{commit}:{path}")
    return answer.stdout if answer.ok else None


def is_tracked(root: Path, path: str) -> bool:
    """Whether git would carry this file (relative to the root): it is committed or at least added."""
    return _git(root, "ls-files", "--error-unmatch", "--", f":(literal){path}").ok


def _git_output(folder: Path, *arguments: str) -> str:
    answer = _git(folder, *arguments)
    if not answer.ok:
        raise SourceError(f"git {' '.join(arguments)} failed in {folder}: {last_line(answer)}")
    return answer.stdout


def _git_line(folder: Path, *arguments: str) -> str:
    """Output of git, empty if it failed."""
    answer = _git(folder, *arguments)
    return answer.stdout.strip() if answer.ok else ""


def _git(folder: Path, *arguments: str) -> programs.CompletedProcess:
    # The user's own configuration holds (line endings, filters): their files are compared as they compare them.
    try:
        return programs.run(["git", *arguments], timeout=_TIMEOUT_S, env=environment(os.environ), cwd=folder)
    except ProcessError as error:
        raise SourceError(f"git {arguments[0]} could not be run: {error}; is git installed?") from error
