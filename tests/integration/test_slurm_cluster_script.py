"""scripts/slurm-cluster, as a person uses it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster.layout import GPUS_PER_NODE, Cluster
from slurm_cluster.releases import SUITES, VERSION_VARIABLE
from waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm-cluster"


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(argv, text=True, capture_output=True, timeout=120, check=False, env={**os.environ, **environ})


@pytest.mark.slurm
def test_a_second_cluster_runs_at_the_same_time_as_the_first_and_stops_without_it(
    slurm_cluster: Any, tmp_path: Path
) -> None:
    folder = ("--dir", str(tmp_path / "c"))
    try:
        started = call("start", *folder)
        assert started.returncode == 0, started.stderr
        assert started.stdout.startswith(f"export SLURM_CONF={tmp_path}/c/slurm.conf")
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
def test_a_node_that_the_backfill_scheduler_plans_is_up(slurm_cluster: Any) -> None:
    """A job waits for both nodes while another holds one of them: the other is called planned, not idle."""
    state = "planned" if Cluster(slurm_cluster.dir).version >= (21, 8) else "idle"
    common = ("sbatch", "--parsable", "--partition=main", f"--gres=gpu:{GPUS_PER_NODE}", "--time=5")
    holder = slurm_cluster.run(*common, "--nodelist=n2", "--wrap=sleep 300").strip()
    waiter = slurm_cluster.run(*common, "--nodes=2", "--nodelist=n2,n3", "--wrap=true").strip()
    try:
        wait_until(f"n3 to be {state}", lambda: state in slurm_cluster.run("sinfo", "-h", "-n", "n3", "-o", "%T"))
        status = call("status", "--dir", str(slurm_cluster.dir))
        assert status.returncode == 0, status.stdout
    finally:
        slurm_cluster.run("scancel", holder, waiter)


@pytest.mark.slurm
def test_a_port_that_another_program_takes_meanwhile_is_replaced(slurm_cluster: Any, tmp_path: Path) -> None:
    """``--no-accounting``: only munged starts between the choice of the ports and slurmctld."""
    folder = ("--dir", str(tmp_path / "c"))
    ports = tmp_path / "c" / "ports.json"
    with socket.socket() as other, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(call, "start", "--no-accounting", *folder)
        try:
            wait_until("the choice of ports", lambda: ports.exists() and ports.read_text().endswith("}"))
            other.bind(("", json.loads(ports.read_text())["n3"]))
            other.listen()
            started = starting.result()
            assert started.returncode == 0, started.stderr
            assert "Another program took a port meanwhile" in started.stderr
            assert json.loads(ports.read_text())["n3"] != other.getsockname()[1]
        finally:
            starting.result()
            call("stop", *folder)


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


@pytest.mark.parametrize("version", [*SUITES])
@pytest.mark.slurm
def test_another_version_is_fetched_and_runs_together_with_the_machines_own(
    slurm_cluster: Any, tmp_path: Path, version: str
) -> None:
    folder = ("--dir", str(tmp_path / "c"))
    try:
        started = call("start", "--slurm", version, *folder)
        assert started.returncode == 0, started.stderr
        script = (
            f"{started.stdout}\nsinfo --version; sbatch --wait -Q -o {tmp_path}/out --wrap 'squeue --version; exit 3'"
        )
        job = subprocess.run(["bash", "-c", script], text=True, capture_output=True, timeout=60, check=False)
        assert job.returncode == 3, job.stderr
        assert job.stdout.startswith(f"slurm-wlm {version}.")
        assert (tmp_path / "out").read_text() == job.stdout
        assert json.loads(call("status", *folder, "--json").stdout)["slurm"] == version
        other = call("start", "--slurm", next(other for other in SUITES if other != version), *folder)
        assert other.returncode == 1
        assert f"runs Slurm {version}: choose another --dir" in other.stderr
    finally:
        stopped = call("stop", *folder)
    assert stopped.returncode == 0, stopped.stderr


def test_a_version_that_debian_does_not_have_is_refused(tmp_path: Path) -> None:
    answer = call("start", "--slurm", "19.05", "--dir", str(tmp_path))
    assert answer.returncode == 2
    assert "20.11" in answer.stderr


def test_a_version_that_cannot_be_fetched_is_said(tmp_path: Path) -> None:
    nowhere = {"HPC_AGENT_DEBIAN_MIRROR": "http://127.0.0.1:9/debian", "HPC_AGENT_DEBIAN_CACHE": str(tmp_path / "v")}
    answer = call("start", "--slurm", "24.11", "--dir", str(tmp_path / "c"), **nowhere)
    assert answer.returncode == 1
    assert "apt-get update failed" in answer.stderr
    assert not (tmp_path / "v" / "slurm-versions" / "24.11" / "version").exists()


@pytest.mark.slurm
def test_a_cluster_may_do_without_accounting(slurm_cluster: Any, tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path / "c"))
    try:
        started = call("start", "--no-accounting", *folder)
        assert started.returncode == 0, started.stderr
        status = json.loads(call("status", *folder, "--json").stdout)
        assert (status["healthy"], status["accounting"]) == (True, False)
        assert "slurmdbd" not in status["daemons"]
    finally:
        call("stop", *folder)


@pytest.mark.slurm
def test_a_slurmdbd_that_does_not_work_costs_accounting_and_not_the_cluster(slurm_cluster: Any, tmp_path: Path) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "slurmdbd").write_text("#!/bin/sh\necho 'fatal: no such database' >&2; exit 1\n")
    (broken / "slurmdbd").chmod(0o755)
    folder = ("--dir", str(tmp_path / "c"))
    own = [folder for folder in os.environ["PATH"].split(os.pathsep) if "slurm-versions" not in folder]
    environ = {"PATH": os.pathsep.join([str(broken), *own]), VERSION_VARIABLE: ""}
    try:
        started = call("start", *folder, **environ)
        assert started.returncode == 0, started.stderr
        assert "fatal: no such database" in started.stderr
        assert "runs without accounting" in started.stderr
        assert json.loads(call("status", *folder, "--json", **environ).stdout)["accounting"] is False
    finally:
        call("stop", *folder, **environ)


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    # With an empty PATH at least squeue's and sinfo's folder is gone.
    answer = call("start", "--dir", str(tmp_path), PATH=str(tmp_path), **{VERSION_VARIABLE: ""})
    assert answer.returncode == 4
    assert "sinfo" in answer.stderr
    assert "apt install" in answer.stderr


@pytest.mark.slurm
def test_a_folder_with_too_long_a_path_is_refused(slurm_cluster: Any, tmp_path: Path) -> None:
    answer = call("start", "--dir", str(tmp_path / ("x" * 100)))
    assert answer.returncode == 1
    assert "too long" in answer.stderr


@pytest.mark.parametrize("name", ["two words", "a:b"])
def test_a_folder_in_which_versions_cannot_run_is_refused_before_they_are_fetched(tmp_path: Path, name: str) -> None:
    versions = tmp_path / name
    answer = call("start", "--slurm", "24.11", "--dir", str(tmp_path / "c"), HPC_AGENT_DEBIAN_CACHE=str(versions))
    assert answer.returncode == 1
    assert "choose another folder with HPC_AGENT_DEBIAN_CACHE" in answer.stderr
    assert not versions.exists()


@pytest.mark.parametrize(("action", "code"), [("status", 3), ("stop", 0)])
def test_where_no_cluster_was_started_nothing_is_fetched_to_say_so(tmp_path: Path, action: str, code: int) -> None:
    answer = call(action, "--slurm", "24.11", "--dir", str(tmp_path / "c"), HPC_AGENT_DEBIAN_CACHE=str(tmp_path / "v"))
    assert answer.returncode == code
    assert "no cluster was started in" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = call("start", "--dir", str(tmp_path / "file" / "c"))
    assert answer.returncode == 1
    assert answer.stderr == f"slurm-cluster: {tmp_path}/file/c/slurm: Not a directory\n"
