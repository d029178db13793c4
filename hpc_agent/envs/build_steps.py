"""A lock becomes an environment in a private local folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hpc_agent.envs.env_lock import EnvLock
from hpc_agent.envs.installer_runner import InstallerRunner
from hpc_agent.envs.installers import InstallContext, Installer
from hpc_agent.envs.interpreter import Interpreter

_TESTS = r"site-packages/.+/tests/"
_FIRST_LINES = re.compile(
    rb"\A#!(?:/bin/sh\n'''exec' \"?(?P<long>[^\"\n]+?)\"? \"\$0\" \"\$@\"\n' '''|(?P<short>[^\n]+))\n"
)
_FIND_PYTHON = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'%s' "$0" "$@"
' '''
"""


def build(
    lock: EnvLock,
    base: Interpreter,
    installer: Installer,
    tools: InstallerRunner,
    place: InstallContext,
    seen: Sequence[str] = (),
) -> Path:
    """Build in ``place.work`` and return the environment's folder. It can be moved: no file in it needs its path.

    ``seen``: further folders whose packages it sees.

    Raises:
        EnvironmentBuildError: with the installer's own last words.
    """
    root = place.work / "env"
    # Whoever names an image means the packages in it too.
    tools.virtualenv(base, root, system_site=tools.packages.system_site_packages or tools.foreign is not None)
    if lock.lines:
        installer.install(lock.lines, root, base, place)
    if lock.late:
        installer.install_late(lock.late, lock.lines, root, base, place)
    compile_bytecode(root, tools)
    if seen:
        for folder in site_packages(root):
            (folder / "_seen.pth").write_text("".join(f"{path}\n" for path in seen), encoding="utf-8")
    make_movable(root)
    return root


def compile_bytecode(root: Path, tools: InstallerRunner) -> None:
    """Compile what jobs import, so that none compiles at its start (1.6 s for numpy, pandas and scikit-learn).

    The packages' own tests are left out: half of all files, and nobody's job runs them. Not bound to the time stamps
    of sources, which need not survive a file system. Files that do not compile (templates, syntax of other versions)
    are for their packages to know.
    """
    argv = [str(root / "bin" / "python"), "-I", "-m", "compileall", "-qq", "-j", "0", "-x", _TESTS]
    argv += ["--invalidation-mode", "unchecked-hash"]
    tools.run([*argv, *(str(folder) for folder in site_packages(root))], cwd=root)


def site_packages(root: Path) -> list[Path]:
    return sorted(root.glob("lib/python*/site-packages"))


def make_movable(root: Path) -> None:
    """Let programs in ``bin`` find the interpreter beside themselves, where an installer wrote its path of today."""
    here = os.fsencode(root / "bin") + b"/"
    for path in (root / "bin").iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        match = _FIRST_LINES.match(content)
        interpreter = (match["long"] or match["short"]).strip() if match else b""
        if match and interpreter.startswith(here):
            name = interpreter.removeprefix(here).split()[0]
            path.write_bytes(_FIND_PYTHON % name + content[match.end() :])


def installed(root: Path) -> tuple[str, ...]:
    """What is in the environment, as ``pip freeze`` prints it: metadata folders are named ``name-version``."""
    found = []
    for folder in site_packages(root):
        for path in folder.glob("*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
            found.append(f"{name.replace('_', '-').lower()}=={version}")
    return tuple(sorted(found))
