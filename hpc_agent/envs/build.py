"""A lock becomes an environment in a private local folder."""

from __future__ import annotations

from pathlib import Path

from hpc_agent.config.settings import PackageSettings
from hpc_agent.envs.install import Toolbox, as_error
from hpc_agent.envs.interpreter import Interpreter

_TESTS = r"site-packages/.+/tests/"
_UNCHECKED = ("--invalidation-mode", "unchecked-hash")


def build(
    lock: str,
    interpreter: Interpreter,
    packages: PackageSettings,
    tools: Toolbox,
    work: Path,
    source_root: Path | None,
) -> Path:
    """Build in ``work`` and return the environment's folder. It can be moved: no file in it needs its path.

    Raises:
        EnvironmentBuildError: with the installer's own last words.
    """
    root = work / "env"
    answer = tools.virtualenv(interpreter, root, system_site=packages.system_site_packages)
    if not answer.ok:
        raise as_error(f"no environment can be made with {interpreter.shown}", answer)
    # uv reads this line and writes entry points that find the interpreter next to themselves.
    with (root / "pyvenv.cfg").open("a") as config:
        config.write("relocatable = true\n")
    if lock:
        locked = work / "lock.txt"
        locked.write_text("\n".join([*tools.index_lines, lock]) + "\n")
        answer = tools.uv(
            [
                *("pip", "install", "--quiet", "--python", str(root / "bin" / "python")),
                *("--no-deps", "--requirements", str(locked)),
            ],
            cwd=source_root or work,
        )
        if not answer.ok:
            raise as_error("the task's packages cannot be installed", answer)
        compile_bytecode(root, tools)
    return root


def compile_bytecode(root: Path, tools: Toolbox) -> None:
    """Compile what jobs import, so that none compiles at its start (1.6 s for numpy, pandas and scikit-learn).

    The packages' own tests are left out: half of all files, and nobody's job runs them. Not bound to the time stamps
    of sources, which need not survive a file system. Files that do not compile (templates, other versions' syntax)
    are for their packages to know.
    """
    python = root / "bin" / "python"
    tools.run([str(python), "-I", "-m", "compileall", "-qq", "-j", "0", "-x", _TESTS, *_UNCHECKED, *_packages(root)])


def _packages(root: Path) -> list[str]:
    return [str(folder) for folder in sorted(root.glob("lib/python*/site-packages"))]
