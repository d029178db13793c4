"""Output of commands while one of Slurm's daemons is down, or has no space."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable

from slurm_cluster.lifecycle import start, stop

from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.slurm import commands
from slurm_captures.bench import DELIMITER, USER, Bench

_JOB = JobId("1")


def capture(bench: Bench) -> None:
    _configuration(bench)
    _full(bench)
    _frozen(bench)
    _down(bench, "slurmdbd", lambda: _ask_sacct(bench, "sacct_slurmdbd_down"))
    _down(bench, "slurmctld", lambda: _ask_controller(bench, "slurmctld"))
    _down(bench, "munged", lambda: _ask_controller(bench, "munged"))


def _down(bench: Bench, daemon: str, ask: Callable[[], object]) -> None:
    stop(bench.cluster, [daemon])
    ask()
    start(bench.cluster)


def _ask_controller(bench: Bench, daemon: str) -> None:
    """All at once: some commands try again for half a minute."""
    request = bench.script("down")
    _at_once(
        lambda: bench.ask(f"squeue_{daemon}_down", commands.squeue(USER, DELIMITER)),
        lambda: bench.ask(f"own_{daemon}_down", commands.squeue_own(_JOB, DELIMITER)),
        lambda: bench.ask(f"scontrol_config_{daemon}_down", commands.show_config()),
        lambda: bench.ask(f"scancel_{daemon}_down", commands.scancel([_JOB])),
        lambda: bench.ask(f"scancel_pending_{daemon}_down", commands.scancel([_JOB], only_pending=True)),
        lambda: _ask_sacct(bench, f"sacct_{daemon}_down"),
        lambda: bench.ask_sbatch(f"sbatch_uncertain_{daemon}_down", request),
    )


def _ask_sacct(bench: Bench, name: str) -> None:
    bench.ask(name, commands.sacct(bench.since, DELIMITER, jobs=[_JOB]))


def _at_once(*asks: Callable[[], object]) -> None:
    threads = [threading.Thread(target=ask) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _frozen(bench: Bench) -> None:
    """sbatch gives up on a job that the controller queues anyway."""
    pid = bench.cluster.pid("slurmctld")
    assert pid is not None
    request = bench.script("frozen")
    os.kill(pid, signal.SIGSTOP)
    try:
        _at_once(
            lambda: bench.ask_sbatch("sbatch_uncertain_slurmctld_frozen", request),
            lambda: bench.ask("squeue_slurmctld_frozen", commands.squeue(USER, DELIMITER)),
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    bench.wait_for(lambda: _is_there(bench, "frozen"), "the frozen controller's job is there")


def _is_there(bench: Bench, name: str) -> bool:
    answer = bench.cluster.command("squeue", "--noheader", "--states=all", f"--name={name}", "--Format=JobID")
    return bool(answer.stdout.strip())


def _configuration(bench: Bench) -> None:
    """Without a slurm.conf, and with one that has no accounting."""
    conf = bench.work / "conf" / "slurm.conf"
    conf.parent.mkdir()
    conf.write_text(re.sub(r"AccountingStorage.*\n", "", bench.cluster.conf.read_text()))
    (conf.parent / "gres.conf").write_text((bench.cluster.dir / "gres.conf").read_text())
    disabled = {**bench.cluster.env, "SLURM_CONF": str(conf)}
    nowhere = {**bench.cluster.env, "SLURM_CONF": "/nowhere/slurm.conf"}
    _at_once(
        lambda: bench.ask("sacct_disabled", commands.sacct(bench.since, DELIMITER, jobs=[_JOB]), disabled),
        lambda: bench.ask("squeue_no_configuration", commands.squeue(USER, DELIMITER), nowhere),
    )


def _full(bench: Bench) -> None:
    """MaxJobCount counts the jobs that ended lately as well."""
    conf = bench.cluster.conf
    kept = conf.read_text()
    conf.write_text(f"{kept}MaxJobCount=1\n")
    _down(bench, "slurmctld", lambda: None)
    bench.ask_sbatch("sbatch_later_job_count", bench.script("full"))
    conf.write_text(kept)
    _down(bench, "slurmctld", lambda: None)
