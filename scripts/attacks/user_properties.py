"""User properties with which a task asks for resources, on a queue that lets it set all of them up to a maximum."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from attacks.case import Case
from hpc_agent.config.resource_settings import OverrideSettings, QueueSettings, ResourceSettings
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.task import Task
from hpc_agent.errors import ResourceError, TemplateError
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import JobContext, Renderer

DOOR = "user properties"

_QUEUE = QueueSettings(
    resources=ResourceSettings(num_cpus=1, memory_gb=1, time_limit=10, partition="main"),
    overrides={
        "memory_gb": OverrideSettings(max=2),
        "time_limit": OverrideSettings(max="01:00:00"),
        "num_cpus": OverrideSettings(max=8),
        "num_nodes": OverrideSettings(max=4),
        "num_gpus": OverrideSettings(max=2),
        "gpu_type": OverrideSettings(),
        "constraint": OverrideSettings(),
    },
)
_BOUNDS = {"mem": 2048, "cpus-per-task": 8, "nodes": 4, "time": 60}
_NO_AMOUNT = (
    *("0", "00", "-0", "0.0", "0.0001", "1e-9", "-1", "-2147483649", "nan", "inf", "-inf", "Infinity", "1e400", "1e9"),
    *("9" * 10, "9" * 5000, "4294967296", "4294967297", "18446744073709551617", "0x10", "1_0", "１", "٣", "²", "½"),
    *("00:00", "0:0:0", "0-0", "0-0:0:0", "1-", "-1:00", "UNLIMITED", "INFINITE", "1;2", "1 2", "1\n2", "1,8", "8G"),
    *("$(id)", "`id`", "1 --exclusive", "True", "[8]", "{}", "null", "\0", "1\x0b", "+", "-", "."),
)
_NO_TYPE = (
    *("a100:8", "a100,gpu:a100:8", "gpu:a100:8", "a100:8,gpu", ":8", ",", "a100 --exclusive", "a\n#SBATCH --exclusive"),
    *("a100'", 'a100"', "$(id)", "a100;id", "a100#", "ａ100", "a\u2028b", "a\x85b", "x" * 20_000, "a100(S:0-7)", "a|b"),
)
_NO_CONSTRAINT = (
    *("a\n#SBATCH --exclusive", "a --partition=urgent", "a' --partition=urgent '", 'a" --partition=urgent "', "a\\"),
    *(
        "a\r#SBATCH --exclusive",
        "a\x0b--exclusive",
        "a\0b",
        "a\u2028#SBATCH --exclusive",
        "x" * 20_000,
        "a\tb",
        "$(id)",
    ),
)
_NOT_ITS_OWN = ("partition", "account", "qos", "reservation")
_DIRECTIVE = re.compile(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", re.MULTILINE)


def _attempt(properties: dict[str, str]) -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        try:
            resources = _QUEUE.policy("gpu", ResourceSettings()).resources(properties)
            script = Renderer(SbatchScript(SlurmSettings())).render(
                "gpu.sbatch.j2", _context(folder, resources, properties)
            )
        except (ResourceError, TemplateError) as error:
            return f"a message of {len(str(error))} characters" if len(str(error)) > 1000 else ""
        return _beyond(script)

    return attempt


def _context(folder: Path, resources: object, properties: dict[str, str]) -> JobContext:
    task = Task(TaskId("a" * 32), properties=properties)
    return JobContext(
        task=task,
        attempt=attempt_for("cluster", QueueId("q"), task.id, "added"),
        queue_name="gpu",
        resources=resources,  # type: ignore[arg-type]
        run_dir=folder,
        output=folder / "job.out",
        config_file=folder / "job.conf",
        agent=["hpc-agent"],
    )


def _beyond(script: str) -> str:
    """What the script asks for that the queue does not allow; Slurm reads an amount of 0 as no limit."""
    asked = dict(_DIRECTIVE.findall(script))
    amounts = {
        "mem": asked.get("mem", "").removesuffix("M"),
        "cpus-per-task": asked.get("cpus-per-task", ""),
        "nodes": asked.get("nodes", ""),
        "time": str(_minutes(asked.get("time", ""))),
    }
    for name, text in amounts.items():
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _BOUNDS[name]):
            return f"--{name}={asked.get(name, ' left out')}"
    gpus = asked.get("gres", "gpu:0").split(":")
    if not (len(gpus) in (2, 3) and gpus[-1] in ("0", "1", "2") and "," not in asked.get("gres", "")):
        return f"--gres={asked['gres'][:80]}"
    known = {*amounts, "job-name", "ntasks-per-node", "requeue", "no-requeue", "gres", "constraint", "partition"}
    more = asked.keys() - known
    if more or asked.get("partition") != "main" or script.count("#SBATCH") != len(asked):
        return f"options of sbatch: {', '.join(more) or asked.get('partition')}"
    return ""


def _minutes(text: str) -> int:
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):00", text)
    return (int(match[1] or 0) * 24 + int(match[2])) * 60 + int(match[3]) if match else -1


CASES: tuple[Case, ...] = (
    *(
        Case(f"{name} = {value[:40]!a} of {len(value)} characters", _attempt({name: value}))
        for name in ("memory_gb", "time_limit", "num_cpus", "num_nodes", "num_gpus")
        for value in _NO_AMOUNT
    ),
    *(
        Case(f"gpu_type = {value[:40]!a} of {len(value)} characters", _attempt({"gpu_type": value, "num_gpus": "1"}))
        for value in _NO_TYPE
    ),
    *(
        Case(f"constraint = {value[:40]!a} of {len(value)} characters", _attempt({"constraint": value}))
        for value in _NO_CONSTRAINT
    ),
    *(Case(f"{name} of its own", _attempt({name: "urgent"})) for name in _NOT_ITS_OWN),
    *(Case(f"{name}, no resource", _attempt({name: "root"})) for name in ("uid", "export", "exclude", "nodelist")),
)
