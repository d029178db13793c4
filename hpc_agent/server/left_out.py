"""Calls of ClearML's API that this server does not answer, each with the reason; docs/endpoints.md lists them."""

from __future__ import annotations

from collections.abc import Mapping

_HYPER_DATASETS = "Hyper-Datasets of the paid edition; ClearML's open server answers 404 too"
_PUBLIC = "objects of other companies: this server has one company, whose users read everything"
_CSV = "a file, not an answer of the API: page through `get_all_ex`"

LEFT_OUT: Mapping[str, str] = {
    "datasets.*": _HYPER_DATASETS,
    "dataviews.*": _HYPER_DATASETS,
    "frames.*": _HYPER_DATASETS,
    "tasks.share": "links for people without an account, of the paid edition",
    "reports.share": "links for people without an account, of the paid edition",
    "tasks.make_public": _PUBLIC,
    "tasks.make_private": _PUBLIC,
    "models.make_public": _PUBLIC,
    "models.make_private": _PUBLIC,
    "projects.make_public": _PUBLIC,
    "projects.make_private": _PUBLIC,
    "tasks.update_batch": "`tasks.update` for each task",
    "events.download_task_log": "a file, not an answer of the API: page through `events.get_task_log`",
    "organization.prepare_download_for_get_all": _CSV,
    "organization.download_for_get_all": _CSV,
    "organization.get_project_usages": "bills of a hosted service; `hpc-agent efficiency` shows what jobs used",
    "serving.*": "registry of ClearML Serving's containers; the SDK goes on without it",
    "storage.*": "keys of cloud storage are in each user's clearml.conf, not on the server",
    "users.create": "`auth.create_user`, with keys from `auth.create_credentials`",
    "users.delete": "what a user made keeps its owner: revoke the keys (`hpc-agent server user revoke`)",
    "server.report_stats_option": "this server sends no statistics to anyone",
    "server.endpoints": "docs/endpoints.md is that list",
    "debug.*": "`GET /files` answers `OK` without credentials",
    "workers.cluster_report": "of ClearML's Kubernetes agent",
    "workers.cluster_unregister": "of ClearML's Kubernetes agent",
}
"""By name, or by service with a star."""


def is_left_out(endpoint: str) -> bool:
    """Whether there is a reason not to answer this call."""
    return endpoint in LEFT_OUT or f"{endpoint.partition('.')[0]}.*" in LEFT_OUT
