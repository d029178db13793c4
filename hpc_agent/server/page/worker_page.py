"""Workers: what each runs, and how busy its machine is."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from starlette.responses import Response

from hpc_agent.server.page.page_request import Json, PageRequest
from hpc_agent.server.store.documents import workers as worker_documents


def show_workers(page: PageRequest) -> Response:
    """All workers that reported within their timeout."""
    found = page.calls("workers.get_all")["workers"]
    with page.calls.read() as db:
        stats = {w["id"]: (worker_documents.get(db, w["id"], ("machine_stats",)) or {}) for w in found}
    shown = [{**worker, "usage": usage_of(stats[worker["id"]].get("machine_stats") or {})} for worker in found]
    template = "parts/worker_rows.html" if page.fragment and page.asked("part") == "rows" else "workers.html"
    return page.render(template, workers=shown)


def usage_of(stats: Json) -> list[Json]:
    """Meters of a machine: a title, a text, and a share from 0 to 1."""
    meters = []
    for title, name in (("CPU", "cpu_usage"), ("GPU", "gpu_usage")):
        if values := _numbers(stats.get(name)):
            mean = fmean(values)
            meters.append({"title": title, "text": f"{mean:.0f} %", "share": min(mean / 100, 1.0)})
    for title, used, free in (
        ("Memory", "memory_used", "memory_free"),
        ("GPU memory", "gpu_memory_used", "gpu_memory_free"),
    ):
        taken, left = sum(_numbers(stats.get(used))), sum(_numbers(stats.get(free)))
        if taken + left > 0:
            # Megabytes, as agents report them.
            text = f"{taken / 1024:.1f} of {(taken + left) / 1024:.1f} GiB"
            meters.append({"title": title, "text": text, "share": taken / (taken + left)})
    return meters


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [float(item) for item in values if isinstance(item, (int, float)) and not isinstance(item, bool)]
