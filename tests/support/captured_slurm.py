"""What real Slurms printed: tests/data/slurm, which its README describes."""

from __future__ import annotations

from pathlib import Path

import msgspec
from slurm_captures.bench import DELIMITER, OUR_JOB
from slurm_captures.live import HOSTILE_NAMES

from hpc_agent.process.programs import CompletedProcess

__all__ = ["DELIMITER", "HOSTILE_NAMES", "OUR_JOB", "VERSIONS", "captured", "names"]

_DATA = Path(__file__).parents[1] / "data" / "slurm"
VERSIONS = sorted(path.name for path in _DATA.iterdir() if path.is_dir())


def captured(version: str, name: str) -> CompletedProcess:
    return msgspec.json.decode((_DATA / version / f"{name}.json").read_bytes(), type=CompletedProcess)


def names(version: str, prefix: str) -> list[str]:
    return sorted(path.stem for path in (_DATA / version).glob(f"{prefix}*.json"))
