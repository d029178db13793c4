"""A lock becomes an environment in a private local folder."""

from __future__ import annotations

from pathlib import Path

from hpc_agent.config.settings import PackageSettings
from hpc_agent.envs.install import Toolbox, as_error
from hpc_agent.envs.interpreter import Interpreter


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
                *("--no-deps", "--compile-bytecode", "--requirements", str(locked)),
            ],
            cwd=source_root or work,
        )
        if not answer.ok:
            raise as_error("the task's packages cannot be installed", answer)
    return root
