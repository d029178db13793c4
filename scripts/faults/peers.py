"""Policies of other programs that bring tasks from a queue to jobs, one small class each, to meet the same faults.

    python -m faults.peers serve QUEUE …     # on the login node
    python -m faults.peers execute TASK      # in the job

Nothing here is a caricature; each step is what widely used programs do, with generous retries against the server:

- ``queues.get_next_task`` pops the task, ``tasks.started`` marks it, then sbatch is called: the order of agents that
  ClearML's queues are made for. A death in between leaves the task marked, in no queue and in no job.
- sbatch that fails is called again, three times in all (toil, sisyphus, autosubmit); then the task is failed.
- The job id is kept in memory only (ClearML's agent keeps what it runs in memory; a started program begins again).
- One squeue for all jobs. A job that is missing has ended: COMPLETED, unless it said otherwise itself (PSI/J, Parsl).
  The third bad poll in a row fails every job (PSI/J). PSI/J polls every 30 s; here every 5 s, because the outages that
  are made here last seconds where real ones last minutes.
- In the job the output goes to the server as it comes, a batch a second, sent again until there is an answer; at the
  end the final status is posted from the exit code (ClearML's agent). A job that Slurm starts again runs the script
  again, which is what a requeue means.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ApiError, HpcAgentError
from hpc_agent.retry import ONCE, ROUTINE
from hpc_agent.wire.event import log_event

MAX_JOBS = 12
POLL_S = 5.0
BAD_POLLS = 3
SBATCH_TRIES = 3
_ENDS = ("completed", "failed")


def client() -> Client:
    return Client(load(Path(os.environ["CLEARML_CONFIG_FILE"]), {}).settings.api)


class Serving:
    """Pop, started, sbatch, remember; poll."""

    def __init__(self, server: Client, queues: Sequence[QueueId]) -> None:
        self._server = server
        self._queues = queues
        self._jobs: dict[str, TaskId] = {}
        self._bad_polls = 0

    def run(self) -> None:
        polled = 0.0
        while True:
            if time.monotonic() - polled > POLL_S:
                polled = time.monotonic()
                try:
                    self._poll()
                except HpcAgentError as error:
                    print(f"poll: {error}", flush=True)
            if len(self._jobs) >= MAX_JOBS or not self._take_one():
                time.sleep(0.5)

    def _take_one(self) -> bool:
        for name in self._queues:
            try:
                entry = self._server.session.call("queues.get_next_task", {"queue": name}, repeatable=False)
                if entry.get("entry"):
                    self._start(TaskId(entry["entry"]["task"]), name)
                    return True
            except HpcAgentError as error:
                print(f"queue {name}: {error}", flush=True)
        return False

    def _start(self, task: TaskId, name: str) -> None:
        self._server.tasks.started(task, "started", "", force=True)
        script = self._script(task)
        for _ in range(SBATCH_TRIES):
            answer = subprocess.run(["sbatch", "--parsable", script], text=True, capture_output=True, check=False)
            if answer.returncode == 0:
                self._jobs[answer.stdout.split(";")[0].strip()] = task
                return
            print(f"sbatch for {task} of {name}: {answer.stderr.strip()}", flush=True)
        self._end(task, "failed", f"sbatch failed: {answer.stderr.strip()}")

    def _script(self, task: TaskId) -> Path:
        properties = self._server.tasks.get(task).properties
        folder = Path("jobs")
        folder.mkdir(exist_ok=True)
        lines = [
            "#!/bin/bash",
            f"#SBATCH --job-name=clearml_task_{task}_0",
            f"#SBATCH --partition={properties['partition']}",
            *([f"#SBATCH --gres=gpu:{properties['num_gpus']}"] if "num_gpus" in properties else []),
            "#SBATCH --cpus-per-task=1 --mem=1024 --time=60 --open-mode=append",
            f"#SBATCH --output={folder.absolute()}/{task}.out",
            f"exec {sys.executable} -m faults.peers execute {task}",
        ]
        path = folder / f"{task}.sbatch"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _poll(self) -> None:
        answer = subprocess.run(["squeue", "--me", "-h", "-o", "%A"], text=True, capture_output=True, check=False)
        if answer.returncode:
            self._bad_polls += 1
            if self._bad_polls >= BAD_POLLS:
                for job in list(self._jobs):
                    self._end(self._jobs.pop(job), "failed", f"squeue failed: {answer.stderr.strip()}")
            return
        self._bad_polls = 0
        for job in set(self._jobs) - set(answer.stdout.split()):
            task = self._jobs[job]
            status = self._server.tasks.get_states([task])[task].status.value
            if status not in _ENDS:
                self._end(task, "completed", "the job has left the queue")
            del self._jobs[job]

    def _end(self, task: TaskId, status: str, reason: str) -> None:
        post(self._server, task, status, reason)


def post(server: Client, task: TaskId, status: str, reason: str) -> None:
    try:
        if not server.tasks.set_final_status(task, TaskStatus(status), reason, "like its peers", budget=ROUTINE):
            print(f"{task} is not {status}: it has another status", flush=True)
    except HpcAgentError as error:
        print(f"{task} is not {status}: {error}", flush=True)


def execute(server: Client, task: TaskId) -> int:
    """Run the task's script here; what it prints goes to the server, in the end its status does."""
    script = Path(f"{task}.{os.environ.get('SLURM_JOB_ID')}.py")
    script.write_text(server.tasks.get(task).script.diff, encoding="utf-8")
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    sender = threading.Thread(target=send, args=(server, task, lines))
    sender.start()
    child = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    code = child.wait()
    lines.put(None)
    sender.join()
    post(server, task, "completed" if code == 0 else "failed", "" if code == 0 else f"exit code {code}")
    return code


def send(server: Client, task: TaskId, lines: queue.SimpleQueue[str | None]) -> None:
    """A batch a second, until None comes."""
    worker = WorkerId(f"peers:{os.getpid()}")
    more = True
    while more:
        time.sleep(1)
        batch: list[str] = []
        while more and not lines.empty():
            line = lines.get()
            more = line is not None
            batch += [line] if line is not None else []
        if batch:
            event = log_event(task, worker, "".join(batch), int(time.time() * 1000))
            until_answered(lambda event=event: server.events.add([event], budget=ONCE))  # type: ignore[misc]


def until_answered(call: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except ApiError:
            return
        except HpcAgentError:
            if time.monotonic() > deadline:
                return
        time.sleep(1)


def main() -> int:
    word, *rest = sys.argv[1:]
    server = client()
    if word == "execute":
        return execute(server, TaskId(rest[0]))
    Serving(server, [server.queues.resolve(name) for name in rest]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
