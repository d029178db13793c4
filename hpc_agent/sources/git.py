"""Runs git: without prompts, without passwords in arguments, with nothing of a task taken for an option.

A mirror's ``config`` and ``hooks`` can name programs, so anyone who may write to a group's cache could run code as
everyone who fetches. ``private_view`` therefore gives git a directory of our own with links to the mirror's objects
and references, as git's own ``git-new-workdir`` makes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.errors import ProcessError, SourceError
from hpc_agent.git_credentials import CAREFUL_GIT, PROTOCOLS, GitCredential, settings_and_variables, ssh_command
from hpc_agent.process import programs
from hpc_agent.redact import without_credentials
from hpc_agent.sources.remote import Remote, host_of

QUICK_SECONDS = 120.0
"""Seconds for what reads and writes files only."""
TRANSFER_SECONDS = 3600.0
"""Seconds for what moves a repository over the network: a first fetch may be many gigabytes."""

_CONFIG = {
    "gc.auto": "0",  # a mirror is read while others fetch: nothing may tidy it up meanwhile
    "maintenance.auto": "false",
    "fetch.unpackLimit": "1",  # one pack a fetch, not thousands of small files on a shared file system
    "core.hooksPath": "/dev/null",  # hooks of the user's own set-up are not for checkouts of tasks
    "core.fsmonitor": "false",
    "core.autocrlf": "false",  # the commit's bytes, else patches do not fit
    "advice.detachedHead": "false",
    **dict(CAREFUL_GIT),
    # Large files come from the mirror (lfs.py): git-lfs would use the network, and need not be on a node.
    "filter.lfs.smudge": "",
    "filter.lfs.clean": "",
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
}
_UNINFORMATIVE = (
    "hint:",
    "fatal: Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
)
_ADDRESSED = r"^(credential|url|http)\..+\."
_FORWARDED_PREFIXES = ("GIT_SSH", "GIT_SSL", "GIT_PROXY", "GIT_HTTP", "GIT_EXEC_PATH", "GIT_CONFIG")


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` for git without prompts and without repository variables of our parent process."""
    env = {k: v for k, v in base.items() if not k.startswith("GIT_") or k.startswith(_FORWARDED_PREFIXES)}
    env.update(
        GIT_TERMINAL_PROMPT="0",
        GIT_ASKPASS="",  # empty: nor a window of some editor
        GIT_ALLOW_PROTOCOL=PROTOCOLS,  # in submodules neither
        GIT_LFS_SKIP_SMUDGE="1",
        LC_ALL="C.UTF-8",
        GIT_SSH_COMMAND=ssh_command(base.get("GIT_SSH_COMMAND", "")),
    )
    return env


def configured_credentials(git: GitSettings, known: Collection[str] = ()) -> list[GitCredential]:
    """The credentials of the settings, for a git that installers start: for requirements from repositories.

    ``known``: hosts that may have them too (``named_hosts``).
    """
    if not git.password:
        return []
    hosts = [git.host] if git.host else sorted(known)
    return [GitCredential(f"https://{host}", git.user or "git", git.password) for host in hosts]


def named_hosts(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The hosts that this account's and this machine's git configuration has addresses of: ``credential.<address>.*``,
    ``url.<address>.insteadOf``, ``http.<address>.*``. A git that is not installed names none."""
    names: set[str] = set()
    for scope in ("--global", "--system"):
        with contextlib.suppress(ProcessError):
            argv = ["git", "config", scope, "--null", "--name-only", "--includes", "--get-regexp", _ADDRESSED]
            answer = programs.run(argv, timeout=QUICK_SECONDS, env=environment(environ))
            names.update(answer.stdout.split("\0") if answer.ok else ())
    addresses = (name.partition(".")[2].rpartition(".")[0] for name in names)
    return frozenset(host for address in addresses if (host := host_of(address)))


def run(
    arguments: list[str],
    *,
    git_dir: Path | None = None,
    mirror: Path | None = None,
    work_tree: Path | None = None,
    cwd: Path | None = None,
    remote: Remote | None = None,
    input: str | None = None,
    timeout: float = QUICK_SECONDS,
    settings: Mapping[str, str] = {},
) -> programs.CompletedProcess:
    """Run git; ``remote`` lends its credentials to this one command, for its own host only.

    ``git_dir`` is given by option, never found by git: so git does not refuse what another user made. ``mirror``: a
    bare repository of the shared cache, whose own configuration does not count. ``cwd`` is where it runs without one;
    a repository further up is not looked for.

    Raises:
        SourceError: git is not installed, or did not end in time.
    """
    chosen = [*_CONFIG.items(), *settings.items()]
    env = environment(os.environ)
    if remote and remote.user:
        credential_settings, variables = settings_and_variables(
            [GitCredential(remote.origin, remote.user, remote.password)]
        )
        chosen += credential_settings
        env |= variables
    argv = ["git"]
    for key, value in chosen:
        argv += ["-c", f"{key}={value}"]
    if cwd:
        env["GIT_CEILING_DIRECTORIES"] = str(cwd.resolve().parent)
    try:
        with private_view(mirror) if mirror else contextlib.nullcontext(git_dir) as where:
            if where:
                argv += [f"--git-dir={where}"]
            if work_tree:
                argv += [f"--work-tree={work_tree}"]
            return programs.run([*argv, *arguments], timeout=timeout, env=env, cwd=work_tree or cwd, input=input)
    except OSError as error:
        raise SourceError(f"git {arguments[0]} could not be run: {error.strerror or error}") from error
    except ProcessError as error:
        raise _not_run(arguments[0], error) from error


def _not_run(what: str, error: ProcessError) -> SourceError:
    failure = SourceError(f"git {what} could not be run: {error}; is git installed on this machine?")
    failure.retryable = "no answer within" in str(error)
    return failure


def last_line(completed: programs.CompletedProcess) -> str:
    """The last informative line of git's output, without hints and credentials."""
    lines = [line.strip() for line in completed.last_words.splitlines()]
    informative = [line for line in lines if line and not line.startswith(_UNINFORMATIVE)]
    fatal = [line for line in informative if line.startswith(("fatal:", "error:"))]
    return without_credentials((fatal or informative or lines or [f"exit code {completed.returncode}"])[-1])


_LINKED = ("objects", "refs", "packed-refs", "lfs")


@contextmanager
def private_view(mirror: Path) -> Iterator[Path]:
    """Context manager of a temporary git directory for ``mirror``, a bare repository.

    Raises:
        OSError: it cannot be made.
    """
    view = Path(tempfile.mkdtemp(prefix="hpc-agent-git-"))
    try:
        target = mirror.resolve()
        for name in _LINKED:
            # git follows the link of packed-refs when it writes a new one.
            (view / name).symlink_to(target / name)
        (view / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
        mode = shared_mode(target)
        sharing = f"\tsharedRepository = 0{mode:o}\n" if mode else ""
        (view / "config").write_text(
            f"[core]\n\tbare = true\n\trepositoryformatversion = 0\n{sharing}", encoding="utf-8"
        )
        yield view
    finally:
        shutil.rmtree(view, ignore_errors=True)


def shared_mode(folder: Path) -> int | None:
    """Access of new files that ``folder`` grants to others, independent of the umask; None for a private folder."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666 | 0o600
    return mode if mode & 0o077 else None
