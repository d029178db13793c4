"""The Apptainer that scripts/apptainer.py fetches, and image files of it, made of the same trees as podman's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from apptainer import apptainer as fetch_apptainer
from capabilities import missing
from container_images import tree
from debian_packages import PackagesError

_QUICKLY = ("--mksquashfs-args", "-noD -noF")
"""Without compression: 2 s in place of 12 s."""


@dataclass(frozen=True)
class Apptainer:
    """``arguments``: what its containers need here, for ``hpc.container.arguments``."""

    program: Path
    arguments: tuple[str, ...] = ("--no-privs",)  # a root without all of Linux' capabilities cannot keep them

    @property
    def settings(self) -> dict[str, str]:
        """Variables with the settings of an agent that uses it."""
        return {
            "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "apptainer",
            "CLEARML_AGENT__HPC__CONTAINER__PROGRAM": str(self.program),
            "CLEARML_AGENT__HPC__CONTAINER__ARGUMENTS": json.dumps(self.arguments),
        }

    def sif(self, kind: str) -> Path:
        """An image file that may not be changed, made once."""
        folder = tree(kind)
        target = folder.with_name(f"{folder.name}.sif")
        if not target.exists():
            making = target.with_name(f".{os.getpid()}.{target.name}")
            argv = [str(self.program), "build", "--force", *_QUICKLY, str(making), str(folder)]
            subprocess.run(argv, capture_output=True, timeout=300, check=True)
            making.rename(target)
        return target


def apptainer() -> Apptainer:
    """An Apptainer that works here; tests without one are skipped with what it says."""
    try:
        found = Apptainer(fetch_apptainer())
    except PackagesError as error:
        missing("apptainer", str(error))
    argv = [str(found.program), "exec", *found.arguments, str(found.sif("bare")), "true"]
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if answer.returncode:
        missing("apptainer", f"Apptainer does not run containers here: {answer.stderr}")
    return found


def enroot_programs(found: Apptainer, folder: Path) -> Path:
    """A folder with ``enroot`` and ``srun`` that stand for NVIDIA's enroot and for Slurm's with pyxis."""
    folder.mkdir()
    for name in ("enroot", "srun"):
        words = f"{sys.executable} {Path(__file__).with_name('enroot_standin.py')} {folder} {found.program} {name}"
        (folder / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
