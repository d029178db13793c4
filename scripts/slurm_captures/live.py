"""Jobs that are there, for every reason and under names of every kind, and what scancel and scontrol say."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_agent.schedulers.slurm import commands
from slurm_captures.bench import DELIMITER, UNKNOWN_JOBS, USER, Bench

HOSTILE_NAMES = {
    "pipe": "with | and || and |1|",
    "umlaut": "näme mit Ümläut",
    "line break": "first\nsecond",
    "row of squeue": "x\n" + "1".ljust(32) + "COMPLETED".ljust(24) + "0".ljust(8) + "1795176007".ljust(24) + "name",
    "row of sacct": "x\n1|1|COMPLETED|0:0|1795176007|1795176007|1795176007|01:00:00|n1|None|name",
    "form feed": "a\fb",
    "vertical tab": "a\vb",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "spaces before": "   spaces",
    "escape": "a\x1b[31mb",
    "number": "4711",
    "300 characters": "long" * 75,
    "300 bytes in two-byte characters": "ä" * 150,
}
"""Names that a user may give a job."""
HELD = ("--hold", "--time=10")


def capture(bench: Bench) -> None:
    _submit(bench)
    bench.wait_for_state("RUNNING", "running", "suspended", "restarted")
    _change(bench)
    _ask(bench)
    _cancel(bench)


def _submit(bench: Bench) -> None:
    bench.submit("running", "--nodelist=n1", "--time=60")
    bench.submit("suspended", "--nodelist=n1")
    bench.submit("restarted", "--nodelist=n1")
    bench.submit("renamed", "--nodelist=n1")
    bench.submit("for resources", "--nodes=3", "--exclusive", "--time=60")
    bench.submit("for its time", "--begin=now+1hour", "--time=60")
    bench.submit("held", *HELD)
    bench.submit("array of three, one at once", "--array=1-3%1", "--nodelist=n3")
    bench.submit("held array", *HELD, "--array=1-2")
    bench.submit("after another", "--dependency=afterok:" + bench.jobs["running"])
    for name in HOSTILE_NAMES.values():
        bench.submit(name, *HELD)


def _change(bench: Bench) -> None:
    command = bench.cluster.checked
    command("scontrol", "suspend", bench.jobs["suspended"])
    bench.wait_for_state("RUNNING", "renamed")
    command("scontrol", "update", f"JobId={bench.jobs['renamed']}", "JobName=re\nnamed")
    command("scontrol", "requeue", bench.jobs["restarted"])
    bench.wait_for_state("PENDING", "restarted")
    bench.wait_for(lambda: "Resources" in _reason(bench, "for resources"), "one waits for resources")


def _reason(bench: Bench, name: str) -> str:
    return bench.cluster.command("squeue", "-h", "-o", "%r", f"--jobs={bench.jobs[name]},99999").stdout


def _ask(bench: Bench) -> None:
    bench.ask("squeue_live", commands.squeue(USER, DELIMITER))
    bench.ask("squeue_hostile_name", commands.squeue(USER, DELIMITER, ended=True, name="re\nnamed"))
    hostile = [bench.jobs[name] for name in HOSTILE_NAMES.values()]
    bench.wait_for(lambda: len(_known(bench, hostile)) == len(hostile), "accounting has the names")
    bench.ask("sacct_live", commands.sacct(bench.since, DELIMITER, jobs=bench.jobs.values()))
    bench.ask("scontrol_config", commands.show_config())


def _known(bench: Bench, jobs: Sequence[str]) -> list[str]:
    rows = bench.cluster.command("sacct", "-nXPo", "JobIDRaw", "-j", ",".join(jobs)).stdout
    return [line for line in rows.splitlines() if line in jobs]


def _cancel(bench: Bench) -> None:
    running, held, ended = bench.jobs["running"], bench.jobs["held"], bench.jobs["completed"]
    unknown = UNKNOWN_JOBS[0]
    bench.ask("scancel_pending_of_running", commands.scancel([running], only_pending=True))
    bench.ask("scancel_pending_of_ended", commands.scancel([ended, bench.jobs["exit code 3"]], only_pending=True))
    bench.ask("scancel_pending_of_unknown", commands.scancel([unknown, held], only_pending=True))
    bench.ask("scancel_running", commands.scancel([running, held]))
    bench.ask("scancel_ended", commands.scancel([ended]))
    bench.ask("scancel_unknown", commands.scancel([unknown]))
    bench.ask("scontrol_release", commands.release([bench.jobs["held array"]]))
    bench.ask("scontrol_release_unknown", commands.release([unknown]))
    bench.ask("scontrol_requeue_unknown", commands.requeue(unknown))
    bench.cluster.checked("scancel", f"--user={bench.cluster.user}")
