"""Jobs that end in every way there is: what squeue and sacct say of them, and what each was answered at its end."""

from __future__ import annotations

import sys

from hpc_agent.schedulers.slurm import commands
from slurm_captures.bench import DELIMITER, OUR_JOB, UNKNOWN_JOBS, USER, Bench

_EATS_MEMORY = "x = bytearray(2 ** 30)\nfor i in range(0, len(x), 4096): x[i] = 1\nimport time; time.sleep(60)"
_ENDS = {
    "completed": "COMPLETED",
    OUR_JOB: "COMPLETED",
    "exit code 3": "FAILED",
    "signal 9": "FAILED",
    "cancelled_running": "CANCELLED",
    "cancelled before it ran": "CANCELLED",
    "preempted": "PREEMPTED",
    "node_failed": "NODE_FAIL",
    "time_limit": "TIMEOUT",
}
"""Each with the word that squeue has for it."""
_TOO_MUCH = "more memory than it asked for"
"""Without cgroups versions differ in what they call its end."""


def capture(bench: Bench) -> None:
    _submit(bench)
    _end(bench)
    _keep_own_answers(bench)
    for name, state in _ENDS.items():
        bench.wait_for_state(state, name, seconds=180)
    bench.wait_for_state("RUNNING", "requeued", "preempted_requeued")
    bench.wait_for(
        lambda: bench.state(_TOO_MUCH) not in ("PENDING", "RUNNING", "COMPLETING"), "it met its memory limit"
    )
    _wait_for_accounting(bench)
    _ask(bench)


def _submit(bench: Bench) -> None:
    bench.submit_probe("time_limit", "--time=1")
    bench.submit_probe("cancelled_running", "--time=60")
    bench.submit_probe("node_failed", "--no-requeue", "--nodelist=n3")
    bench.submit_probe("preempted", "--partition=scavenge", "--no-requeue", "--gres=gpu:2", "--nodelist=n2")
    bench.submit_probe("preempted_requeued", "--partition=scavenge", "--gres=gpu:2", "--nodelist=n2")
    bench.submit_probe("requeued", "--nodelist=n1")
    bench.submit("cancelled before it ran", "--hold")
    bench.submit("completed", body="true")
    bench.submit(OUR_JOB, body="true")
    bench.submit("exit code 3", "--nodelist=n1", body="exit 3")
    bench.submit("signal 9", body="kill -9 $$")
    bench.submit("array of three", "--array=0-2", body="exit $SLURM_ARRAY_TASK_ID")
    bench.submit(_TOO_MUCH, "--mem=100", body=f"exec {sys.executable} -c '{_EATS_MEMORY}'")


def _end(bench: Bench) -> None:
    bench.own_answer("time_limit", "start", "own_running")
    bench.own_answer("time_limit", "environment", "job_environment")
    for probe in ("cancelled_running", "node_failed", "preempted", "preempted_requeued", "requeued"):
        path = bench.work / f"probe-{probe}.start.json"
        bench.wait_for(path.exists, f"{probe} runs")
    command = bench.cluster.checked
    command("scancel", bench.jobs["cancelled_running"], bench.jobs["cancelled before it ran"])
    command("scontrol", "requeue", bench.jobs["requeued"])
    bench.submit("preempts", "--partition=urgent", "--gres=gpu:4", "--nodelist=n2", body="sleep 3")
    command("scontrol", "update", "nodename=n3", "state=down", "reason=test")
    bench.wait_for_state("NODE_FAIL", "node_failed")
    bench.wait_for(lambda: _resumed(bench), "n3 is back")


def _resumed(bench: Bench) -> bool:
    """Until Slurm has set a node down, it refuses to bring it back."""
    if bench.cluster.node_states().get("n3", "").startswith("down"):
        bench.cluster.command("scontrol", "update", "nodename=n3", "state=resume")
    return bench.cluster.is_up()


def _keep_own_answers(bench: Bench) -> None:
    for probe, name in {
        "cancelled_running": "own_cancelled",
        "preempted": "own_preempted",
        "preempted_requeued": "own_preempted_requeued",
        "requeued": "own_requeued",
    }.items():
        bench.own_answer(probe, "end", name)
    bench.own_answer("requeued", "restart", "own_restarted")
    bench.own_answer("requeued", "environment-restart", "job_environment_restarted")
    bench.wait_for_state("TIMEOUT", "time_limit", seconds=180)
    bench.own_answer("time_limit", "end", "own_time_limit")


def _wait_for_accounting(bench: Bench) -> None:
    """slurmdbd learns of jobs some seconds after the controller."""

    def all_there() -> bool:
        text = bench.cluster.command("sacct", "-nXPo", "JobID%-30,State", "-j", ",".join(bench.jobs.values())).stdout
        final = [line for line in text.splitlines() if not line.endswith(("RUNNING", "PENDING", "REQUEUED"))]
        return len(final) >= len(_ENDS) + 3

    bench.wait_for(all_there, "accounting has all ends")


def _ask(bench: Bench) -> None:
    ask, jobs, since = bench.ask, bench.jobs, bench.since
    ask("squeue_ended", commands.squeue(USER, DELIMITER, ended=True))
    ask("squeue_by_name", commands.squeue(USER, DELIMITER, ended=True, name=OUR_JOB))
    ask("squeue_unknown_name", commands.squeue(USER, DELIMITER, ended=True, name="unheard_of"))
    ask("sacct_ended", commands.sacct(since, DELIMITER, jobs=jobs.values()))
    ask("sacct_by_name", commands.sacct(since, DELIMITER, name=OUR_JOB, user=USER))
    ask("sacct_unknown", commands.sacct(since, DELIMITER, jobs=UNKNOWN_JOBS))
    ask("sacct_unknown_name", commands.sacct(since, DELIMITER, name="unheard_of", user=USER))
    ask("sacct_requeued", commands.sacct(since, DELIMITER, jobs=[jobs["requeued"]]))
    bench.cluster.checked("scancel", jobs["requeued"], jobs["preempted_requeued"])
