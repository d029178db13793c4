"""Messages of node agents: one line each, short enough to arrive whole."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from hpc_agent.errors import InputError
from hpc_agent.executor import node_messages
from hpc_agent.executor.node_messages import LONGEST_LINE, NodeMessage
from hpc_agent.executor.rendezvous import free_port, master_address
from hpc_agent.runs import node_files
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import RankFailure
from hpc_agent.schedulers.slurm.backend import BACKEND
from hpc_agent.schedulers.slurm.job_steps import SlurmJobSteps
from hpc_agent.schedulers.slurm.settings import SlurmSettings


@pytest.mark.parametrize("text", ["", "RuntimeError: boom", "ä€😀" * 400, "a\nb" * 300, '"\\' * 500, "\x00\x1b" * 400])
def test_a_message_is_one_short_line(text: str) -> None:
    message = NodeMessage(kind="ended", index=1, node="n2", rank=3, text=text)
    line = message.encode()
    assert len(line) <= LONGEST_LINE and line.count(b"\n") == 1
    decoded = node_messages.decode(line)
    assert decoded is not None and (decoded.kind, decoded.rank) == ("ended", 3)
    assert decoded.text[:5] == " ".join(text.split())[:5]


def test_other_lines_are_not_messages() -> None:
    assert node_messages.decode(b"Welcome to n2\n") is None
    assert node_messages.decode(b"\xff\xfe\n") is None


# ---------------------------------------------------------------- rendezvous


def test_the_address_is_that_of_the_interface() -> None:
    assert master_address("n1", "lo").startswith("127.")
    with pytest.raises(InputError, match=r"hpc\.many_nodes\.interface is nosuch0, which n1 does not have"):
        master_address("n1", "nosuch0")


def test_a_name_that_leads_to_the_loopback_is_not_given_to_other_nodes() -> None:
    others = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    assert master_address("localhost", "") in (others or ["127.0.0.1"])
    assert master_address("no-such-host.invalid", "") in (others or ["127.0.0.1"])


def test_jobs_side_by_side_get_different_ports_and_none_that_is_taken() -> None:
    ports = range(20000, 30000)
    found = [free_port(ports, job) for job in range(700, 720)]
    assert len(set(found)) == len(found)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(range(port, port + 50), 0) != port
        with pytest.raises(InputError, match="none of the ports"):
            free_port(range(port, port + 1), 7)


# ---------------------------------------------------------------- files


def test_consoles_of_nodes_are_found_by_node_and_start(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for start, node in ((1, 0), (0, 0), (0, 1), (0, None)):
        node_files.console(directory, start, node).text.touch()
    found = [[files.text.name for files in of_node] for of_node in node_files.consoles(directory)]
    assert found == [["console.n0.log", "console.1.n0.log"], ["console.n1.log"]]
    assert [files.text.name for files in directory.consoles()] == ["console.log"]
    assert node_files.console(directory, 1, 0).mark.name == "console.1.n0.offset"


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("step", "expected"), [(None, False), ("", False), ("-5", False), ("4294967291", False), ("0", True), ("12", True)]
)
def test_the_jobs_script_is_not_a_step(step: str | None, expected: bool) -> None:
    environ = {"SLURM_JOB_ID": "7", **({} if step is None else {"SLURM_STEP_ID": step})}
    variables = BACKEND.job_variables(environ)
    assert variables is not None and variables.in_step is expected


FAILED = """\
srun: error: n2: task 3: Exited with exit code 7
srun: launch/slurm: _step_signal: Terminating StepId=5.2
slurmstepd-n1: error: *** STEP 5.2 ON n1 CANCELLED AT 2026-11-26T23:54:48 ***
srun: error: n2: task 2: Terminated
srun: error: n1: tasks 0-1: Terminated
srun: Force Terminated StepId=5.2
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FAILED, RankFailure("n2", 3, 7)),
        ("srun: error: n2: task 2: Killed\n", RankFailure("n2", 2, -9)),
        ("srun: error: n2: task 2: Out Of Memory\n", RankFailure("n2", 2, -9)),
        ("srun: error: n1: tasks 0-1,3: Segmentation fault (core dumped)\n", RankFailure("n1", 0, -11)),
        (
            "[n1:1] x\nsrun: error: n1: task 1: Aborted\nsrun: error: n2: task 2: Exited with exit code 1\n",
            RankFailure("n1", 1, -6),
        ),
        ("srun: error: n1: tasks 0-1: Terminated\n", None),
        ("", None),
    ],
)
def test_the_first_rank_that_failed(text: str, expected: RankFailure | None) -> None:
    assert SlurmJobSteps(SlurmSettings(), {}).first_failure(text) == expected


def test_ranks_share_the_cpus_of_their_node() -> None:
    steps = SlurmJobSteps(SlurmSettings(srun_args=("--mpi=pmix",)), {"SLURM_CPUS_PER_TASK": "8"})
    argv = steps.ranks(["program"], 2, 3)
    assert {"--ntasks=6", "--ntasks-per-node=3", "--cpus-per-task=2", "--mpi=pmix"} < set(argv)
    assert "--overcommit" not in argv and argv[-1] == "program"
    assert "--overcommit" in steps.ranks(["program"], 2, 9)


def test_variables_of_one_process_are_known() -> None:
    steps = SlurmJobSteps(SlurmSettings(), {})
    own = {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID", "SLURM_NTASKS", "PMI_RANK", "PMIX_RANK"}
    kept = {"SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME", "SLURM_CPUS_PER_TASK", "SLURM_TMPDIR"}
    assert set(steps.of_one_process(dict.fromkeys(own | kept, "1"))) == own


def test_ranks_that_slurm_could_not_start_are_named_before_those_that_it_ended_for_that() -> None:
    text = (
        "srun: error: Task launch for StepId=7.1 failed on node n2: Job credential expired\n"
        "srun: error: Application launch failed: Job credential expired\n"
        "srun: error: n1: task 0: Killed\n"
    )
    steps = SlurmJobSteps(SlurmSettings(), {})
    assert steps.scheduler_failure(text) == "Slurm could not start the ranks on n2: Job credential expired"
    assert steps.scheduler_failure("srun: error: n1: task 0: Killed\n") == ""


LATE = "slurmstepd-n1: error: *** STEP 10.1 ON n1 CANCELLED AT 2026-11-27T20:46:46{why} ***\n"
NEWEST = "[2026-11-27T20:46:46.395] error: *** STEP 10.1 ON n1 CANCELLED AT 2026-11-27T20:46:46 DUE to SIGNAL {} ***\n"
"""26.05."""
TERMINATED = "srun: error: n2: tasks 1-2: Terminated\nsrun: Force Terminated StepId=10.1\n"


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (LATE.format(why="") + TERMINATED, "n1"),
        (NEWEST.format("Terminated") + TERMINATED, "n1"),
        (NEWEST.format("Killed") + "srun: error: n1: task 0: Killed\n", "n1"),
        (TERMINATED, "n2"),
        (LATE.format(why="") + "srun: error: n1: task 0: Exited with exit code 3\n", "n1"),
        (LATE.format(why=" DUE TO JOB REQUEUE"), ""),
        (LATE.format(why=" DUE TO TASK FAILURE"), ""),  # 26.05: another rank has failed
        (FAILED, ""),
        ("srun: error: n1: task 0: Killed\n" + LATE.format(why="") + TERMINATED, ""),
        ("", ""),
    ],
)
def test_a_step_that_slurm_ended_by_a_request_for_an_earlier_start_of_its_job(text: str, node: str) -> None:
    found = SlurmJobSteps(SlurmSettings(), {"SLURM_RESTART_COUNT": "1"}).scheduler_failure(text)
    assert found.startswith(f"Slurm ended the step of the task's processes on {node} while" if node else "")
    assert bool(found) is bool(node)
    for first in ({}, {"SLURM_RESTART_COUNT": "0"}):
        assert SlurmJobSteps(SlurmSettings(), first).scheduler_failure(text) == ""
