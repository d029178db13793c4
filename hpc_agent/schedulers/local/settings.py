"""The section ``hpc.local``: what of this machine may be used."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from hpc_agent.config.types import BackendSettings, Count, Positive


class LocalSettings(BackendSettings, frozen=True, kw_only=True):
    """``hpc.local``: the scheduler for a machine without a batch system."""

    max_jobs: Annotated[Positive, Meta(description="Jobs at once.")] = 1
    gpus: Annotated[Count | None, Meta(description="GPUs to hand out; those of the machine when not set.")] = None


Settings = LocalSettings
