"""The meter of a job's processes: on real processes, and on control groups as Slurm lays them out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from manual_clock import ManualClock
from waiting import wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.telemetry.job_usage import MOST_SAMPLES, JobUsage

BUSY = """
import os, sys
block = b"x" * (200 << 20)
print("ready", flush=True)
while True:
    pass
"""


def _cpu_seconds(pid: int) -> float:
    return float(psutil.Process(pid).cpu_times().user)


def test_real_processes_are_counted_while_they_run_and_after(tmp_path: Path) -> None:
    usage = JobUsage({}, SYSTEM, own_groups=tmp_path / "none")
    child = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"ready\n"
        usage.sample()
        before = _cpu_seconds(child.pid)
        wait_until("it to use its CPU", lambda: _cpu_seconds(child.pid) > before + 0.2)
        usage.sample()
    finally:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()
    found = usage.summary()
    assert 0.2 < found.memory < 0.35
    assert 0 < found.cpus < 1.5
    assert len(found.samples) == 2 and found.samples[1].cpus > 0
    assert (found.gpus, found.gpu_memory) == (0, 0.0)


def test_a_run_shorter_than_a_sample_is_measured_all_the_same(tmp_path: Path) -> None:
    usage = JobUsage({}, SYSTEM, own_groups=tmp_path / "none")
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    found = usage.summary()
    assert found.cpus > 0 and found.samples == () and found.busiest_cpus is None


def group(tmp_path: Path, line: str, folder: str, **files: str) -> dict[str, Path]:
    (tmp_path / "cgroup").write_text(f"{line}\n")
    found = tmp_path / "fs" / folder
    found.mkdir(parents=True)
    for name, text in files.items():
        (found / name.replace("_", ".")).write_text(text)
    return {"own_groups": tmp_path / "cgroup", "groups": tmp_path / "fs"}


def test_version_2_of_control_groups(tmp_path: Path) -> None:
    clock = ManualClock()
    path = "system.slice/slurmstepd.scope/job_7"
    groups = group(
        tmp_path,
        f"0::/{path}/step_batch/user/task_0",
        path,
        memory_stat=f"anon {3 << 30}\nfile {9 << 30}\nshmem {1 << 30}\n",
        cpu_stat="usage_usec 5000000\nuser_usec 1\n",
    )
    usage = JobUsage({}, clock, "job_7", **groups)
    clock.advance(10)
    (tmp_path / "fs" / path / "cpu.stat").write_text("usage_usec 25000000\n")
    usage.sample()
    found = usage.summary()
    assert (found.memory, found.cpus) == (4.0, 2.0)


def test_version_1_of_control_groups(tmp_path: Path) -> None:
    clock = ManualClock()
    path = "memory/slurm/uid_1000/job_7"
    line = "4:memory:/slurm/uid_1000/job_7/step_batch"
    groups = group(tmp_path, line, path, memory_stat=f"rss 1\ntotal_rss {2 << 30}\ntotal_shmem 0\n")
    usage = JobUsage({}, clock, "job_7", **groups)
    clock.advance(1)
    usage.sample()
    assert usage.summary().memory == 2.0


@pytest.mark.parametrize("name", ["", "job_8"])
def test_a_group_that_is_not_the_jobs_is_not_read(tmp_path: Path, name: str) -> None:
    clock = ManualClock()
    groups = group(tmp_path, "0::/slurm/job_7", "slurm/job_7", memory_stat=f"anon {300 << 30}\n")
    usage = JobUsage({}, clock, name, **groups)
    clock.advance(1)
    usage.sample()
    assert usage.summary().memory < 100


def test_a_long_run_keeps_few_samples_and_its_peak(tmp_path: Path) -> None:
    clock = ManualClock()
    path = "slurm/job_7"
    groups = group(tmp_path, f"0::/{path}", path, memory_stat=f"anon {1 << 30}\n", cpu_stat="usage_usec 0\n")
    usage = JobUsage({}, clock, "job_7", **groups)
    for number in range(2000):
        clock.advance(5)
        peak = number == 777
        (tmp_path / "fs" / path / "memory.stat").write_text(f"anon {(9 if peak else 1) << 30}\n")
        usage.sample()
    found = usage.summary()
    assert MOST_SAMPLES / 2 <= len(found.samples) <= MOST_SAMPLES
    assert found.memory == max(sample.memory for sample in found.samples) == 9.0
    assert [sample.seconds for sample in found.samples] == sorted(sample.seconds for sample in found.samples)
    assert found.samples[-1].seconds == 10_000


def test_a_process_that_goes_away_meanwhile_costs_nothing(tmp_path: Path) -> None:
    usage = JobUsage({}, SYSTEM, own_groups=tmp_path / "none")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_until("its end", lambda: child.poll() is not None)
    usage.sample()
    assert usage.summary().cpus >= 0
