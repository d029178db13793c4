"""Runs the quick tests (``scripts/test --quick``) in hostile environments: what the tests find must not depend on them.

    scripts/test-hostile                    # all of them
    scripts/test-hostile ascii terminal     # some
    scripts/test-hostile ascii -- tests/unit/test_config.py    # what comes after -- goes to pytest

ascii      LC_ALL=C, a time zone 14 hours ahead, umask 077, no HOME, hardly any variable
latin-1    LC_ALL=de_DE.ISO-8859-1, umask 000, SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE ignored
inherited  inside a Slurm job, with variables of ClearML, XDG, Python, git, pip, uv and proxies; no terminal
terminal   a terminal of 20 columns, colours forced; as root, a Unix user that has no name

Exit code 0 only if all pass; 2 for an environment that does not exist.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = [sys.executable, str(ROOT / "scripts" / "test_run.py"), "--quick", "--workers", "0"]
"""In one process, since each loads all tests; all environments at the same time, since some tests wait."""
OF_NO_ENVIRONMENT = (
    *(
        f"tests/property/test_{name}.py"
        for name in (
            *("courses", "decide_on_any_facts", "pilot_slots", "quoting_of_plain_words"),
            *("slurm_tables", "three_way_merge"),
        )
    ),
    *(
        f"tests/unit/test_{name}.py"
        for name in (
            *("backend_boundary", "check_covers_tree", "language", "layers"),
            *("quoted_sentences", "redact", "reference_flags", "struct_types", "wire_names"),
        )
    ),
)
"""Functions of their arguments alone, and texts of the source: two fifths of the quick tests' processor time."""
UNKNOWN_USER = 54321
"""A user id without a line in /etc/passwd."""
ENOUGH = ("PATH", "LD_LIBRARY_PATH")
STARTED: list[subprocess.Popen[bytes]] = []


class NotPossibleError(Exception):
    """An environment cannot be made here, and why."""


@dataclass(frozen=True)
class Hostile:
    """How the tests are started."""

    environ: Mapping[str, str]
    """The whole environment."""
    umask: int = 0o022
    ignored: tuple[signal.Signals, ...] = ()
    terminal: bool = False
    prefix: tuple[str, ...] = ()
    """A program that starts the tests, with its arguments."""
    arguments: tuple[str, ...] = ()
    """Of pytest."""


def ascii_only(folder: Path) -> Hostile:
    kept = {name: os.environ[name] for name in ENOUGH if name in os.environ}
    environ = {**kept, "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "TMPDIR": str(folder), "NO_COLOR": "1"}
    return Hostile(environ, umask=0o077)


def latin_1(folder: Path) -> Hostile:
    argv = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode > 1:
        raise NotPossibleError(f"{' '.join(argv)} failed (Debian: apt-get install locales): {answer.stderr.strip()}")
    environ = {**os.environ, "LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1", "TMPDIR": str(folder)}
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)
    return Hostile(environ, umask=0, ignored=ignored)


INHERITED = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOBID": "4711",
    "SLURM_CONF": "/nonexistent/slurm.conf",
    "SLURM_NTASKS": "3",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_CPUS_PER_TASK": "7",
    "SLURM_ARRAY_TASK_ID": "9",
    "SLURM_TIME_FORMAT": "%s",
    "COLUMNS": "20",
    "LINES": "5",
    "SBATCH_PARTITION": "nowhere",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_FORMAT": "%i",
    "SACCT_FORMAT": "jobid",
    "CLEARML_API_HOST": "http://127.0.0.1:9",
    "CLEARML_API_ACCESS_KEY": "AKEY",
    "CLEARML_API_SECRET_KEY": "SKEY",
    "CLEARML_CONFIG_FILE": "/nonexistent/clearml.conf",
    "CLEARML_TASK_ID": "f" * 32,
    "CLEARML_WORKER_ID": "w:0",
    "CLEARML_AGENT__hpc__root": "/nonexistent",
    "CLEARML_WORKER_NAME": "worker",
    "CLEARML_LOG_LEVEL": "DEBUG",
    "TRAINS_API_HOST": "http://127.0.0.1:9",
    "TRAINS_CONFIG_FILE": "/nonexistent/trains.conf",
    "TRAINS_PROC_MASTER_ID": "1:2",
    "CLEARML_PROC_MASTER_ID": "1:2",
    **dict.fromkeys(("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), "/nonexistent"),
    "PYTHONPATH": "/nonexistent",
    "PYTHONIOENCODING": "latin-1",
    "PYTHONUTF8": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "1",
    "PYTHONSTARTUP": "/nonexistent.py",
    "PYTHONNOUSERSITE": "",
    "PYTHONSAFEPATH": "",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONFAULTHANDLER": "1",
    "GIT_AUTHOR_DATE": "2001-01-01T00:00:00",
    "GIT_CONFIG_GLOBAL": "/nonexistent",
    "GIT_TERMINAL_PROMPT": "1",
    "PIP_INDEX_URL": "http://127.0.0.1:9",
    "UV_INDEX_URL": "http://127.0.0.1:9",
    "UV_OFFLINE": "1",
    "VIRTUAL_ENV": "/nonexistent",
    "CONDA_PREFIX": "/nonexistent",
    "CONDA_DEFAULT_ENV": "base",
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    "CUDA_VISIBLE_DEVICES": "3",
    "NVIDIA_VISIBLE_DEVICES": "void",
    "POSIXLY_CORRECT": "1",
    "EDITOR": "false",
    "USER": "another user",
    "LOGNAME": "another user",
    "TZ": "America/St_Johns",
}
"""What a shell inside a job, or a site's profile, may have exported."""


def inherited(folder: Path) -> Hostile:
    return Hostile({**os.environ, **INHERITED, "TMPDIR": str(folder)})


def terminal(folder: Path) -> Hostile:
    home = folder / "home of no user"
    home.mkdir()
    environ = {
        **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "USER", "LOGNAME")},
        "COLUMNS": "20",
        "LINES": "4",
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
        "HOME": str(home),
        "TMPDIR": str(folder),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
    }
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # The checkout and the interpreter may lie in root's home: it may read everything, and write what is its own.
        may = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        prefix = ("setpriv", f"--reuid={UNKNOWN_USER}", f"--regid={UNKNOWN_USER}", "--clear-groups", *may)
        for path in (folder, home):
            os.chown(path, UNKNOWN_USER, UNKNOWN_USER)
    return Hostile(environ, terminal=True, prefix=prefix, arguments=("-p", "no:cacheprovider"))


ENVIRONMENTS: Mapping[str, Callable[[Path], Hostile]] = {
    "ascii": ascii_only,
    "latin-1": latin_1,
    "inherited": inherited,
    "terminal": terminal,
}


def main(argv: Sequence[str]) -> int:
    options, rest = _arguments(argv)
    names = options.names or list(ENVIRONMENTS)
    print(f"at the same time; what each prints follows when it has ended: {', '.join(names)}", flush=True)
    with ThreadPoolExecutor(len(names)) as pool:
        trials = {name: pool.submit(trial, name, rest) for name in names}
        try:
            failed = [name for name in names if _shown(name, *trials[name].result())]
        except KeyboardInterrupt:
            _end_all()
            raise
    print(f"failed in: {', '.join(failed)}" if failed else f"passed in: {', '.join(names)}")
    return 1 if failed else 0


def trial(name: str, rest: Sequence[str]) -> tuple[int, bytes]:
    """The quick tests in one environment: their exit code, and what they printed."""
    folder = Path(tempfile.mkdtemp(prefix=f"hostile-{name}-"))
    try:
        hostile = ENVIRONMENTS[name](folder)
    except NotPossibleError as error:
        return 1, f"{error}\n".encode()
    left_out = [f"--ignore={file}" for file in OF_NO_ENVIRONMENT]
    exit_code, printed = run(hostile, [*hostile.prefix, *QUICK, *left_out, *hostile.arguments, *rest])
    if not exit_code:
        shutil.rmtree(folder, ignore_errors=True)
    return exit_code, printed


def _shown(name: str, exit_code: int, printed: bytes) -> int:
    print(f"=== {name}", flush=True)
    sys.stdout.buffer.write(printed)
    sys.stdout.flush()
    return exit_code


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, Sequence[str]]:
    parser = argparse.ArgumentParser(
        prog="test-hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="ENVIRONMENT", help="only these (all)")
    end = list(argv).index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:end])
    for name in options.names:
        if name not in ENVIRONMENTS:
            parser.error(f"{name} is not one of {', '.join(ENVIRONMENTS)}")
    return options, argv[end + 1 :]


def run(hostile: Hostile, argv: Sequence[str]) -> tuple[int, bytes]:
    """Run a program so; returns its exit code and what it printed."""

    def prepare() -> None:
        os.umask(hostile.umask)
        for number in hostile.ignored:
            signal.signal(number, signal.SIG_IGN)

    # With restore_signals, Python would give the child SIGPIPE back.
    def start(stdin: int, output: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=hostile.environ,
            preexec_fn=prepare,
            restore_signals=False,
            start_new_session=True,
        )
        STARTED.append(child)
        return child

    return _in_terminal(start) if hostile.terminal else _to_file(start)


def _to_file(start: Callable[[int, int], subprocess.Popen[bytes]]) -> tuple[int, bytes]:
    with tempfile.TemporaryFile() as output:
        exit_code = start(subprocess.DEVNULL, output.fileno()).wait()
        output.seek(0)
        return exit_code, output.read()


def _end_all() -> None:
    """In sessions of their own, they do not get a terminal's Ctrl-C, which one of them ignores too."""
    for child in STARTED:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def _in_terminal(start: Callable[[int, int], subprocess.Popen[bytes]]) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    child = start(theirs, theirs)
    os.close(theirs)
    printed = bytearray()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the last one that had it open has ended
            break
        if not data:
            break
        printed += data
    os.close(ours)
    return child.wait(), bytes(printed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
