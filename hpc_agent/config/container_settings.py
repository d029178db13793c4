"""Section ``hpc.container``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from hpc_agent.config.types import SettingsGroup


class ContainerSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.container``: what runs the containers of tasks."""

    runtime: Annotated[
        Literal[
            "none", "docker", "podman", "podman-hpc", "apptainer", "singularity", "charliecloud", "enroot", "pyxis"
        ],
        Meta(description="What runs a task's image: none runs the task without it, docker falls back to podman."),
    ] = "none"
    program: Annotated[str, Meta(description="Name or path of the runtime's program; its usual name when empty.")] = ""
    arguments: Annotated[
        tuple[str, ...],
        Meta(
            description="Arguments that every container gets here, in the runtime's own words: `[--no-home]` of "
            "apptainer, `[--container-writable]` of pyxis."
        ),
    ] = ()
    images_dir: Annotated[
        Path | None,
        Meta(description="Folder on the shared file system with image files; `<root>/images` when not set."),
    ] = None
    python: Annotated[
        Literal["auto", "image", "shared"],
        Meta(
            description="Whose Python runs a task in an image: the image's own, with its packages, or ours from the "
            "shared cache; auto: the image's where it has one."
        ),
    ] = "auto"
    skip_gpus_flag: Annotated[
        bool,
        Meta(description="No GPU flag for docker: NVIDIA_VISIBLE_DEVICES instead (`CLEARML_DOCKER_SKIP_GPUS_FLAG`)."),
    ] = False
