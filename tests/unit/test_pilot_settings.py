"""Settings of queues in the mode pilot: which tasks fit into a pilot, and what wrong settings say."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hpc_agent.config.load import load
from hpc_agent.domain.pilot_slots import fits
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import ConfigError

PILOT = Resources(gpus=2, gpu_type="a100", cpus=8, memory_mb=4096, time_minutes=60, partition="main", account="lab")
TASK = Resources(gpus=1, cpus=2, memory_mb=1024, time_minutes=5)


def settings(tmp_path: Path, block: str) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text(f"hpc {{ queues {{ q {{ mode: pilot, {block} }} }} }}")
    load(conf, {})


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("resources.time_limit: 1", "pilot.resources.time_limit is not set"),
        ("resources.time_limit: 1, pilot.resources.time_limit: 0", "pilot.resources.time_limit is not set"),
        (
            "pilot.resources.time_limit: 60, resources.time_limit: 0",
            "resources.time_limit is not set: in the mode pilot",
        ),
        ("resources.time_limit: 61, pilot.resources.time_limit: 60", "does not fit into one pilot"),
        ("resources { time_limit: 1, num_cpus: 4 }, pilot.resources { time_limit: 9, num_cpus: 2 }", "does not fit"),
        ("resources { time_limit: 1, num_gpus: 1 }, pilot.resources { time_limit: 9, num_gpus: 0 }", "does not fit"),
        ("resources.time_limit: 1, pilot.resources { time_limit: 9, num_nodes: 2 }", "a pilot has one node"),
        ("resources.time_limit: 1, pilot { resources.time_limit: 9, max_pilots: 0 }", "max_pilots"),
        ("resources.time_limit: 1, pilot { resources.time_limit: 9, idle: 3 }", "idle_time"),
    ],
)
def test_wrong_pilot_settings_say_what_to_change(tmp_path: Path, block: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, block)
    assert says in str(refused.value)
    assert str(tmp_path / "clearml.conf") in str(refused.value)


def test_an_unknown_mode_is_refused_with_the_two_that_there_are(tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text("hpc { queues { q { mode: pilots } } }")
    with pytest.raises(ConfigError, match=r"job.*pilot"):
        load(conf, {})


def test_a_pilot_asks_for_what_one_task_asks_for_but_for_what_its_block_says(tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text(
        """
        hpc {
            resources { account: lab, time_limit: 5 }
            queues { q {
                mode: pilot
                resources { num_cpus: 2, memory_gb: 1, partition: main }
                pilot.resources { num_cpus: 8, time_limit: "02:00:00" }
            } }
        }
        """
    )
    hpc = load(conf, {}).settings.hpc
    asked = hpc.queue("q").pilot_resources(hpc.resources)
    assert asked == Resources(cpus=8, memory_mb=1024, time_minutes=120, partition="main", account="lab")


def test_a_task_fits_that_asks_for_no_more_than_a_pilot_has() -> None:
    assert fits(TASK, PILOT)
    assert fits(replace(TASK, gpus=2, cpus=8, memory_mb=4096, time_minutes=60), PILOT)
    assert fits(replace(TASK, gpu_type="a100", partition="main", account="lab"), PILOT)


@pytest.mark.parametrize(
    "more",
    [
        {"nodes": 2},
        {"time_minutes": None},
        {"time_minutes": 61},
        {"gpus": 3},
        {"cpus": 9},
        {"memory_mb": 4097},
        {"gpu_type": "h100"},
        {"partition": "long"},
        {"account": "other"},
        {"qos": "high"},
    ],
)
def test_a_task_that_asks_for_more_or_for_another_place_gets_a_job_of_its_own(more: dict[str, object]) -> None:
    assert not fits(replace(TASK, **more), PILOT)


def test_memory_is_not_compared_with_a_pilot_that_asks_for_none_in_particular() -> None:
    assert fits(TASK, replace(PILOT, memory_mb=None))
