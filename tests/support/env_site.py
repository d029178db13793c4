"""Small real wheels, a shared cache and a node to use them on."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs.env_request import EnvRequest, request_for
from hpc_agent.envs.env_store import EnvStore

SmallDisk = Callable[[Path, float], tuple[str, ...]]
"""The words before a command that give it a file system of so many MB at a folder."""


class Wheelhouse:
    """A folder of wheels that serves as package index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(
        self, name: str, version: str = "1.0", *, requires: tuple[str, ...] = (), files: dict[str, bytes] | None = None
    ) -> None:
        """A wheel of a module ``name`` that has ``VERSION``, and a program ``name`` that prints it."""
        info = f"{name}-{version}.dist-info"
        content = {
            f"{name}/__init__.py": f"VERSION = {version!r}\ndef main():\n    print({name!r}, VERSION)\n".encode(),
            f"{name}/tests/__init__.py": b"",
            **(files or {}),
            f"{info}/METADATA": "\n".join(
                [
                    "Metadata-Version: 2.1",
                    f"Name: {name}",
                    f"Version: {version}",
                    *(f"Requires-Dist: {r}" for r in requires),
                ]
            ).encode()
            + b"\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name}={name}:main\n".encode(),
        }
        record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items())
        with zipfile.ZipFile(self.folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, data in content.items():
                wheel.writestr(path, data)
            wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass
class EnvSite:
    """``said`` collects the messages to users."""

    folder: Path
    wheels: Wheelhouse
    packages: PackageSettings = PackageSettings()  # noqa: RUF009 (frozen)
    said: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def store(self, *, clock: Clock = SYSTEM, scratch: Path | None = None) -> EnvStore:
        return EnvStore(self.cache, scratch or self.scratch, self.packages, clock)

    def request(self, *lines: str, files: RequirementFiles | None = None, **fields: str) -> EnvRequest:
        """A request of a task with these requirement lines, served from the wheelhouse alone."""
        index = ("--no-index", f"--find-links {self.wheels.folder}")
        script = TaskScript(requirements=Requirements(pip=(*index, *lines)), **fields)
        return replace(request_for(script, files or RequirementFiles(), self.packages, source=fields.get("diff", "")))

    def say(self, line: str) -> None:
        self.said.append(line)

    @property
    def published(self) -> list[str]:
        folder = self.cache / "envs"
        return [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.exists() else []

    @property
    def builds(self) -> int:
        return sum(line.startswith("Building environment") for line in self.said)


class PythonRunner:
    """Runs code in a process of its own that has ``store``, ``request(*lines)`` and ``say``; gives the child."""

    def __init__(self, site: EnvSite) -> None:
        self.prelude = _PRELUDE.format(cache=str(site.cache), scratch=str(site.scratch), wheels=str(site.wheels.folder))

    def __call__(
        self, code: str, *arguments: str, prefix: tuple[str, ...] = (), stdin: int | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", self.prelude + code, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


_PRELUDE = """
import sys
from pathlib import Path
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey, RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs.env_request import request_for
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.errors import HpcAgentError
packages = PackageSettings()
store = EnvStore(Path({cache!r}), Path({scratch!r}), packages, SYSTEM)
def request(*lines):
    index = ("--no-index", "--find-links " + {wheels!r})
    return request_for(TaskScript(requirements=Requirements(pip=(*index, *lines))), RequirementFiles(), packages)
def say(line):
    print(line, flush=True)
"""
