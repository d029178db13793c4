"""uv: resolves in a tenth of a second and links packages from its cache, 50 to 170 times faster than pip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc_agent.envs import pip_config
from hpc_agent.envs.installers import Place
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.envs.toolbox import Toolbox, as_error
from hpc_agent.process import Completed

_MAIN_INDEX = "--index-url "
_ENVIRON = {
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    # What pip does: the best version of all indexes. uv's own default stops at the first that has the name,
    # which for download.pytorch.org is often an old copy of something else.
    "UV_INDEX_STRATEGY": "unsafe-best-match",
}


class UvInstaller:
    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        # A site describes its indexes to pip, and uv does not read that.
        self._site = pip_config.load()
        self._index_lines = [*self._site.lines, *tools.index_lines]

    def resolve(self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, place: Place) -> str:
        asked = place.write("requirements.in", [*self._options(place), *lines])
        limits = place.write("constraints.txt", constraints)
        lock = place.work / "resolved.txt"
        answer = self._uv(
            [
                *("pip", "compile", asked, "--constraints", limits, "--python", base.executable),
                *("--generate-hashes", "--no-header", "--no-annotate", "--output-file", str(lock)),
            ],
            place,
        )
        if not answer.ok:
            raise as_error("the task's requirements cannot be resolved", answer, ResolutionError)
        return lock.read_text(encoding="utf-8")

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, place: Place) -> None:
        # uv reads this line and writes entry points that find the interpreter next to themselves.
        with (root / "pyvenv.cfg").open("a", encoding="utf-8") as config:
            config.write("relocatable = true\n")
        locked = place.write("lock.txt", [*self._options(place), *lock])
        self._install(root, ["--no-deps", "--requirements", locked], place)

    def install_late(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, place: Place
    ) -> None:
        late = place.write("late.txt", [*self._options(place), *lines])
        # Constraints may not have hashes.
        limits = place.write("installed.txt", [line.partition(" --hash=")[0] for line in lock if "==" in line])
        tools = place.write("tools.txt", [*self._options(place), "setuptools", "wheel"])
        self._install(root, ["--requirements", tools], place)
        self._install(root, ["--no-build-isolation", "--requirements", late, "--constraints", limits], place)

    def _options(self, place: Place) -> list[str]:
        """Where packages are found, by the site and the task; of several main indexes the task's: uv takes only one."""
        lines = [*self._index_lines, *place.options]
        main = [line for line in lines if line.startswith(_MAIN_INDEX)][:-1]
        return [line for line in lines if line not in main]

    def _install(self, root: Path, arguments: Sequence[str], place: Place) -> None:
        python = str(root / "bin" / "python")
        answer = self._uv(["pip", "install", "--quiet", "--no-editable", "--python", python, *arguments], place)
        if not answer.ok:
            raise as_error("the task's packages cannot be installed", answer)

    def _uv(self, arguments: Sequence[str], place: Place) -> Completed:
        argv = [self._tools.uv_program(), *arguments, *self._tools.packages.extra_pip_install_flags]
        environ = {**self._site.environ, **_ENVIRON}
        return self._tools.run(argv, cwd=place.cwd, environ=environ, credentials=place.credentials)
