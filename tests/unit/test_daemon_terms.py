"""What the daemon's flags mean for its jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc_agent.config.load import load
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.options import DaemonOptions, JobNaming, exports, gpu_range, job_settings, name, slots
from hpc_agent.daemon.submitter import CapacityAllocator, NoCapacity
from hpc_agent.domain.capacity import Capacity, GpuRange
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.errors import ResourceError

TASK = TaskId("ab12")
DYNAMIC = {"two": GpuRange(2, 2), "any": GpuRange(1, 4)}


def settings(tmp_path: Path, text: str = "") -> AllSettings:
    conf = tmp_path / "clearml.conf"
    conf.write_text(text)
    return load(conf, {}).settings


@pytest.mark.parametrize(
    ("terms", "visible", "expected"),
    [
        (DaemonOptions(batch_system=""), None, "box:1"),
        (DaemonOptions(batch_system="", gpus="0,1"), None, "box:gpu0,1"),
        (DaemonOptions(batch_system="", gpus="all"), None, "box:gpuall"),
        (DaemonOptions(batch_system=""), ["2"], "box:gpu2"),
        (DaemonOptions(batch_system=""), [], "box:cpu:1"),
        (DaemonOptions(batch_system="", gpus="none"), ["2"], "box:cpu:1"),
        (DaemonOptions(batch_system="", gpus="0,1", dynamic=DYNAMIC), None, "box:dgpu0,1"),
        (DaemonOptions(batch_system="", dynamic=DYNAMIC), None, "box:dgpuall"),
        (DaemonOptions(batch_system="", dynamic=DYNAMIC), ["3", "4"], "box:dgpu3,4"),
        (DaemonOptions(batch_system="slurm"), None, "box:slurm:tiny:1"),
        (DaemonOptions(batch_system="slurm", gpus="0,1"), None, "box:slurm:tiny:1"),
    ],
)
def test_worker_ids_follow_the_gpus(terms: DaemonOptions, visible: list[str] | None, expected: str) -> None:
    assert name(terms, "box", given=False, visible=visible, cluster="tiny").id(1) == expected
    assert name(terms, "mine", given=True, visible=visible, cluster="tiny").id(1) == "mine"


@pytest.mark.parametrize(
    ("terms", "given", "expected"),
    [
        (DaemonOptions(batch_system=""), False, "box:0:ab12"),
        (DaemonOptions(batch_system="slurm"), False, ""),
        (DaemonOptions(batch_system="slurm"), True, "box:0:ab12"),
        (DaemonOptions(batch_system="slurm", services=0), False, "box:0:service:ab12"),
        (DaemonOptions(batch_system="", dynamic=DYNAMIC), False, "box:gpu1,2"),
        (DaemonOptions(batch_system="slurm", dynamic=DYNAMIC), False, ""),
    ],
)
def test_a_jobs_worker_id_as_its_shell_sees_it(terms: DaemonOptions, given: bool, expected: str) -> None:
    words = exports(terms, JobNaming(WorkerId("box:0"), "box", given), TASK)
    script = "\n".join(f"export {variable}={word}" for variable, word in words.items())
    shell = ["bash", "-c", f'{script}\nprintf %s "$CLEARML_WORKER_ID"']
    seen = subprocess.run(shell, env={"CUDA_VISIBLE_DEVICES": "1,2"}, capture_output=True, text=True, check=True).stdout
    assert seen == expected


def test_tags_stay_apart_whatever_is_in_them() -> None:
    words = exports(
        DaemonOptions(batch_system="slurm", tags=("a b", "it's", "$HOME")), JobNaming(WorkerId("w"), "w"), TASK
    )
    shell = f'export T={words["CLEARML_WORKER_TAGS"]}; printf %s "$T"'
    seen = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    conf = load(environ={"CLEARML_WORKER_TAGS": seen, "HOME": "/nonexistent"})
    assert conf.settings.agent.tags == ("a b", "it's", "$HOME")


def test_flags_of_execute() -> None:
    assert DaemonOptions(batch_system="slurm").flags() == []
    terms = DaemonOptions(batch_system="slurm", gpus="none", docker=True, optimize=2, log_level="DEBUG")
    assert terms.flags() == ["--docker", "--cpu-only", "-OO", "--log-level", "DEBUG"]


def gpus(changed: AllSettings, queue: str = "q", **properties: str) -> int:
    return changed.hpc.queue(queue).policy(queue, changed.hpc.resources).resources(properties).gpus


def test_with_slurm_gpus_are_a_number_and_all_is_the_configurations(tmp_path: Path) -> None:
    configured = settings(tmp_path, "hpc.resources.num_gpus: 1")
    assert gpus(job_settings(configured, DaemonOptions(batch_system="slurm", gpus="4,7"), ["q"], 0)) == 2
    assert gpus(job_settings(configured, DaemonOptions(batch_system="slurm", gpus="all"), ["q"], 0)) == 1
    assert gpus(job_settings(configured, DaemonOptions(batch_system="slurm"), ["q"], 0)) == 1
    assert gpus(job_settings(configured, DaemonOptions(batch_system="slurm", gpus="4,7"), ["q"], 0), "other") == 1
    assert gpus(job_settings(configured, DaemonOptions(batch_system="slurm", gpus="4,7"), ["q"], 0), num_gpus="3") == 3


def test_cpu_only_gives_none_and_says_so_to_who_asks(tmp_path: Path) -> None:
    changed = job_settings(
        settings(tmp_path, "hpc.resources.num_gpus: 1"), DaemonOptions(batch_system="slurm", gpus="none"), ["q"], 0
    )
    assert gpus(changed) == 0
    with pytest.raises(ResourceError, match="allows at most 0"):
        gpus(changed, num_gpus="1")


@pytest.mark.parametrize("slurm", [True, False])
def test_dynamic_gpus_are_the_queues(tmp_path: Path, slurm: bool) -> None:
    terms = DaemonOptions(batch_system="slurm" if slurm else "", dynamic=DYNAMIC)
    changed = job_settings(settings(tmp_path), terms, ["two", "any"], 4)
    assert (gpus(changed, "two"), gpus(changed, "any")) == (2, 1)
    assert gpus(changed, "any", num_gpus="3") == 3
    with pytest.raises(ResourceError, match="at most 4"):
        gpus(changed, "any", num_gpus="5")


def test_other_rules_of_a_queue_stay(tmp_path: Path) -> None:
    text = "hpc.queues.two { resources { num_cpus: 3 }, overrides { num_cpus { max: 4 } } }"
    terms = DaemonOptions(batch_system="slurm", dynamic=DYNAMIC)
    changed = job_settings(settings(tmp_path, text), terms, ["two", "any"], 0)
    policy = changed.hpc.queue("two").policy("two", changed.hpc.resources)
    assert policy.resources({"num_cpus": "4"}).cpus == 4
    with pytest.raises(ResourceError):
        policy.resources({"num_cpus": "5"})
    with pytest.raises(ResourceError, match="does not let a task set time_limit"):
        policy.resources({"time_limit": "5"})


@pytest.mark.parametrize(
    ("text", "pool", "expected"),
    [
        ("", 4, 4),
        ("", 0, 0),
        ("hpc.local.max_jobs: 2", 4, 2),
        ("hpc.local.max_jobs: 8", 4, 1),
        ("hpc.resources.num_gpus: 1", 4, 1),
        ("hpc.queues.q.resources.num_gpus: 0", 4, 0),
    ],
)
def test_alone_a_task_gets_its_part_of_the_machine(tmp_path: Path, text: str, pool: int, expected: int) -> None:
    assert gpus(job_settings(settings(tmp_path, text), DaemonOptions(batch_system=""), ["q"], pool)) == expected


def test_services_have_no_time_limit_of_the_site(tmp_path: Path) -> None:
    text = 'hpc { resources.time_limit: "01:00:00", queues.limited.resources.time_limit: 5 }'
    changed = job_settings(
        settings(tmp_path, text), DaemonOptions(batch_system="slurm", gpus="none", services=3), ["q", "limited"], 0
    )
    limits = [
        changed.hpc.queue(queue).policy(queue, changed.hpc.resources).resources({}).time_minutes
        for queue in ("q", "limited")
    ]
    assert limits == [None, 5]
    assert changed.hpc.max_jobs == 3


def test_gpus_beyond_the_least_go_to_who_does_not_say() -> None:
    terms = DaemonOptions(batch_system="", dynamic=DYNAMIC)
    assert gpu_range(terms, "any", 1, {}) == GpuRange(1, 4)
    assert gpu_range(terms, "any", 2, {"num_gpus": "2"}) == GpuRange(2, 2)
    assert gpu_range(terms, "two", 2, {"num_gpus": " "}) == GpuRange(2, 2)
    assert gpu_range(DaemonOptions(batch_system=""), "q", 3, {}) == GpuRange(3, 3)


def test_slots_of_a_machine(tmp_path: Path) -> None:
    configured = settings(tmp_path, "hpc { max_jobs: 50, local.max_jobs: 3 }")
    assert slots(configured, DaemonOptions(batch_system=""), 4) == 3
    assert slots(configured, DaemonOptions(batch_system="", dynamic=DYNAMIC), 4) == 4
    assert slots(configured, DaemonOptions(batch_system="", services=0), 0) == 50
    assert slots(configured, DaemonOptions(batch_system="", services=2), 0) == 2


def test_tasks_of_a_queue_keep_their_order() -> None:
    space = CapacityAllocator(Capacity(jobs=5, gpus=2, all_gpus=4))
    wide, narrow = QueueId("wide"), QueueId("narrow")
    assert isinstance(space.take(wide, GpuRange(3, 3)), NoCapacity)
    assert space.take(wide, GpuRange(1, 1)) == NoCapacity("Waiting behind another task of its queue")
    assert space.take(narrow, GpuRange(1, 4)) == 2
    assert isinstance(space.take(narrow, GpuRange(1, 1)), NoCapacity)
    assert not space.full
