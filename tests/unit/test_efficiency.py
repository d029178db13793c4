"""Use of what was asked for: its form as properties, what is advised, and the sums over many tasks."""

from __future__ import annotations

import pytest

from hpc_agent.domain.efficiency import (
    Efficiency,
    UsageDetails,
    Used,
    advice,
    as_properties,
    from_properties,
    total,
)
from hpc_agent.executor.usage_recorder import Allocation
from hpc_agent.schedulers.slurm.backend import BACKEND as SLURM

RUN = Efficiency(
    cpus=Used(3.1, 8),
    memory=Used(9.1, 64),
    gpus=Used(0.7, 2),
    gpu_memory=Used(12.5, 80),
    seconds=Used(4320, 14400),
)


def test_amounts_become_properties_that_a_person_reads() -> None:
    assert as_properties(RUN) == {
        "hpc_used_cpus": "3.1 of 8 CPUs (39%)",
        "hpc_used_memory": "9.1 of 64 GiB (14%)",
        "hpc_used_gpus": "0.7 of 2 GPUs (35%)",
        "hpc_used_gpu_memory": "12.5 of 80 GiB (16%)",
        "hpc_used_time": "01:12:00 of 04:00:00 (30%)",
    }


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        Efficiency(memory=Used(0.0042), seconds=Used(3)),
        Efficiency(cpus=Used(1024, 2048), seconds=Used(200_000)),
        Efficiency(cpus=Used(0, 1), seconds=Used(90061, 172800)),
    ],
)
def test_and_are_read_back(run: Efficiency) -> None:
    assert from_properties(as_properties(run)) == run


@pytest.mark.parametrize(
    "properties",
    [{}, {"num_gpus": "2"}, {"hpc_used_memory": "a lot"}, {"hpc_used_time": "UNLIMITED of 1"}, {"hpc_used_cpus": ""}],
)
def test_what_is_not_an_amount_is_not_measured(properties: dict[str, str]) -> None:
    assert from_properties(properties) is None


def advised(run: Efficiency, **details: object) -> tuple[str, ...]:
    return advice(run, UsageDetails(**details))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("memory", "sentence"),
    [
        (Used(9, 64), "asked 64 GiB, used 9 at most: memory_gb 12 would have been enough"),
        (Used(50, 64), ""),
        (Used(0.2, 2), "asked 2 GiB, used 0.2 at most: memory_gb 1 would have been enough"),
        (Used(0.2, 1), ""),
        (Used(9), ""),
    ],
)
def test_memory_is_advised_with_headroom(memory: Used, sentence: str) -> None:
    assert "; ".join(advised(Efficiency(memory=memory, seconds=Used(5)))) == sentence


@pytest.mark.parametrize(
    ("cpus", "gpus", "details", "sentence"),
    [
        (
            Used(2, 8),
            None,
            {"busiest_cpus": 3.2},
            "asked 8 CPUs, used 3.2 at most: num_cpus 3 would have been enough",
        ),
        (Used(2, 8), None, {"busiest_cpus": 7.0}, ""),
        (Used(1, 1), None, {"busiest_cpus": 1.0}, ""),
        (None, Used(0, 1), {"idle_gpus": 1}, "its GPU was never busy: look whether the program uses CUDA, or"),
        (None, Used(0.9, 4), {"idle_gpus": 3}, "asked 4 GPUs, used 1: num_gpus 1 would have been enough"),
        (
            Used(7.8, 8),
            Used(0.4, 1),
            {},
            "its GPUs waited (40% busy) for CPUs that were all busy: more num_cpus",
        ),
        (
            Used(2, 4),
            Used(0.2, 1),
            {},
            "its GPUs were 20% busy: a larger batch or more workers of the data loader",
        ),
        (Used(2, 4), Used(0.9, 1), {}, ""),
    ],
)
def test_cpus_and_gpus_are_advised(
    cpus: Used | None, gpus: Used | None, details: dict[str, object], sentence: str
) -> None:
    found = "; ".join(advised(Efficiency(cpus=cpus, gpus=gpus, seconds=Used(3600)), **details))
    assert found.startswith(sentence) and bool(found) == bool(sentence)


def test_a_time_limit_is_advised_for_what_came_to_its_end() -> None:
    run = Efficiency(seconds=Used(4320, 14400))
    sentence = "asked 04:00:00, ran 01:12:00: time_limit 01:30:00 would have been enough, and shorter jobs start sooner"
    assert advised(run) == (sentence,)
    assert advised(run, completed=False) == ()


def test_a_run_that_failed_early_tells_nothing() -> None:
    early = Efficiency(memory=Used(1, 64), seconds=Used(20))
    assert advised(early, completed=False) == ()
    assert advised(early) != ()


def test_sums_weigh_long_runs_more() -> None:
    found = total(
        [
            Efficiency(cpus=Used(1, 4), gpus=Used(1, 2), memory=Used(4, 64), seconds=Used(3600, 7200)),
            Efficiency(cpus=Used(4, 4), seconds=Used(10800)),
            Efficiency(),
        ]
    )
    assert (found.tasks, found.seconds, found.gpu_seconds) == (3, 14400, 7200)
    assert (found.cpus, found.gpus, found.time, found.gpu_memory) == (0.8125, 0.5, 0.5, None)
    assert found.advice == "asked 64 GiB, used 4 at most: memory_gb 5 would have been enough"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "4"}, Allocation(2)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "500"}, Allocation(4, 500)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "500", "SLURM_JOB_NUM_NODES": "3"}, Allocation(4, 2000, 3)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "0"}, Allocation(4)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "all"}, Allocation(4)),
    ],
)
def test_the_allocation_comes_from_the_jobs_variables(environ: dict[str, str], expected: Allocation) -> None:
    assert Allocation.of(SLURM.job_variables({"SLURM_JOB_ID": "7", **environ})) == expected


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("#SBATCH --time=00:10:00", 600),
        ("#SBATCH --time=1-00:00:00", 86400),
        ("#SBATCH -t 30", 1800),
        ("#SBATCH --time=UNLIMITED", None),
        ("# --time=00:10:00", None),
    ],
)
def test_a_time_limit_is_read_from_the_script(line: str, seconds: float | None) -> None:
    assert SLURM.time_limit_in(f"#!/bin/bash\n{line}\nexec agent\n") == seconds
