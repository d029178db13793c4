"""Section ``hpc.server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from hpc_agent.config.types import Count, Positive, SettingsGroup


class ServerSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.server``: the embedded server."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Count, Meta(description="Port of API, files and pages; 0 takes a free one.")] = 8008
    data_dir: Annotated[Path | None, Meta(description="Database and files; `<root>/server` when not set.")] = None
    certfile: Annotated[Path | None, Meta(description="Certificate (PEM) for HTTPS; HTTP when not set.")] = None
    keyfile: Annotated[Path | None, Meta(description="Its key (PEM); in the certificate's file when not set.")] = None
    max_upload_mb: Annotated[Positive, Meta(description="MiB that one uploaded file may have.")] = 51200
    max_storage_mb: Annotated[
        Positive | None, Meta(description="MiB that all uploaded files may take; as the disk holds when not set.")
    ] = None
    connections_per_address: Annotated[
        Positive, Meta(description="Connections that one address may hold; an unfinished one gives way to the next.")
    ] = 200
    keep_events_days: Annotated[
        Count,
        Meta(
            description="Days after which console, scalars, plots and debug images of an ended task are deleted; "
            "published tasks keep them. 0: kept forever."
        ),
    ] = 0
