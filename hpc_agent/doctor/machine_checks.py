"""Checks of the machine that the daemon runs on: versions, limits of processes, git, the package index, builds."""

from __future__ import annotations

import os
import platform
import re
import resource
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpc_agent import __version__
from hpc_agent.access import user_name
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.doctor.check import Check, CheckResult, SkippedError, failed, ok, skipped, warning
from hpc_agent.envs import interpreter
from hpc_agent.envs.builder import installer_for
from hpc_agent.envs.env_request import request_for_file
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.envs.installers import InstallContext, InstallerRunner
from hpc_agent.errors import HpcAgentError, ProcessError
from hpc_agent.file_records import private_folder
from hpc_agent.process import programs
from hpc_agent.redact import without_credentials
from hpc_agent.sources import git, remote

SUBJECT = "This machine"
_CRON = "hpc-agent init --service cron     # or scrontab: one pass every five minutes instead of a process that stays"
_PACKAGE = "wheel"
"""Small, without dependencies, on every index."""
_BUILD_S = 180.0
_NETWORK_S = 60.0
_LEAST_PROCESSES = 200
_LEAST_FILES = 256
_LEAST_MEMORY_MB = 1024
_MOST_REPOSITORIES = 3
_SHORT_S = 10.0


def checks(settings: AllSettings, clock: Clock, repositories: Sequence[str]) -> list[Check]:
    """``repositories``: addresses to try git with; those of the cache's newest mirrors where there are none."""
    hpc = settings.hpc
    cache = f"hpc-agent cache list; df -h {shlex.quote(str(hpc.cache))}"
    found = [
        Check(SUBJECT, "versions", _versions),
        Check(SUBJECT, "process limits", lambda: _limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))),
        Check(SUBJECT, "lingering", lambda: _lingering(Path("/"))),
        Check(SUBJECT, "environment", lambda: _environment(settings, clock), cache, timeout=_BUILD_S),
    ]
    if hpc.envs.build_on == "login":
        found.append(package_index(SUBJECT, settings))
    return [*found, *git_access(SUBJECT, settings, repositories)]


def _versions() -> Iterator[CheckResult]:
    yield ok(f"hpc-agent {__version__}, Python {platform.python_version()}", name="hpc-agent")
    for name, argv in {"git": ["git", "--version"], "uv": [_uv(), "--version"]}.items():
        try:
            answer = programs.run(argv, timeout=_SHORT_S)
        except ProcessError as error:
            yield failed(str(error), f"module load {name}     # or install it, so that it is on PATH", name=name)
        else:
            number = re.search(r"[0-9]+(\.[0-9]+)+", answer.stdout)
            yield ok(number[0] if number else answer.stdout.strip()[:80], name=name)


def _uv() -> str:
    import uv

    return uv.find_uv_bin()


# ---------------------------------------------------------------- what a process may do here


def _limits(membership: Path, groups: Path) -> Iterator[CheckResult]:
    """Limits that end or hinder a daemon, of ulimit and of its cgroup."""
    seconds, _ = resource.getrlimit(resource.RLIMIT_CPU)
    if seconds != resource.RLIM_INFINITY:
        yield warning(f"a process is ended after {seconds / 60:.0f} minutes of CPU time: a daemon too", _CRON)
    for number, word, least in (
        (resource.RLIMIT_NPROC, "processes", _LEAST_PROCESSES),
        (resource.RLIMIT_NOFILE, "open files", _LEAST_FILES),
    ):
        limit, most = resource.getrlimit(number)
        if limit != resource.RLIM_INFINITY and limit < least:
            flag = "u" if word == "processes" else "n"
            raised = "unlimited" if most == resource.RLIM_INFINITY else most
            yield warning(f"only {limit} {word} are allowed", f"ulimit -S{flag} {raised}")
    memory = _memory_limit(membership, groups)
    if memory is not None and memory < _LEAST_MEMORY_MB:
        remedy = "set hpc.envs.build_on to job: environments are built in a job, not here"
        yield warning(f"all processes of yours here together may use {memory} MiB of memory", remedy)
    amount = "" if memory is None else f"; {memory / 1024:.0f} GiB of memory for all of yours"
    yield ok(f"{_shown(resource.RLIMIT_NPROC)} processes, {_shown(resource.RLIMIT_NOFILE)} open files{amount}")


def _shown(number: int) -> str:
    limit, _ = resource.getrlimit(number)
    return "any number of" if limit == resource.RLIM_INFINITY else str(limit)


def _memory_limit(membership: Path, groups: Path) -> int | None:
    """The smallest limit of the process's cgroup (version 2) and those above, in MiB; None: there is none."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if path is None:
        return None
    found = []
    for folder in (groups / path, *(groups / path).parents):
        if not folder.is_relative_to(groups):
            break
        file = folder / "memory.max"
        if file.is_file() and (text := file.read_text(encoding="utf-8").strip()).isdecimal():
            found.append(int(text) >> 20)
    return min(found, default=None)


def _lingering(root: Path) -> Iterator[CheckResult]:
    """``root``: of the machine's files."""
    if not (root / "run/systemd/system").is_dir():
        yield skipped("this machine is not run by systemd")
        return
    if (root / "var/lib/systemd/linger" / user_name()).exists():
        yield ok("your services go on when you log out")
        return
    remedy = f"loginctl enable-linger     # if the site forbids it: {_CRON}"
    logind = root / "etc/systemd"
    files = (logind / "logind.conf", *sorted((logind / "logind.conf.d").glob("*.conf")))
    set_to = [word for file in files for word in re.findall(r"^\s*KillUserProcesses\s*=\s*(\w+)", _text(file), re.M)]
    if set_to and set_to[-1].lower() in ("yes", "true", "1", "on"):
        yield warning("all of your processes are ended when you log out, a daemon too", remedy)
    else:
        yield warning("a systemd user service ends when you log out; a daemon that you start by hand stays", remedy)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ---------------------------------------------------------------- git, package index, builds


def package_index(subject: str, settings: AllSettings) -> Check:
    remedy = "set agent.package_manager.extra_index_url or HTTPS_PROXY to what this site has; pip config list"
    return Check(subject, "package index", lambda: _package_index(settings), remedy, timeout=_NETWORK_S)


def _package_index(settings: AllSettings) -> Iterator[CheckResult]:
    """The installer finds a package, with the site's own indexes, proxies and credentials."""
    packages = settings.python_packages
    if packages.skip_install:
        raise SkippedError("nothing is installed: agent.package_manager.skip_install")
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=private_folder(settings.hpc.scratch)) as folder:
        work = Path(folder)
        # A cache of its own: the usual one would answer for an index that is not there.
        runner = InstallerRunner(
            packages, work, {**os.environ, "UV_CACHE_DIR": str(work / "cache"), "UV_HTTP_RETRIES": "0"}
        )
        base = interpreter.find("", packages, lambda _line: None)
        lock = installer_for(runner).resolve([_PACKAGE], [], base, InstallContext(work, work))
    found = re.search(rf"^{_PACKAGE}==(\S+)", lock, re.M)
    yield ok(f"answers, and has {_PACKAGE} {found[1] if found else ''}".rstrip())


def _environment(settings: AllSettings, clock: Clock) -> Iterator[CheckResult]:
    """An environment without packages is built, stored in the cache and found there, under a name of its own."""
    packages = settings.python_packages
    if packages.skip_install:
        raise SkippedError("nothing is installed: agent.package_manager.skip_install")
    cache = settings.hpc.cache
    cache.mkdir(parents=True, exist_ok=True)
    before = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=cache) as folder:
        store = EnvStore(Path(folder), settings.hpc.scratch, packages, clock)
        store.stage(request_for_file(""), lambda _line: None)
    yield ok(f"an empty one was built and stored in {clock.monotonic() - before:.1f} s")


def git_access(subject: str, settings: AllSettings, repositories: Sequence[str]) -> list[Check]:
    addresses = list(repositories) or _mirrored(settings.hpc.cache)
    if not addresses:
        return [Check(subject, "git access", _no_repository)]
    remedy = "git ls-remote ADDRESS     # agent.git_user and git_pass, or an ssh key without passphrase in ssh-agent"
    return [
        Check(
            subject,
            "git access",
            _reaching(settings, address),
            remedy.replace("ADDRESS", shlex.quote(without_credentials(address))),
            timeout=_NETWORK_S,
        )
        for address in addresses
    ]


def _reaching(settings: AllSettings, address: str) -> Callable[[], Iterator[CheckResult]]:
    def run() -> Iterator[CheckResult]:
        found = remote.resolve(address, settings.git, git.named_hosts())
        answer = git.run(["ls-remote", "--quiet", "--", found.url, "HEAD"], remote=found, timeout=_NETWORK_S)
        if not answer.ok:
            raise HpcAgentError(f"{found.url}: {git.last_line(answer)}")
        yield ok(f"{found.url} answers")

    return run


def _no_repository() -> Iterator[CheckResult]:
    yield skipped("no repository was used yet", "hpc-agent doctor --repository ADDRESS")


def _mirrored(cache: Path) -> list[str]:
    """Addresses of the repositories that were used last."""
    try:
        mirrors = [path for path in (cache / "vcs").iterdir() if (path / "HEAD").is_file()]
        newest = sorted(mirrors, key=lambda path: path.stat().st_mtime, reverse=True)[:_MOST_REPOSITORIES]
    except OSError:
        return []
    found = [re.search(r"^\s*url = (.+)$", _text(path / "config"), re.M) for path in newest]
    return [match[1].strip() for match in found if match]
