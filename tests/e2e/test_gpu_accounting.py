"""GPUs of a machine: counted, handed out, and reported of, with a stand-in for NVIDIA's library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import fake_nvml
import pytest
from e2e_site import Site
from waiting import equals, wait_until

from hpc_agent.domain.ids import TaskId

pytestmark = pytest.mark.compiler

HOLD = """
import os, time
print("gpus", os.environ["CUDA_VISIBLE_DEVICES"])
print("begun", flush=True)
time.sleep(300)
"""

READ = """
import json, sys
from hpc_agent.telemetry.usage import GpuReader
print(json.dumps(GpuReader(json.loads(sys.argv[1])).read()))
"""

NAMES = """
import json, os, sys
from hpc_agent.schedulers.local.gpu_inventory import names
print(json.dumps(names(json.loads(sys.argv[1]), os.environ, json.loads(sys.argv[2]))))
"""


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return fake_nvml.build(tmp_path_factory.mktemp("nvml"), 4)


def ask(program: str, env: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", program, *map(json.dumps, arguments)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("visible", "usage", "temperature", "used_gb"),
    [
        (None, [5, 15, 25, 35], [40, 41, 42, 43], [1, 2, 3, 4]),
        (["3", "1"], [35, 15], [43, 41], [4, 2]),
        (["GPU-fake-2"], [25], [42], [3]),
    ],
)
def test_what_is_visible_is_read(
    nvml: Mapping[str, str], visible: list[str] | None, usage: list[int], temperature: list[int], used_gb: list[int]
) -> None:
    seen = json.loads(ask(READ, nvml, visible).stdout)
    assert (seen["gpu_usage"], seen["gpu_temperature"]) == (usage, temperature)
    assert seen["gpu_memory_used"] == [gb * 1024 for gb in used_gb]
    assert seen["gpu_memory_free"] == [(16 - gb) * 1024 for gb in used_gb]


@pytest.mark.parametrize(("gpus", "visible"), [("0", None), ("4", []), ("4", ["7"])])
def test_without_a_driver_or_a_gpu_nothing_is_read(
    nvml: Mapping[str, str], gpus: str, visible: list[str] | None
) -> None:
    assert json.loads(ask(READ, {**nvml, "FAKE_NVML_GPUS": gpus}, visible).stdout) == {}


@pytest.mark.parametrize(
    ("setting", "flag", "environ", "expected"),
    [
        (None, None, {}, ["0", "1", "2", "3"]),
        (2, None, {}, ["0", "1"]),
        (None, "3,1", {}, ["3", "1"]),
        (None, "all", {"CUDA_VISIBLE_DEVICES": "2"}, ["0", "1", "2", "3"]),
        (None, None, {"NVIDIA_VISIBLE_DEVICES": "2,0"}, ["2", "0"]),
        (None, None, {"FAKE_NVML_GPUS": "0"}, []),
        (None, "5", {"FAKE_NVML_GPUS": "0"}, ["5"]),
        (None, "none", {}, []),
    ],
)
def test_what_may_be_handed_out(
    nvml: Mapping[str, str], setting: int | None, flag: str | None, environ: dict[str, str], expected: list[str]
) -> None:
    assert json.loads(ask(NAMES, {**nvml, **environ}, setting, flag).stdout) == expected


def test_a_gpu_that_is_not_there_is_refused(nvml: Mapping[str, str]) -> None:
    assert "--gpus names GPU 4, but this machine has 4, counted from 0" in ask(NAMES, nvml, None, "0,4").stderr


@pytest.fixture
def box(machine: Site, nvml: Mapping[str, str]) -> Site:
    """A machine whose GPUs are counted, not configured."""
    machine.conf.write_text(machine.conf.read_text().replace("local { gpus: 4 }", ""))
    machine.env = {**machine.env, **nvml}
    return machine


def begun(site: Site, task: TaskId) -> str:
    def look() -> str:
        lines = dict(line.partition(" ")[::2] for line in site.console(task).splitlines())
        return lines.get("gpus", "") if "begun" in lines else ""

    return wait_until("its first lines", look)


def test_the_daemon_counts_what_there_is_and_its_jobs_report_what_they_have(box: Site) -> None:
    first, second = box.bare_task(HOLD), box.bare_task(HOLD)
    box.start("daemon", "--foreground", "--polling-interval", "0.5", "--dynamic-gpus", "--queue", f"{box.queue}=1-3")
    shares = [begun(box, first), begun(box, second)]
    assert sorted(",".join(shares)) == sorted("0,1,2,3")
    assert sorted(len(share.split(",")) for share in shares) == [1, 3]
    expected = {f"box:gpu{share}": [5 + 10 * int(index) for index in share.split(",")] for share in shares}
    expected["box:dgpuall"] = [5, 15, 25, 35]

    def usage() -> dict[str, object]:
        reports = {worker["id"]: worker for worker in _stats(box)}
        # Another test may have left workers of these names, which had no GPUs to report.
        return {name: reports.get(name, {}).get("gpu_usage") for name in expected}

    wait_until("their reports", usage, equals(expected))


def _stats(site: Site) -> list[dict[str, object]]:
    """The last machine_stats that the server has of each worker."""
    import sqlite3

    [database] = Path(site.conf.read_text().split('"')[1]).parent.glob("server.db")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT id, machine_stats FROM workers WHERE machine_stats IS NOT NULL").fetchall()
    connection.close()
    return [{"id": id, **json.loads(stats)} for id, stats in rows]


def test_the_flag_limits_the_pool(box: Site) -> None:
    task = box.bare_task(HOLD)
    box.daemon("--gpus", "2-3")
    assert begun(box, task) == "2,3"


def test_a_gpu_beyond_the_machines_is_refused_at_the_start(box: Site) -> None:
    done = box.agent("daemon", "--queue", box.queue, "--gpus", "4")
    assert (done.returncode, "this machine has 4" in done.stderr) == (2, True)
