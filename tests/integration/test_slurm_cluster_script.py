"""scripts/slurm-cluster, as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm-cluster"


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(argv, text=True, capture_output=True, timeout=120, check=False, env={**os.environ, **environ})


@pytest.mark.slurm
def test_a_second_cluster_lives_beside_the_first_and_stops_without_it(slurm_cluster: Any, tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path / "c"))
    try:
        started = call("start", *folder)
        assert started.returncode == 0, started.stderr
        assert started.stdout == f"export SLURM_CONF={tmp_path}/c/slurm.conf\n"
        assert "slurmctld: starting … " in started.stderr

        again = call("start", *folder, "--json")
        assert "slurmctld: runs already" in again.stderr
        assert json.loads(again.stdout)["env"] == {"SLURM_CONF": f"{tmp_path}/c/slurm.conf"}

        assert call("status", *folder).returncode == 0
        assert call("stop", "n2", *folder).returncode == 0
        status = call("status", *folder)
        assert status.returncode == 3
        assert "n2          not running" in status.stdout
    finally:
        stopped = call("stop", *folder)
    assert stopped.returncode == 0, stopped.stderr
    assert not any(json.loads(call("status", *folder, "--json").stdout)["daemons"].values())
    assert "n1" in slurm_cluster.run("sinfo", "-h", "-N")


@pytest.mark.slurm
def test_a_daemon_that_cannot_start_is_named_with_the_end_of_its_log(slurm_cluster: Any, tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path / "c"))
    try:
        (tmp_path / "c" / "munge").mkdir(parents=True)
        (tmp_path / "c" / "munge" / "key").write_text("too short")
        started = call("start", *folder)
    finally:
        call("stop", *folder)
    assert started.returncode == 1
    assert "munged ended at once" in started.stderr
    assert "munge/key" in started.stderr


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    # With an empty PATH at least squeue's and sinfo's folder is gone.
    answer = call("start", "--dir", str(tmp_path), PATH=str(tmp_path))
    assert answer.returncode == 4
    assert "sinfo" in answer.stderr
    assert "apt install" in answer.stderr


@pytest.mark.slurm
def test_a_folder_with_too_long_a_path_is_refused(slurm_cluster: Any, tmp_path: Path) -> None:
    answer = call("start", "--dir", str(tmp_path / ("x" * 100)))
    assert answer.returncode == 1
    assert "too long" in answer.stderr
