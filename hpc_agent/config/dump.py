"""The merged configuration as a file that jobs and the SDK read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.config.load import Configuration
from hpc_agent.config.tree import Tree, merge, put
from hpc_agent.files import write_atomic


def write_job_config(configuration: Configuration, path: Path, changes: Mapping[str, object] = {}) -> None:
    """Write everything that was read, environment and flags included, as JSON (which is HOCON) with mode 0600.

    A compute job gets the path of this file and no secret by any other way. It holds the resolved folders and
    servers, so that a job sees what the daemon saw. ``changes``: dotted keys that are to be otherwise there.
    """
    tree: Tree = {}
    merge(tree, configuration.tree)
    for key, value in {**_resolved(configuration), **changes}.items():
        put(tree, key, value)
    write_atomic(path, json.dumps(tree, indent=1).encode(), mode=0o600)


def _resolved(configuration: Configuration) -> Mapping[str, object]:
    settings = configuration.settings
    return {
        "api.api_server": settings.api.api_server,
        "api.web_server": settings.api.web_server,
        "api.files_server": settings.api.files_server,
        "hpc.runs_dir": str(settings.hpc.runs.absolute()),
        "hpc.cache_dir": str(settings.hpc.cache.absolute()),
        "hpc.root": str(settings.hpc.root.expanduser().absolute()),
    }
