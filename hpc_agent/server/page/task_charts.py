"""Data of charts: scalars of one or several tasks, figures in plotly's format, debug images."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from starlette.responses import Response

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.page_request import Json, PageRequest, json_answer
from hpc_agent.server.page.task_page import file_link

_AXES = ("iter", "timestamp", "iso_time")
_SAMPLES = 1000
"""Points of a curve: more than a screen has columns for it."""
_MOST_TASKS = 20
_LIVE = ("queued", "in_progress")


def scalars_of(page: PageRequest) -> Response:
    """``{"live": …, "tasks": [{id, name}], "curves": {metric: {variant: {task: {x, y}}}}}`` of the tasks that the
    address names."""
    axis = page.asked("axis", "iter")
    if axis not in _AXES:
        raise invalid(f"axis must be one of {', '.join(_AXES)}")
    tasks = _tasks(page)
    curves: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for task in tasks:
        answer = page.calls("events.scalar_metrics_iter_histogram", task=task["id"], key=axis, samples=_SAMPLES)
        for metric, variants in answer.items():
            for variant, curve in variants.items():
                curves[metric][variant][task["id"]] = {"x": curve["x"], "y": curve["y"]}
    return json_answer(
        {
            "live": any(task["status"] in _LIVE for task in tasks),
            "tasks": [{"id": task["id"], "name": task["name"]} for task in tasks],
            "curves": curves,
        }
    )


def figures_of(page: PageRequest) -> Response:
    """``{"figures": [{task, name, iter, figure}]}``: the newest plot of a metric and variant, of each task that has
    one."""
    metric, variant = page.asked("metric"), page.asked("variant")
    figures = []
    for task in _tasks(page):
        wanted = [{"metric": metric, "variants": [variant]}]
        for plot in page.calls("events.get_task_plots", task=task["id"], metrics=wanted)["plots"]:
            figures.append(
                {
                    "task": task["id"],
                    "name": task["name"],
                    "iter": plot.get("iter"),
                    "figure": _figure(str(plot.get("plot_str") or "")),
                    "image": file_link(page.uploads, str(plot.get("url") or "")),
                }
            )
    return json_answer({"figures": figures})


def show_images(page: PageRequest) -> Response:
    """The images of a metric in some iterations, the newest ones first, and where the earlier ones begin."""
    metric = page.asked("metric")
    asked: Json = {"metrics": [{"task": page.path["task"], "metric": metric}], "iters": 3}
    if page.asked("scroll"):
        asked["scroll_id"] = page.asked("scroll")
    answer = page.calls("events.debug_images", **asked)
    iterations = answer["metrics"][0]["iterations"] if answer["metrics"] else []
    shown = [
        {
            "iter": iteration["iter"],
            "images": [
                _image(page, str(event.get("variant") or ""), str(event.get("url") or ""))
                for event in iteration["events"]
            ],
        }
        for iteration in iterations
    ]
    return page.render(
        "task/image_rows.html",
        task={"id": page.path["task"]},
        metric=metric,
        iterations=shown,
        scroll=answer.get("scroll_id", ""),
    )


def _image(page: PageRequest, variant: str, url: str) -> Json:
    """``kind``: how a browser shows it, as far as this server has the file."""
    link = file_link(page.uploads, url)
    ending = url.lower().rpartition(".")[2]
    kinds = {"video": ("mp4", "webm", "ogv"), "audio": ("wav", "mp3", "ogg", "flac")}
    kind = next((kind for kind, endings in kinds.items() if ending in endings and link.startswith("/files/")), "image")
    return {"variant": variant, "url": url, "link": link, "kind": kind}


def _tasks(page: PageRequest) -> list[Json]:
    """The tasks that the address names, in its order.

    Raises:
        ApiFault: 400/12, there are none or too many.
    """
    ids = list(dict.fromkeys(page.query.get("task", ())))
    if not 0 < len(ids) <= _MOST_TASKS:
        raise invalid(f"name 1 to {_MOST_TASKS} tasks")
    found = page.calls.listed("tasks", id=ids, only_fields=["name", "status"], search_hidden=True)
    by_id = {task["id"]: task for task in found}
    return [by_id[id] for id in ids if id in by_id]


def _figure(text: str) -> Json | None:
    """What the SDK reported as JSON; None where it is not a figure."""
    try:
        figure = json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return figure if isinstance(figure, dict) and isinstance(figure.get("data"), list) else None
