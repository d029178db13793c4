"""The embedded server as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ports import free_port
from waiting import HANG_S


@dataclass(frozen=True)
class ClearmlServer:
    """A running ``hpc-agent server``; ``conf`` is the clearml.conf that lets clients in."""

    url: str
    conf: Path
    data_dir: Path
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def env(self) -> dict[str, str]:
        """This process's environment without ClearML's own variables, but for the one that names ``conf``."""
        return {**_without_clearml(), "CLEARML_CONFIG_FILE": str(self.conf)}

    @classmethod
    def start(cls, data_dir: Path, *flags: str, port: int = 0) -> ClearmlServer:
        """Returns when it listens; its caller must end it."""
        data_dir.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "hpc_agent", "server", "--port", str(port), "--data-dir", str(data_dir), *flags],
            # No user's clearml.conf may reach the server under test.
            env={**_without_clearml(), "HOME": str(data_dir)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Listening on "):
            process.kill()
            raise RuntimeError(f"hpc-agent server did not start: {line or process.wait()}")
        return cls(line.split()[-1], data_dir / "clearml.conf", data_dir, process)

    def stop(self) -> int:
        """End it as an operator would; returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(HANG_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _without_clearml() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_"))}
