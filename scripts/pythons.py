"""Interpreters of the Python versions that the project supports, each with an environment of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from debian_packages import PackagesError, cache_dir, locked, unpack, use_own_libraries

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky"}
"""Python's version → the Debian release that has it."""


class NoPythonError(Exception):
    """There is no such interpreter, and why none could be had."""


def python_environment(version: str, root: Path) -> Path:
    """The interpreter of an environment with this checkout and all that its tests need, made or refreshed.

    Raises:
        NoPythonError: there is no such Python here, and Debian's could not be had; or its packages could not.
    """
    python = find_python(version)
    folder = root / f".venv-{version}"
    uv = root / ".venv" / "bin" / "uv"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "UV_"))}
    commands: tuple[list[str | Path], ...] = (
        [uv, "venv", "--quiet", "--allow-existing", "--python", python, folder],
        [
            *(uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python"),
            *("--constraint", root / "requirements.lock", "--editable", f"{root}[dev]"),
        ],
    )
    for argv in commands:
        answer = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise NoPythonError(f"{' '.join(map(str, argv[:3]))} for Python {version} failed: {answer.stderr.strip()}")
    return folder / "bin" / "python"


def find_python(version: str) -> Path:
    """An interpreter: one on PATH, one of pyenv's, else Debian's, unpacked into a folder.

    Raises:
        NoPythonError: as above.
    """
    for candidate in _candidates(version):
        answer = subprocess.run([candidate, "-V"], capture_output=True, text=True, check=False)
        if answer.stdout.startswith(f"Python {version}."):
            return candidate
    if version not in SUITES:
        raise NoPythonError(f"Python {version} is not installed here, and no release of Debian has it")
    return _from_debian(version)


def _candidates(version: str) -> Iterator[Path]:
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def _from_debian(version: str) -> Path:
    folder = cache_dir() / "python-versions" / version
    python = folder / "files" / "usr" / "bin" / f"python{version}"
    ready = folder / "ready"
    with locked(folder):
        if not ready.exists():
            try:
                unpack(SUITES[version], (f"python{version}", "patchelf", "libsqlite3-0"), folder)
                use_own_libraries(folder / "files", [python])
            except PackagesError as error:
                raise NoPythonError(str(error)) from error
            ready.touch()
    return python
