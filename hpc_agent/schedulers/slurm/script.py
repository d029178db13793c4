"""sbatch scripts: their templates, how options are quoted, and GPU and memory requests in the site's own options.

Some sites forbid one spelling of a request, some demand it (docs/internals/slurm.md#site-dialects).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpc_agent.domain.resources import Resources, format_time_limit
from hpc_agent.schedulers.slurm.settings import SlurmSettings


class SbatchScript:
    """See ``schedulers.base.ScriptLanguage``."""

    prefix = "#SBATCH"
    default_template = "gpu.sbatch.j2"
    staging_template = "stage.sbatch.j2"
    pilot_template = "pilot.sbatch.j2"
    probe_template = "probe.sbatch.j2"

    def __init__(self, site: SlurmSettings) -> None:
        self._site = site

    @property
    def templates(self) -> Path:
        return own_templates()

    def directive(self, text: str) -> str:
        """sbatch splits the line at white space, and reads quotes and backslashes."""
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return quoted if set(text) & set(" \"'\\#") or not text else text

    def variables(self, resources: Resources, signal_ahead: float, requeue: bool) -> Mapping[str, object]:
        return {
            "gpu_flag": gpu_flag(resources, self._site),
            "memory_flag": memory_flag(resources, self._site),
            "time_limit": "" if resources.time_minutes is None else format_time_limit(resources.time_minutes),
            # The agent takes the warning, and passes it on to its task at the right moment.
            "signal": f"B:USR1@{round(signal_ahead)}" if signal_ahead else "",
            "requeue": requeue,
        }


def own_templates() -> Path:
    """The folder of the templates that travel with this package: in the wheel, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "sbatch_templates"
    return inside if inside.is_dir() else package.parent / "sbatch_templates"


def gpu_flag(resources: Resources, site: SlurmSettings) -> str:
    """The sbatch option that asks for the GPUs of each node; empty without GPUs."""
    if not resources.gpus:
        return ""
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    if site.gpu_flag == "gres":
        return f"--gres=gpu:{kind}{resources.gpus}"
    if site.gpu_flag == "gpus":
        return f"--gpus={kind}{resources.gpus * resources.nodes}"
    return f"--gpus-per-node={kind}{resources.gpus}"


def memory_flag(resources: Resources, site: SlurmSettings) -> str:
    """The sbatch option that asks for the memory of each node; empty for the partition's default."""
    if resources.memory_mb is None:
        return ""
    if site.memory_flag == "mem":
        return f"--mem={resources.memory_mb}M"
    # Rounded down: all CPUs together get no more than was checked against the queue's maximum. 0 would mean unlimited.
    return f"--mem-per-cpu={max(resources.memory_mb // (resources.cpus or 1), 1)}M"
