"""The variables of a process in a container: the image's, and of this node's those that mean the same there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.containers.docker_options import DockerOption, Merged
from hpc_agent.containers.gpu_share import GpuShare
from hpc_agent.containers.runtime_api import Mount

FORWARDED_PREFIXES = (
    *("CLEARML_", "TRAINS_", "CUDA_", "NVIDIA_"),
    *("PMI", "OMPI_MCA_", "UCX_", "NCCL_", "OMP_", "MKL_", "OPENBLAS_"),
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK"),
    *("AWS_", "AZURE_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("TZ", "LANG", "LC_"),
)
"""Beginnings of names: who the task is, where it runs, how its processes find each other and their storage. Paths of
this node mean nothing inside, and its libraries must not be loaded there."""

BLOCKED_PREFIXES = ("CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE", "CLEARML_AGENT_", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE")
_TRAVEL_ALL_THE_SAME = ("CLEARML_AGENT_GIT_USER", "CLEARML_AGENT_GIT_PASS", "CLEARML_AGENT_GIT_HOST")


def travelling(environ: Mapping[str, str], job_prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """What a container gets of this environment. ``job_prefixes``: what the scheduler's variables begin with."""
    return {
        name: value
        for name, value in environ.items()
        if name in _TRAVEL_ALL_THE_SAME
        or (name.startswith(FORWARDED_PREFIXES + job_prefixes) and not name.startswith(BLOCKED_PREFIXES))
    }


def set_gpus(environ: dict[str, str], gpus: GpuShare, *, skip_flag: bool) -> None:
    """For a runtime that hands GPUs in, numbered anew: only it can say what they are called inside.

    ``skip_flag``: it was told nothing about GPUs, and its own set-up reads the variable instead.
    """
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    environ.pop("NVIDIA_VISIBLE_DEVICES", None)
    if not gpus:
        environ["NVIDIA_VISIBLE_DEVICES"] = "none"
    elif skip_flag:
        environ["NVIDIA_VISIBLE_DEVICES"] = "all" if gpus.all else ",".join(gpus.devices)


@dataclass(frozen=True)
class ForwardedEnvironment:
    """docker's arguments for a runtime that has its own."""

    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def translate(merged: Merged, environ: Mapping[str, str], *, ours: frozenset[str]) -> ForwardedEnvironment:
    """What folders and variables ask for; the rest is left out, and ``notes`` say so. ``ours``: no word about these."""
    mounts: list[Mount] = []
    variables = list(merged.environment)
    notes: list[str] = []
    for option in merged.options:
        mount = _mount(option)
        if mount is not None:
            mounts.append(mount)
        elif option.name == "env":
            variables += [(option.value, environ[option.value])] if option.value in environ else []
        elif " ".join(option.words) not in ours:
            notes.append(f"The container argument {' '.join(option.words)} means nothing to this runtime: left out")
    return ForwardedEnvironment(tuple(mounts), tuple(variables), tuple(notes))


def _mount(option: DockerOption) -> Mount | None:
    """``-v /a:/b:ro`` and ``--mount type=bind,source=/a,target=/b,readonly``; None for named volumes and the rest."""
    if option.name == "volume":
        source, _, rest = option.value.partition(":")
        target, _, mode = rest.partition(":")
        target = target or source
        writable = "ro" not in mode.split(",")
    elif option.name == "mount":
        words = {word.partition("=")[0]: word.partition("=")[2] for word in option.value.split(",")}
        source = words.get("source") or words.get("src") or ""
        target = words.get("target") or words.get("destination") or words.get("dst") or ""
        writable = not {"readonly", "ro"} & set(words)
    else:
        return None
    if not source.startswith("/") or not target.startswith("/"):
        return None
    return Mount(Path(source), target, writable)
