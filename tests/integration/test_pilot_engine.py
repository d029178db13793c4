"""The program of a pilot on a real board, with real processes; the batch system gives no answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from waiting import contains, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import Slot
from hpc_agent.schedulers.pilots.board import PilotTask, StopCause, TaskBoard, TaskEnd

PYTHON = sys.executable
ONE_CPU = Slot()
GATE = "import os\nfrom hpc_agent.schedulers.pilots.gate import wait_at_gate\n"
TERM_IS_NOTED = "trap 'echo got TERM; exit 7' TERM; echo begun; while :; do sleep 0.1; done"


@dataclass
class Pilots:
    folder: Path
    board: TaskBoard
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, *, cpus: int = 1, memory: int = 0, gpus: str = "", idle: float = 60, time_limit: int = 600
    ) -> subprocess.Popen[bytes]:
        """A pilot as a job's script starts it."""
        job = str(len(self.started) + 1)
        words = {
            "--board": self.folder / "board",
            "--news": self.folder / "news",
            "--queue": "q",
            "--cluster": "c",
            "--since": SYSTEM.now().isoformat(),
            "--cpus": cpus,
            "--memory": memory,
            "--gpus": len(gpus.split(",")) if gpus else 0,
            "--time-limit": time_limit,
            "--task-limit": 60,
            "--idle-time": idle,
            "--grace": 3,
        }
        argv = [PYTHON, "-m", "hpc_agent", "pilot", *(str(word) for pair in words.items() for word in pair)]
        # squeue is not there: what is left of the allocation follows from its time limit.
        own = {"SLURM_JOB_ID": job, "CUDA_VISIBLE_DEVICES": gpus, "PATH": f"{Path(PYTHON).parent}:/usr/bin:/bin"}
        with (self.folder / f"pilot-{job}.log").open("wb") as log:
            child = subprocess.Popen(argv, env={**os.environ, **own}, cwd=self.folder, stdout=log, stderr=log)
        self.started.append(child)
        return child

    def add(
        self, body: str, *, slot: Slot = ONE_CPU, limit: int = 60, queue: str = "q", interpreter: str = "/bin/bash"
    ) -> int:
        number = len(list(self.folder.glob("*.sh")))
        script = self.folder / f"{number}.sh"
        script.write_text(f"#!{interpreter}\n{body}\n")
        script.chmod(0o700)
        words = (f"job-{number}", queue, str(script), str(self.folder), str(self.folder / f"{number}.out"))
        return self.board.add(PilotTask(*words, slot, limit, SYSTEM.now()))

    def output(self, number: int) -> str:
        file = self.folder / f"{number}.out"
        return file.read_text() if file.exists() else ""

    def end(self, number: int) -> TaskEnd:
        return wait_until(f"the end of {number}", lambda: self.board.end(number))


@pytest.fixture
def pilots(tmp_path: Path) -> Iterator[Pilots]:
    found = Pilots(tmp_path, TaskBoard(tmp_path / "board"))
    try:
        yield found
    finally:
        for child in found.started:
            child.kill()
            child.wait()


def test_tasks_run_one_after_the_other_in_their_order(pilots: Pilots) -> None:
    numbers = [pilots.add(f"echo {n} >> order; sleep 0.2; exit {n}") for n in range(4)]
    pilots.start()
    ends = [pilots.end(number) for number in numbers]
    assert (pilots.folder / "order").read_text().split() == ["0", "1", "2", "3"]
    assert [end.exit_code for end in ends] == [0, 1, 2, 3]
    assert (pilots.folder / "news" / "pilot.1").exists()
    assert [end.state for end in ends] == [JobState.COMPLETED, *[JobState.FAILED] * 3]


def test_tasks_run_side_by_side_each_with_gpus_of_its_own(pilots: Pilots) -> None:
    show = 'echo "$CUDA_VISIBLE_DEVICES" >> gpus; while [ ! -e go ]; do sleep 0.05; done'
    slots = [Slot(gpus=1), Slot(gpus=2), Slot(gpus=1)]
    numbers = [pilots.add(show, slot=slot) for slot in slots]
    pilots.start(cpus=8, gpus="4,5,6")
    wait_until(
        "two to run",
        lambda: (pilots.folder / "gpus").exists() and (pilots.folder / "gpus").read_text().count("\n") == 2,
    )
    assert pilots.board.claim(numbers[2]) is None
    (pilots.folder / "go").touch()
    assert all(pilots.end(number).state is JobState.COMPLETED for number in numbers)
    assert (pilots.folder / "gpus").read_text().split()[:2] in (["4", "5,6"], ["5,6", "4"])


def test_tasks_of_other_queues_and_those_that_ask_for_more_are_left_to_others(pilots: Pilots) -> None:
    others = pilots.add("true", queue="other"), pilots.add("true", slot=Slot(2)), pilots.add("true", limit=700)
    own = pilots.add("true")
    pilots.start()
    assert pilots.end(own).state is JobState.COMPLETED
    assert [pilots.board.claim(number) for number in others] == [None, None, None]


def test_of_two_pilots_one_runs_each_task(pilots: Pilots) -> None:
    numbers = [pilots.add(f"echo {n} >> runs") for n in range(12)]
    for _ in range(2):
        pilots.start(cpus=2)
    assert all(pilots.end(number).state is JobState.COMPLETED for number in numbers)
    assert sorted((pilots.folder / "runs").read_text().split(), key=int) == [str(n) for n in range(12)]


def test_a_cancelled_task_gets_term_and_the_others_go_on(pilots: Pilots) -> None:
    number, other = pilots.add(TERM_IS_NOTED), pilots.add("while [ ! -e go ]; do sleep 0.05; done")
    pilots.start(cpus=2)
    wait_until("its first line", lambda: pilots.output(number), contains("begun"))
    pilots.board.request_cancel(number)
    end = pilots.end(number)
    assert (end.state, end.exit_code) == (JobState.CANCELLED, 7)
    assert "got TERM" in pilots.output(number)
    (pilots.folder / "go").touch()
    assert pilots.end(other).state is JobState.COMPLETED


def test_a_task_that_ignores_term_at_its_time_limit_is_killed_after_the_grace(pilots: Pilots) -> None:
    number = pilots.add("trap 'echo still there' TERM; while :; do sleep 0.1; done", limit=2)
    pilots.start()
    end = pilots.end(number)
    assert (end.state, end.signal) == (JobState.TIMEOUT, signal.SIGKILL)
    assert "still there" in pilots.output(number)


def test_a_task_above_its_memory_is_killed_and_no_other(pilots: Pilots) -> None:
    large = "import time\nkeep = bytearray(300 << 20)\ntime.sleep(600)"
    number = pilots.add(large, slot=Slot(memory_mb=100), interpreter=PYTHON)
    other = pilots.add("while [ ! -e go ]; do sleep 0.05; done", slot=Slot(memory_mb=100))
    pilots.start(cpus=2, memory=200)
    assert pilots.end(number).state is JobState.OUT_OF_MEMORY
    stop = pilots.board.stop(number)
    assert stop is not None and stop.cause is StopCause.MEMORY
    (pilots.folder / "go").touch()
    assert pilots.end(other).state is JobState.COMPLETED


def test_a_pilot_that_gets_term_ends_its_tasks_as_preempted_and_starts_no_other(pilots: Pilots) -> None:
    number, waiting = pilots.add(TERM_IS_NOTED), pilots.add("true")
    pilot = pilots.start()
    wait_until("its first line", lambda: pilots.output(number), contains("begun"))
    pilot.terminate()
    assert pilot.wait(60) == 0
    end, stop = pilots.board.end(number), pilots.board.stop(number)
    assert end is not None and end.state is JobState.PREEMPTED and end.pilot == "Slurm job 1"
    assert stop is not None and stop.cause is StopCause.PILOT and stop.at <= end.at
    assert pilots.board.claim(waiting) is None


def test_with_a_pilot_that_is_killed_its_tasks_end(pilots: Pilots) -> None:
    number = pilots.add("echo $$ > pid; exec sleep 600")
    pilot = pilots.start()
    file = pilots.folder / "pid"
    pid = int(wait_until("its process", lambda: file.read_text() if file.exists() else ""))
    pilot.kill()
    wait_until("its process to end", lambda: not lives(pid))
    assert pilots.board.end(number) is None


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("idle", [0, 0.5])
def test_an_idle_pilot_ends_by_itself_when_it_has_run_what_there_was(pilots: Pilots, idle: float) -> None:
    numbers = [pilots.add("true") for _ in range(3)]
    pilot = pilots.start(idle=idle)
    assert pilot.wait(60) == 0
    assert [pilots.board.end(number) is not None for number in numbers] == [True] * 3


def test_a_pilot_whose_time_is_too_short_for_a_usual_task_says_so_and_ends(pilots: Pilots) -> None:
    number = pilots.add("true", limit=30)
    # 90 s, less a minute in which it may have started late, less the time in which tasks are stopped.
    pilot = pilots.start(time_limit=90)
    assert pilot.wait(60) == 0
    assert pilots.board.claim(number) is None
    assert pilots.board.full_pilots({"1"}) == {"1"}
    assert pilots.board.full_pilots(set()) == set()


def test_an_agent_that_was_started_ahead_asks_for_nothing_before_its_gate_opens(pilots: Pilots) -> None:
    gpus = "os.environ['CUDA_VISIBLE_DEVICES'] or 'none'"
    body = f"{GATE}print('ready', flush=True)\nif wait_at_gate():\n    print('went', {gpus})"
    first = [pilots.add("sleep 0.1") for _ in range(2)]
    block = pilots.add("while [ ! -e go ]; do sleep 0.05; done")
    ahead = pilots.add(body, interpreter=PYTHON)
    pilots.start()
    wait_until("it to be ready", lambda: pilots.output(ahead), contains("ready"))
    (pilots.folder / "go").touch()
    assert all(pilots.end(number).state is JobState.COMPLETED for number in (*first, block, ahead))
    assert "went none" in pilots.output(ahead)


def test_a_slot_is_free_when_its_task_has_ended_while_the_agent_still_reports(pilots: Pilots) -> None:
    body = "wait_at_gate()\nreport_end()\nprint('over', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.05)"
    imports = "import os, time\nfrom hpc_agent.schedulers.pilots.gate import report_end, wait_at_gate\n"
    first = pilots.add(imports + body, interpreter=PYTHON)
    second = pilots.add("echo second")
    third = pilots.add(imports + body, interpreter=PYTHON)
    fourth = pilots.add(f"{imports}wait_at_gate()\nprint('fourth')", interpreter=PYTHON)
    pilots.start()
    assert pilots.end(second).state is JobState.COMPLETED
    wait_until("the third to be over", lambda: pilots.output(third), contains("over"))
    # As many report as the pilot has CPUs: no further slot is free for others' reports.
    assert pilots.board.end(first) is None and pilots.board.end(third) is None
    assert "fourth" not in pilots.output(fourth)
    (pilots.folder / "go").touch()
    assert all(pilots.end(number).state is JobState.COMPLETED for number in (first, third, fourth))


def test_a_task_whose_agent_waits_at_its_gate_is_back_on_the_board_when_its_pilot_ends(pilots: Pilots) -> None:
    body = f"{GATE}print('ready', os.getpid(), flush=True)\nprint('went' if wait_at_gate() else 'left')"
    for _ in range(2):
        pilots.add("sleep 0.1")
    pilots.add("while [ ! -e go ]; do sleep 0.05; done")
    ahead = pilots.add(body, interpreter=PYTHON)
    pilot = pilots.start()
    pid = int(wait_until("it to be ready", lambda: pilots.output(ahead), contains("ready")).split()[1])
    assert pilots.board.claim(ahead) is not None
    pilot.terminate()
    assert pilot.wait(60) == 0
    assert not psutil.pid_exists(pid)
    assert pilots.board.claim(ahead) is None and pilots.board.end(ahead) is None
    assert "went" not in pilots.output(ahead)


def test_a_waiting_task_that_is_cancelled_at_its_gate_never_runs(pilots: Pilots) -> None:
    for _ in range(2):
        pilots.add("sleep 0.1")
    pilots.add("while [ ! -e go ]; do sleep 0.05; done")
    ahead = pilots.add(
        f"{GATE}print('ready', flush=True)\nprint('went' if wait_at_gate() else 'left')", interpreter=PYTHON
    )
    pilots.start()
    wait_until("it to be ready", lambda: pilots.output(ahead), contains("ready"))
    pilots.board.request_cancel(ahead)
    assert pilots.end(ahead).state is JobState.CANCELLED
    assert "went" not in pilots.output(ahead)
