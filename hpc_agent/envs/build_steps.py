"""Build steps: a private local folder, and in it the environment that a lock describes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import file_lock, file_records
from hpc_agent.envs.env_lock import EnvLock
from hpc_agent.envs.installers import InstallContext, Installer, InstallerRunner
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.file_records import remove_tree

_TEST_FOLDERS = r"site-packages/.+/tests/"
_SHEBANG = re.compile(
    rb"\A#!(?:/bin/sh\n'''exec' \"?(?P<long>[^\"\n]+?)\"? \"\$0\" \"\$@\"\n' '''|(?P<short>[^\n]+))\n"
)
_RELATIVE_SHEBANG = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'%s' "$0" "$@"
' '''
"""


def build(
    lock: EnvLock,
    base: Interpreter,
    installer: Installer,
    runner: InstallerRunner,
    context: InstallContext,
    visible_folders: Sequence[str] = (),
) -> Path:
    """Build in ``context.work`` and return the environment's folder. It can be moved: no file in it needs its path.

    ``visible_folders``: further folders whose packages it sees.

    Raises:
        EnvironmentBuildError: the installer failed; with the end of its output.
    """
    root = context.work / "env"
    # A task that names an image expects the image's packages too.
    runner.virtualenv(base, root, system_site=runner.packages.system_site_packages or runner.image_python is not None)
    if lock.lines:
        installer.install(lock.lines, root, base, context)
    if lock.post_packages:
        installer.install_post_packages(lock.post_packages, lock.lines, root, base, context)
    compile_bytecode(root, runner)
    if visible_folders:
        for folder in site_packages(root):
            (folder / "_seen.pth").write_text("".join(f"{path}\n" for path in visible_folders), encoding="utf-8")
    make_movable(root)
    return root


_COMPILE = """
import os, re, subprocess, sys
skip = re.compile(sys.argv[1])
found = [os.path.join(at, name) for top in sys.argv[2:] for at, _, names in os.walk(top) for name in names]
files = [path for path in found if path.endswith(".py") and not skip.search(path) and os.path.isfile(path)]
files.sort(key=os.path.getsize, reverse=True)
count = min(len(os.sched_getaffinity(0)), len(files))
argv = [sys.executable, "-I", "-m", "compileall", "-qq", "-i", "-", "--invalidation-mode", "unchecked-hash"]
workers = [subprocess.Popen(argv, stdin=subprocess.PIPE) for _ in range(count)]
for number, worker in enumerate(workers):
    worker.stdin.write(b"\\n".join(map(os.fsencode, files[number::count])))
    worker.stdin.close()
for worker in workers:
    worker.wait()
"""
"""One compileall for each processor, which ends with its list. The workers of ``compileall -j`` wait forever for one
that was killed, and hold the lock of the build folder."""


def compile_bytecode(root: Path, runner: InstallerRunner) -> None:
    """Compile what jobs import, so that none compiles at its start (1.6 s for numpy, pandas and scikit-learn).

    The packages' own tests are left out: half of all files, and no job runs them. Not bound to the time stamps
    of sources, which need not survive a file system. Files that do not compile (templates, syntax of other versions)
    are left to their packages.
    """
    argv = [str(root / "bin" / "python"), "-I", "-c", _COMPILE, _TEST_FOLDERS]
    runner.run([*argv, *(str(folder) for folder in site_packages(root))], cwd=root)


def site_packages(root: Path) -> list[Path]:
    return sorted(root.glob("lib/python*/site-packages"))


def make_movable(root: Path) -> None:
    """Replace absolute interpreter paths in the first lines of ``bin``'s programs by relative ones."""
    here = os.fsencode(root / "bin") + b"/"
    for path in (root / "bin").iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        match = _SHEBANG.match(content)
        interpreter = (match["long"] or match["short"]).strip() if match else b""
        if match and interpreter.startswith(here):
            name = interpreter.removeprefix(here).split()[0]
            path.write_bytes(_RELATIVE_SHEBANG % name + content[match.end() :])


def installed(root: Path) -> tuple[str, ...]:
    """Installed packages as ``pip freeze`` prints them: metadata folders are named ``name-version``."""
    found = []
    for folder in site_packages(root):
        for path in folder.glob("*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
            found.append(f"{name.replace('_', '-').lower()}=={version}")
    return tuple(sorted(found))


_LOCK_SUFFIX = ".building"
"""Held by the builder with flock(2), which the kernel drops with its process."""

_ABANDONED_SECONDS = 3600.0


@contextmanager
def private_build_folder(parent: Path) -> Iterator[Path]:
    """Context manager of an empty private folder in ``parent``, which is on a local disk.

    Raises:
        OSError: the disk is full or broken.
    """
    file_records.ensure_directory(parent)
    work = parent / secrets.token_hex(8)
    lock = parent / f"{work.name}{_LOCK_SUFFIX}"
    # The lock first: a folder without one would look abandoned.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        file_lock.lock(descriptor)
        _remove_abandoned(parent, os.fstat(descriptor).st_mtime)
        work.mkdir(mode=0o700)
        yield work
    finally:
        remove_tree(work)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(parent: Path, now: float) -> None:
    for entry in parent.iterdir():
        lock = entry if entry.name.endswith(_LOCK_SUFFIX) else entry.with_name(f"{entry.name}{_LOCK_SUFFIX}")
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if lock.exists():
                _remove_unlocked(lock)
            elif now - entry.stat().st_mtime > _ABANDONED_SECONDS:
                # Made again by an installer that outlived its builder.
                remove_tree(entry)


def _remove_unlocked(lock: Path) -> None:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        if file_lock.try_lock(descriptor):
            remove_tree(lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX)))
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
