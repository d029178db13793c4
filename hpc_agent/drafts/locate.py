"""Locates the code that the flags name. Reads files and git state on this machine, changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.drafts import repository as git
from hpc_agent.drafts.code import Code
from hpc_agent.drafts.draft_request import DraftRequest, typed_path
from hpc_agent.drafts.repository import Repository
from hpc_agent.errors import InputError

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_OWN_LISTS = ("requirements.txt", "pyproject.toml")


class Located(msgspec.Struct, frozen=True):
    """Code with warnings. ``lists_packages``: it has a package list of its own, or is not on this machine."""

    code: Code
    lists_packages: bool
    warnings: tuple[str, ...] = ()


def locate(request: DraftRequest, here: Path) -> Located:
    """The code that ``request`` points at, relative paths being relative to ``here``.

    Raises:
        InputError, SourceError: it is not there, or no other machine could get it.
    """
    if request.remote:
        return _remote(request, here)
    if not request.local and request.module:
        return Located(Code(f"-m {request.module}"), False)
    folder = _folder(request, here)
    detect = not request.skip_repo_detection
    root = git.find_root(folder) if folder and detect else None
    script = None if request.module else _script(request, here, folder)
    if script and not folder and detect:
        root = git.find_root(script.parent)
    if root is None:
        return _without_repository(request, folder or here, script)
    if script is not None and not _inside(script, root):
        return _script_outside_repository(request, root, script)
    return _checkout(request, here, folder, root, script)


def _inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _folder(request: DraftRequest, here: Path) -> Path | None:
    if not request.local:
        return None
    folder = typed_path(request.local, here)
    if not folder.is_dir():
        flag = "--folder" if request.folder else "--repo"
        raise InputError(f"{flag} {request.local} is not a folder on this machine" + _or_address(request))
    return folder


def _or_address(request: DraftRequest) -> str:
    return "" if request.folder else ", nor the address of a repository such as https://host/lab/code.git"


def _script(request: DraftRequest, here: Path, folder: Path | None) -> Path:
    """The script's file: in the folder named, below its --cwd, or relative to where the user is."""
    bases = [folder, typed_path(request.cwd or ".", folder), here] if folder else [here]
    for base in bases:
        if (script := typed_path(request.script, base)).is_file():
            return script
    where = f"in {folder}" if folder else f"in {here}"
    raise InputError(f"the script {request.script} does not exist {where}")


def _read(script: Path) -> str:
    try:
        # Any kind of line ending becomes "\n", as in the reference.
        text = script.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the script {script} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise InputError(f"the script {script} cannot be read: {error.strerror}") from error
    if len(text) > git.LIMIT_BYTES:
        raise InputError(f"the script {script} is {len(text) / 1e6:.1f} MB, too large to be part of a task")
    return text


def _remote(request: DraftRequest, here: Path) -> Located:
    url = git.without_password(request.remote)
    warnings = () if url == request.remote else (_CREDENTIALS_DROPPED,)
    working_dir = _normal_path(request.cwd) or "."
    code = Code("", working_dir, url, request.branch, request.commit)
    if request.module:
        return Located(replace(code, entry_point=f"-m {request.module}"), True, warnings)
    script = typed_path(request.script, here)
    if Path(request.script).is_absolute() and script.is_file():
        # A script of this machine that runs in the repository: its text travels.
        return Located(_with_script_text(replace(code, python=PYTHON), script), True, warnings)
    entry = _normal_path(request.script)
    return Located(replace(code, entry_point=entry.removeprefix(f"{working_dir}/")), True, warnings)


_CREDENTIALS_DROPPED = (
    "the user name and password in --repo were left out of the task, where all users could read them; "
    "the agent uses agent.git_user and agent.git_pass of its own configuration"
)


def _normal_path(path: str) -> str:
    """``./src//a.py`` → ``src/a.py``."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _with_script_text(code: Code, script: Path) -> Code:
    return replace(code, entry_point=script.name, text=_read(script), literal=True)


def _without_repository(request: DraftRequest, start: Path, script: Path | None) -> Located:
    if script is None:
        raise InputError(
            f"{start} is in no git repository, so the module {request.module} could not be brought to another machine: "
            "make it one and push it, or leave out --folder if the module is in an installed package"
        )
    if request.branch or request.commit:
        raise InputError(f"--branch and --commit need a git repository, and {start} is in none")
    working_dir = _normal_path(request.cwd) or "."
    ignored_cwd = f"--cwd {request.cwd} has no effect: without a repository the script runs in an empty folder"
    # With --skip-repo-detection the reference leaves the choice of interpreter to the agent.
    code = Code("", working_dir, python="" if request.skip_repo_detection else PYTHON)
    return Located(_with_script_text(code, script), False, () if working_dir == "." else (ignored_cwd,))


def _script_outside_repository(request: DraftRequest, root: Path, script: Path) -> Located:
    """A script from elsewhere that runs in a repository: its text travels instead of the uncommitted changes."""
    state = _repository_state(request, root)
    warnings = state.warnings
    if not state.at and git.uncommitted(state.repository):
        warnings += (f"the uncommitted changes in {root} do not travel: the text of {script} goes in their place",)
    code = _in_repository(state.repository, _working_dir(request, root, root, root))
    return Located(_with_script_text(code, script), _lists_packages(root), warnings)


def _checkout(request: DraftRequest, here: Path, folder: Path | None, root: Path, script: Path | None) -> Located:
    state = _repository_state(request, root)
    # The current folder is the working folder, unless the flags name another one.
    default = here.resolve() if folder is None and _inside(here.resolve(), root) else root
    working_dir = _working_dir(request, root, folder or root, default)
    code = _in_repository(state.repository, working_dir)
    if script is None:
        code = replace(code, entry_point=f"-m {request.module}")
    else:
        entry = Path(os.path.relpath(script, root / working_dir)).as_posix()
        code = replace(code, entry_point=entry, text=_text_in(state, script))
    if not state.at:
        code = replace(code, diff=git.uncommitted(state.repository))
    return Located(code, _lists_packages(root), state.warnings)


def _in_repository(repository: Repository, working_dir: str) -> Code:
    return Code("", working_dir, repository.url, repository.branch, repository.commit, python=PYTHON)


class _RepositoryState(msgspec.Struct, frozen=True):
    """State of a repository that the task gets: the files as they are, or those of the commit ``at``."""

    repository: Repository
    at: str = ""
    warnings: tuple[str, ...] = ()


def _repository_state(request: DraftRequest, root: Path) -> _RepositoryState:
    current = git.read_repository(root)
    if request.commit or request.branch:
        left_out = f"{request.commit or request.branch} runs as it is: what differs from it in {root} does not travel"
        if request.commit:
            at = git.resolve_commit(root, request.commit)
            return _RepositoryState(replace(current, commit=at), at, (left_out,))
        at = git.resolve_branch(root, request.branch)
        # Without a commit the branch's newest one is taken when the task runs.
        return _RepositoryState(replace(current, branch=request.branch, commit=""), at, (left_out,))
    if current.pushed:
        return _RepositoryState(current)
    unpushed = (
        f"commit {current.commit[:8]} of {root} is on no branch of its remote: push it before the task runs, "
        "else it cannot be checked out"
    )
    return _RepositoryState(current, warnings=(unpushed,))


def _text_in(state: _RepositoryState, script: Path) -> str:
    root = state.repository.root
    path = script.relative_to(root).as_posix()
    if not state.at:
        if not git.is_tracked(root, path):
            raise InputError(f"git does not track {path}, so it would not travel with the task: git add {script}")
        return _read(script)
    text = git.text_at(root, state.at, path)
    if text is None:
        raise InputError(f"{path} does not exist in {state.at[:8]} of {root}")
    return text


def _working_dir(request: DraftRequest, root: Path, folder: Path, default: Path) -> str:
    """The working folder relative to the root.

    Raises:
        InputError: --cwd is not a folder of the repository.
    """
    chosen = default
    if request.cwd:
        candidates = [typed_path(request.cwd, root), typed_path(request.cwd, folder)]
        chosen = next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])
    if not chosen.is_dir() or not _inside(chosen, root):
        raise InputError(f"--cwd {request.cwd} is not a folder of the repository {root}")
    return chosen.relative_to(root).as_posix()


def _lists_packages(root: Path) -> bool:
    return any((root / name).is_file() for name in _OWN_LISTS)
