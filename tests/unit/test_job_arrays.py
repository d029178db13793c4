"""Job arrays: which scripts go together, what an element runs, and which job it is."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm.answers import QueueRow
from hpc_agent.schedulers.slurm.array_folders import ArrayFolder, ArrayFolders, is_array_name
from hpc_agent.schedulers.slurm.array_script import array_key, array_script, waiting_elements
from hpc_agent.schedulers.slurm.backend import own_job_id
from hpc_agent.schedulers.slurm.commands import ArrayRequest, sbatch
from hpc_agent.schedulers.slurm.waiting_elements import WaitingElements, of_whole_arrays

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes=1
#SBATCH --time={minutes}
# a comment

export CLEARML_CONFIG_FILE=/{name}.conf
exec agent execute --id {name}
"""


def script(name: str = "a", minutes: int = 5) -> str:
    return SCRIPT.format(name=name, minutes=minutes)


def test_scripts_that_ask_for_the_same_go_together() -> None:
    key = array_key(script("a"))
    assert key is not None
    assert key == array_key(script("b"))
    assert key != array_key(script("a", minutes=6))
    assert key != array_key(script("a").replace("/bin/bash", "/bin/sh"))


def test_what_follows_the_first_command_is_not_a_directive() -> None:
    assert array_key(script() + "#SBATCH --gpus=1\n") == array_key(script())


@pytest.mark.parametrize(
    "line", ["#SBATCH --array=0-3", "#SBATCH -a 0-3", "#SBATCH hetjob", "#BB create_persistent", "#DW jobdw"]
)
def test_scripts_of_more_than_a_job_go_alone(line: str) -> None:
    assert array_key(script().replace("# a comment", line)) is None


def test_a_job_script_without_an_interpreter_goes_alone() -> None:
    assert array_key("exec agent\n") is None


@pytest.fixture
def requests(tmp_path: Path) -> list[SubmitRequest]:
    found = []
    for name in ("job_a", "job_b"):
        folder = tmp_path / f"its 'own' {name}"
        folder.mkdir()
        path = folder / "job.sbatch"
        path.write_text(f'#!/bin/bash\necho {name} "$PWD" "$HPC_AGENT_SLURM_JOB_ID" "${{SLURM_ARRAY_TASK_ID-none}}"\n')
        found.append(SubmitRequest(path, name, folder, folder / "job.out", Resources()))
    return found


def created(folders: ArrayFolders, requests: list[SubmitRequest]) -> ArrayFolder:
    folder = folders.create()
    key = array_key(requests[0].script.read_text())
    assert key is not None
    folder.write(requests, array_script(key, folder.path, "job.sbatch"))
    return folder


def run_element(folder: ArrayFolder, index: int) -> str:
    environ = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}
    done = subprocess.run([folder.script], env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def test_an_element_runs_its_own_script_and_sees_no_array(tmp_path: Path, requests: list[SubmitRequest]) -> None:
    folder = created(ArrayFolders(tmp_path / ".arrays"), requests)
    for index, request in enumerate(requests):
        assert run_element(folder, index) == f"{request.job_name} {request.workdir} 7_{index} none\n"


def test_an_element_that_is_not_meant_any_more_does_nothing(tmp_path: Path, requests: list[SubmitRequest]) -> None:
    folders = ArrayFolders(tmp_path / ".arrays")
    folder = created(folders, requests)
    folders.drop("job_b")
    assert run_element(folder, 1) == ""
    assert [ArrayFolders(tmp_path / ".arrays").elements(name) for name in ("job_b", "job_c")] == [[], []]
    [element] = ArrayFolders(tmp_path / ".arrays").elements("job_a")
    assert (element.array, element.index) == (folder.name, 0)


def test_an_elements_own_name_is_read_by_each_process(tmp_path: Path, requests: list[SubmitRequest]) -> None:
    folders = ArrayFolders(tmp_path / ".arrays")
    folder = created(folders, requests)
    for process in (folders, ArrayFolders(tmp_path / ".arrays")):
        assert process.job_name(folder.name, JobId("7_1")) == "job_b"
        assert process.job_name(folder.name, JobId("7_2")) is None
        assert process.job_name(folder.name, JobId("7_[0-1]")) is None
        assert process.job_name("clearml_array_0123456789abcdef", JobId("7_1")) is None
        assert process.job_name("clearml_array_../../etc", JobId("7_1")) is None
    assert is_array_name(folder.name)


def test_the_output_of_each_element_is_in_its_own_folder() -> None:
    request = ArrayRequest(
        Path("/a%b/s"), "clearml_array_1", Path("/a%b"), Path("job.out"), Resources(), elements=3, running=2
    )
    argv = sbatch(request)
    assert "--array=0-2%2" in argv
    assert "--output=/a%%b/%a/job.out" in argv


@pytest.mark.parametrize(
    ("row", "elements"),
    [
        ("7_[2-4,6%1]", ["7_2", "7_3", "7_4", "7_6"]),
        ("7_[0]", ["7_0"]),
        ("7_3", []),
        ("7_[1,3,5,...]", []),
        ("7_[0-9:2]", []),
    ],
)
def test_elements_of_a_row(row: str, elements: list[str]) -> None:
    assert waiting_elements(row) == elements


def row(job: str, word: str) -> QueueRow:
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    return QueueRow(JobId(job), word, 0, at, None, None, None, "", "", "clearml_array_x")


class TestCancelledWhileItWaited:
    """A record that Slurm does not keep."""

    clock = ManualClock()

    def records(self, listed: list[QueueRow], later: list[QueueRow], *, seconds: float = 5) -> dict[JobId, JobRecord]:
        waiting = WaitingElements(self.clock)
        waiting.note(listed)
        self.clock.advance(seconds)
        return waiting.cancelled([JobId("7_1")], later, 300)

    def test_one_that_is_gone_while_others_of_its_array_are_known(self) -> None:
        [record] = self.records([row("7_1", "PENDING"), row("7_2", "PENDING")], [row("7_2", "PENDING")]).values()
        assert (record.id, record.state, record.name) == ("7_1", JobState.CANCELLED, "clearml_array_x")

    def test_one_that_was_seen_to_run_may_have_ended_in_any_way(self) -> None:
        assert not self.records([row("7_1", "RUNNING")], [row("7_2", "PENDING")])

    def test_one_with_a_row_of_its_own_that_the_caller_did_not_take(self) -> None:
        assert not self.records([row("7_1", "PENDING")], [row("7_1", "COMPLETED"), row("7_2", "PENDING")])

    def test_one_whose_array_is_not_known_any_more(self) -> None:
        assert not self.records([row("7_1", "PENDING")], [row("8_1", "PENDING"), row("7", "PENDING")])

    def test_one_that_the_controller_may_have_forgotten(self) -> None:
        assert not self.records([row("7_1", "PENDING")], [row("7_2", "PENDING")], seconds=290)


def test_the_row_of_a_cancelled_array_is_that_of_each_element_that_never_started() -> None:
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    ran = JobRecord(JobId("7_0"), JobState.COMPLETED, "COMPLETED", submitted=at)
    rest = JobRecord(JobId("7"), JobState.CANCELLED, "CANCELLED by 1000", submitted=at)
    records = [(JobId("8"), ran), (JobId("7"), rest)]
    jobs = dict.fromkeys(map(JobId, ("7_0", "7_1", "9_0")), at)
    found = newest([*of_whole_arrays(records, jobs), *records], jobs)
    assert {job: record.state for job, record in found.items()} == {
        "7_0": JobState.COMPLETED,
        "7_1": JobState.CANCELLED,
    }


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.COMPLETED, JobState.CANCELLED])
def test_a_row_of_an_element_whose_index_is_not_known_yet_is_none_of_all(state: JobState) -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    one = JobRecord(JobId("7"), state, state.value, submitted=at, nodes="n1")
    jobs = dict.fromkeys(map(JobId, ("7_0", "7_1")), at)
    assert of_whole_arrays([(JobId("7"), one)], jobs) == []


def test_an_element_of_ours_knows_its_id() -> None:
    assert own_job_id({"HPC_AGENT_SLURM_JOB_ID": "7_3", "SLURM_JOB_ID": "10"}) == "7_3"
