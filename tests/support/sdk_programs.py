"""Programs that use the real clearml SDK, and ClearML's own commands, against the embedded server."""

from __future__ import annotations

import json
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import HANG_S


@dataclass(frozen=True)
class SdkPrograms:
    """``peers``: the folder of the programs; ``env`` names the server; they run in ``home``."""

    peers: Path
    env: dict[str, str]
    home: Path

    def __call__(self, text: str) -> dict[str, Any]:
        """Run a program; returns the JSON of its last line that begins with ``{``."""
        (self.home / "program.py").write_text(textwrap.dedent(text), encoding="utf-8")
        lines = [line for line in self.command("python", "program.py").splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def command(self, *argv: str) -> str:
        """What one of ClearML's commands, or Python, prints."""
        ended = subprocess.run(
            [self.peers / argv[0], *argv[1:]],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10 * HANG_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout
