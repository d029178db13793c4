"""Section ``hpc.envs``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from hpc_agent.config.resource_settings import ResourceSettings
from hpc_agent.config.types import SettingsGroup


class EnvsSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.envs``: where environments are built, and how nodes get them."""

    build_on: Annotated[
        Literal["login", "job", "compute"],
        Meta(
            description="login: on the login node, at low priority; job: in a small job of its own before the GPU job; "
            "compute: in the GPU job itself, where compute nodes reach package index and git."
        ),
    ] = "login"
    resources: Annotated[ResourceSettings, Meta(description="What a staging job asks for (`build_on: job`).")] = (
        ResourceSettings(num_gpus=0)
    )
    mount: Annotated[
        bool,
        Meta(description="Mount environments (squashfs) instead of unpacking them, on nodes that have squashfuse."),
    ] = False
