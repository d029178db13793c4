"""Ranks in containers: each gets its own variables, through a runtime that keeps the node's out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hpc_agent.containers import start_script
from hpc_agent.containers.rank_variables import passing_on
from hpc_agent.containers.start_script import StartScript

CLEAN = ["env", "-i", "PATH=/usr/bin:/bin"]
"""As a runtime starts its containers."""


def test_a_rank_finds_its_own_variables_and_none_of_the_node(tmp_path: Path) -> None:
    # One start script for all ranks of a node, with what the node agent has.
    start = StartScript("/", ["env"], {"RANK": "0", "WORD": "two words", "SLURM_PROCID": "0"}, setup=["echo $#"])
    (tmp_path / "start").write_text(start_script.script(start, "image"))
    argv = passing_on([*CLEAN, *start_script.command(str(tmp_path / "start"))])
    for rank in ("0", "3"):
        environ = {
            "PATH": "/usr/bin:/bin",
            "RANK": rank,
            "MASTER_ADDR": "n1 with space",
            "SLURM_PROCID": rank,
            "SLURM_STEP_NODELIST": "n[1-2]",
            "PMIX_RANK": rank,
            "SLURMD_NODENAME": "n2",
            "SECRET": "x",
            "BRANK": "x",
        }
        printed = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
        assert {f"RANK={rank}", f"SLURM_PROCID={rank}", f"PMIX_RANK={rank}", "MASTER_ADDR=n1 with space"} <= set(
            printed
        )
        assert {"WORD=two words", "SLURM_STEP_NODELIST=n[1-2]", "SLURMD_NODENAME=n2"} <= set(printed)
        assert not [line for line in printed if line.startswith(("SECRET", "BRANK"))]
        # The set-up script of the task finds no arguments.
        assert printed[0] == "0"


def test_the_sites_network_interface_is_for_tasks_that_name_none(tmp_path: Path) -> None:
    start = StartScript("/", ["env"], {"GLOO_SOCKET_IFNAME": "eth9"})
    (tmp_path / "start").write_text(start_script.script(start, "image"))
    argv = passing_on([*CLEAN, *start_script.command(str(tmp_path / "start"))])
    environ = {"PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "ib0"}
    printed = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"GLOO_SOCKET_IFNAME=eth9", "NCCL_SOCKET_IFNAME=ib0"} <= set(printed)


def test_without_ranks_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "start").write_text(start_script.script(StartScript("/", ["echo", "ran"]), "image"))
    argv = passing_on([*CLEAN, *start_script.command(str(tmp_path / "start"))])
    assert (
        subprocess.run(argv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True).stdout
        == "ran\n"
    )
