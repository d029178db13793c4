"""Activation of a conda environment: packages such as gdal and proj set variables by scripts of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.process import programs

_SCRIPTS = "etc/conda/activate.d"
_WAIT_S = 60.0

SOURCE_SCRIPTS = (f'for script in "$CONDA_PREFIX"/{_SCRIPTS}/*.sh; do [ -r "$script" ] && . "$script"; done',)
"""Lines of shell that do it where CONDA_PREFIX is set."""


def activated(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    """``environ`` as ``conda activate`` would leave it, for the environment at ``root``.

    Raises:
        EnvironmentBuildError: a script of a package failed.
    """
    variables = {**environ, "CONDA_PREFIX": str(root), "CONDA_DEFAULT_ENV": str(root), "CONDA_SHLVL": "1"}
    variables.pop("VIRTUAL_ENV", None)
    if not any((root / _SCRIPTS).glob("*.sh")):
        return variables
    argv = ["bash", "-c", f"{SOURCE_SCRIPTS[0]} >&2; env -0"]
    try:
        answer = programs.run(argv, timeout=_WAIT_S, env=variables)
    except ProcessError as error:
        raise EnvironmentBuildError(f"the conda environment {root} cannot be activated: {error}") from error
    if not answer.ok:
        raise EnvironmentBuildError(f"the conda environment {root} cannot be activated: {answer.last_words}")
    pairs = (item.partition("=") for item in os.fsdecode(answer.output).split("\0") if "=" in item)
    # What bash itself adds is not the scripts'.
    return {name: value for name, _, value in pairs if name not in ("_", "SHLVL", "PWD", "OLDPWD") or name in environ}
