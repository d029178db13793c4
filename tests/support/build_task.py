"""A task with a repository and a package, for tests of `hpc-agent build`."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from container_site import ContainerSite

from hpc_agent.domain.ids import TaskId

SCRIPT = """
import os, sys
import alpha
from lib import helper
print("RAN", alpha.VERSION, helper.NAME, os.getcwd(), sys.prefix, sys.flags.optimize, sys.argv[1:])
print("GPUS", os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CLEARML_LOG_LEVEL"))
"""


def make_wheels(folder: Path) -> Path:
    """A folder with one package."""
    info = "alpha-1.0.dist-info"
    with zipfile.ZipFile(folder / "alpha-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("alpha.py", "VERSION = '1.0'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def make_repository(folder: Path) -> Path:
    (folder / "src" / "lib").mkdir(parents=True)
    (folder / "src" / "main.py").write_text(SCRIPT)
    (folder / "src" / "lib" / "__init__.py").touch()
    (folder / "src" / "lib" / "helper.py").write_text("NAME = 'helper'\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def make_task(site: ContainerSite, repository: Path) -> TaskId:
    return site.task(
        "",
        repository=f"file://{repository}",
        branch="main",
        working_dir="src",
        entry_point="main.py",
        requirements={"pip": "alpha==1.0\n"},
    )
