"""``hpc-agent free`` on a real Slurm: what it shows of nodes and jobs, when a job would start, and wrong requests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from slurm_site import SlurmSite
from waiting import wait_until

Free = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def jobs(slurm_cluster: Any, tmp_path: Path) -> Iterator[SlurmSite]:
    site = SlurmSite(slurm_cluster, tmp_path)
    states = partial(slurm_cluster.run, "sinfo", "-h", "-N", "-o", "%T")
    wait_until("what ran before to leave the nodes", states, lambda found: {*found.split()} == {"idle"})
    yield site
    if site.jobs:
        site.cluster.run("scancel", *site.jobs)


@pytest.fixture
def free(slurm_cluster: Any, tmp_path: Path) -> Free:
    def run(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**slurm_cluster.env, "HOME": str(tmp_path), **environ}
        argv = [sys.executable, "-m", "hpc_agent", "free", *flags]
        return subprocess.run(argv, env=env, text=True, capture_output=True, timeout=120, check=False)

    return run


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def gpus(answer: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {row["kind"]: (row["free"], row["total"]) for row in answer["gpus"]}


def test_what_a_job_has_is_not_free(jobs: SlurmSite, free: Free) -> None:
    before = gpus(found(free("--json")))
    assert before == {"a100": (8, 8), "h100": (4, 4)}
    jobs.wait_for_start(jobs.submit("sleep 600", "--gres=gpu:a100:3", "--mem=1G", "--time=30"))
    answer = found(free("--json"))
    assert gpus(answer) == {"a100": (5, 8), "h100": (4, 4)}
    [main] = [partition for partition in answer["partitions"] if partition["name"] == "main"]
    assert main["default"] and main["gpus_free"] == 9 and main["nodes_idle"] == 2
    assert answer["starts"] == []


def test_a_drained_node_has_nothing_free(slurm_cluster: Any, free: Free) -> None:
    slurm_cluster.run("scontrol", "update", "nodename=n3", "state=drain", "reason=test")
    try:
        answer = found(free("--json"))
    finally:
        slurm_cluster.run("scontrol", "update", "nodename=n3", "state=resume")
        state = partial(slurm_cluster.run, "sinfo", "-h", "-N", "-n", "n3", "-o", "%T")
        wait_until("the node to take jobs", state, lambda found: {*found.split()} == {"idle"})
    assert gpus(answer) == {"a100": (8, 8), "h100": (0, 4)}
    [node] = [node for node in answer["nodes"] if node["name"] == "n3"]
    assert node["state"].startswith("drain") and not node["usable"]


def test_when_a_job_would_start_in_each_partition_that_could_hold_it(jobs: SlurmSite, free: Free) -> None:
    jobs.wait_for_start(jobs.submit("sleep 600", "--gres=gpu:h100:4", "--mem=1G", "--time=30"))
    answer = found(free("--gpus", "2", "--type", "h100", "--time", "1:00:00", "--json"))
    starts = {row["partition"]: row for row in answer["starts"]}
    # Not short, whose time limit is five minutes.
    assert starts.keys() == {"main", "scavenge", "urgent"}
    assert starts["main"]["nodes"] == "n3" and starts["main"]["start"] and not starts["main"]["refused"]
    printed = free("--gpus", "2", "--type", "h100", "--time", "1:00:00").stdout
    assert "A job with 2 × h100 for 01:00:00 would start" in printed
    assert "in 00:" in printed
    assert "No node has room for that now" in printed
    assert "now" in free("--gpus", "2", "--type", "a100").stdout.split("would start")[1]


def test_a_partition_that_is_named_is_asked_and_its_refusal_shown(free: Free) -> None:
    [start] = found(free("--gpus", "1", "--time", "1:00:00", "--partition", "short", "--json"))["starts"]
    assert start["start"] is None
    assert start["refused"] == "Requested time limit is invalid (missing or exceeds some limit)"
    assert "refused" in free("--gpus", "1", "--time", "1:00:00", "--partition", "short").stdout


def test_resources_of_the_configuration_hold_where_no_flag_says_otherwise(free: Free, tmp_path: Path) -> None:
    (tmp_path / "clearml.conf").write_text('hpc { resources { account: unknown, time_limit: "00:30:00" } }')
    [start] = found(free("--gpus", "1", "--partition", "main", "--json"))["starts"]
    assert "Invalid account" in start["refused"]
    [start] = found(free("--gpus", "1", "--partition", "main", "--account", "lab", "--json"))["starts"]
    assert start["start"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--type", "v100"), 'no GPU type that you may see is named "v100"; there are: a100, h100'),
        (("--partition", "main,mian"), 'no partition that you may see is named "mian"; there are: main, '),
        (("--gpus", "9"), "the largest node has 4 GPUs"),
        (("--gpus", "two"), 'num_gpus is "two", expected a whole number'),
        (("--time", "0"), "time_limit is 0, expected no less than 1 minutes"),
        (("--memory-gb", "much"), "expected a number of GiB"),
        (("--gpus", "1", "--time", "366-00:00:00"), "time_limit is 366-00:00:00, expected at most"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_a_sentence(free: Free, flags: tuple[str, ...], words: str) -> None:
    done = free(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_without_a_batch_system_it_says_where_to_ask(free: Free, tmp_path: Path) -> None:
    (tmp_path / "clearml.conf").write_text("hpc { scheduler: local }")
    done = free()
    assert done.returncode == 2
    assert "run this command on a login node of a cluster" in done.stderr


def test_a_controller_that_is_away_is_exit_code_69(free: Free, tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\n")
    (tmp_path / "clearml.conf").write_text("hpc { slurm { command_timeout: 2 } }")
    done = free(SLURM_CONF=str(tmp_path / "slurm.conf"))
    assert done.returncode == 69
    assert done.stderr.startswith("error: ")


def test_tables_fit_a_narrow_terminal_and_pipes_get_all(free: Free) -> None:
    narrow = free("--all", COLUMNS="60").stdout
    assert max(map(len, narrow.splitlines())) <= 60
    assert "…" in narrow and "\x1b" not in narrow
    wide = free("--all").stdout
    assert "main, scavenge, short, urgent" in wide and "…" not in wide
    assert [line.split()[0] for line in wide.split("\n\n")[-1].splitlines()] == ["NODE", "n1", "n2", "n3"]
