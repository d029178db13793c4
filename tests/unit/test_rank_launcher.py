"""Rank launcher: the variables of a rank, by each way to start it, and its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_agent import rank_launcher
from hpc_agent.rank_launcher import RANK, SINGLE, STARTER, environment

SCHEDULER = ("PROCID", "LOCALID")
RECORD: dict[str, Any] = {
    "node": "n2",
    "index": 1,
    "nodes": 2,
    "ranks_per_node": 2,
    "set": {"PATH": "/env/bin:/bin", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20001", "WORLD_SIZE": "4"},
    "unset": ["PYTHONHOME"],
}


def test_a_rank_of_the_schedulers_step() -> None:
    found = environment({"PROCID": "3", "LOCALID": "1", "PYTHONHOME": "/x", "A": "b"}, RECORD, SCHEDULER, RANK)
    assert found == {
        "PROCID": "3",
        "LOCALID": "1",
        "A": "b",
        "PATH": "/env/bin:/bin",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "20001",
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "NNODES": "2",
        "CLEARML_MULTI_NODE_SINGLE_TASK": "-1",
    }


def test_the_first_rank_of_a_node_reports_its_use() -> None:
    record = {**RECORD, "set": {"CLEARML_MULTI_NODE_SINGLE_TASK": "2"}}
    found = environment({"PROCID": "2", "LOCALID": "0"}, record, SCHEDULER, RANK)
    assert found["CLEARML_MULTI_NODE_SINGLE_TASK"] == "2"


def test_torchruns_own_variables_hold() -> None:
    own = {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "31000"}
    inherited = {"TORCHELASTIC_RUN_ID": "none", "PROCID": "1", "LOCALID": "0", **own}
    found = environment(inherited, RECORD, SCHEDULER, RANK)
    assert {name: found[name] for name in own} == own
    assert found["MASTER_ADDR"] == "10.0.0.1"


def test_open_mpis_variables_are_translated() -> None:
    mpi = {"RANK": "3", "LOCAL_RANK": "1", "SIZE": "4", "LOCAL_SIZE": "2"}
    inherited = {f"OMPI_COMM_WORLD_{name}": value for name, value in mpi.items()}
    found = environment({**inherited, "PROCID": "0"}, RECORD, SCHEDULER, RANK)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    assert [found[name] for name in names] == ["3", "1", "4", "2"]


@pytest.mark.parametrize("mode", [SINGLE, STARTER])
def test_what_is_not_a_rank_gets_no_rank(mode: str) -> None:
    found = environment({"PROCID": "1", "LOCALID": "0"}, RECORD, SCHEDULER, mode)
    assert "RANK" not in found and "LOCAL_RANK" not in found
    assert found["MASTER_ADDR"] == "10.0.0.1"


def launched(folder: Path, mode: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", rank_launcher.__file__, str(folder), f"{folder}-at-", "NODE", *SCHEDULER, mode]
    return subprocess.run(argv, env={**os.environ, **env}, text=True, capture_output=True, timeout=60, check=False)


def prepared(folder: Path, argv: list[str]) -> None:
    folder.mkdir()
    record = {**RECORD, "folder": str(folder), "cwd": str(folder), "argv": argv, "starter": argv}
    (folder / rank_launcher.RECORD).write_text(json.dumps(record))


def test_it_becomes_the_program_in_its_folder(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['RANK'])"
    prepared(tmp_path / "work", [sys.executable, "-c", code])
    done = launched(tmp_path / "work", RANK, NODE="n2", PROCID="2", LOCALID="0")
    assert (done.stdout, done.returncode) == (f"{tmp_path}/work 2\n", 0), done.stderr


def test_on_a_shared_disk_each_node_has_a_folder(tmp_path: Path) -> None:
    prepared(tmp_path / "work", ["/bin/echo", "another node's"])
    prepared(tmp_path / "work.n2", ["/bin/echo", "its own"])
    assert launched(tmp_path / "work", SINGLE, NODE="n2").stdout == "its own\n"


def test_a_node_with_its_disk_elsewhere_is_found(tmp_path: Path) -> None:
    prepared(tmp_path / "elsewhere", ["/bin/echo", "its own"])
    (tmp_path / "work-at-n2").write_text(str(tmp_path / "elsewhere"))
    assert launched(tmp_path / "work", SINGLE, NODE="n2").stdout == "its own\n"


def test_a_node_that_is_not_prepared_is_named(tmp_path: Path) -> None:
    prepared(tmp_path / "work", ["/bin/true"])
    done = launched(tmp_path / "work", RANK, NODE="n3")
    assert done.returncode == 1 and "node n3 has not been prepared" in done.stderr


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    prepared(tmp_path / "work", ["/no/such/program"])
    done = launched(tmp_path / "work", SINGLE, NODE="n2")
    assert done.returncode == 127 and "/no/such/program cannot be started" in done.stderr
