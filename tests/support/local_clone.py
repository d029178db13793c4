"""A real git clone on this machine, with one commit that its remote has too."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]


@dataclass(frozen=True)
class Clone:
    """``train.py``, ``src/deep.py`` (which begins with a ``__future__`` import), ``run.sh``, ``note.ipynb``,
    ``requirements.txt``, all pushed to ``remote``, a bare repository."""

    root: Path
    remote: Path

    @classmethod
    def make(cls, folder: Path) -> Clone:
        clone = cls(folder / "code", folder / "code.git")
        clone.git("init", "--quiet", "--bare", str(clone.remote), cwd=folder)
        clone.git("clone", "--quiet", str(clone.remote), str(clone.root), cwd=folder)
        (clone.root / "src").mkdir()
        clone.write("train.py", "print(1)\n")
        clone.write("src/deep.py", "from __future__ import annotations\n")
        clone.write("run.sh", "echo 1\n")
        clone.write("note.ipynb", '{"cells": []}\n')
        clone.write("requirements.txt", "numpy\n")
        clone.git("add", ".")
        clone.git("commit", "--quiet", "-m", "one")
        clone.git("push", "--quiet", "-u", "origin", "main")
        return clone

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        argv = ["git", *IDENTITY, *arguments]
        done = subprocess.run(argv, cwd=cwd or self.root, env=clean, text=True, capture_output=True, check=True)
        return done.stdout.strip()

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
