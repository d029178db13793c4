"""The end of a task's console."""

from __future__ import annotations

from hpc_agent.api.console_pages import ConsolePages
from hpc_agent.api.task_views import TaskViews
from hpc_agent.domain.ids import TaskId


def skip_to_last(pages: ConsolePages, views: TaskViews, task: TaskId, lines: int) -> str:
    """The last so many lines; what comes next from ``pages`` is what was printed after them."""
    end = views.console_end(task)
    kept = end.text.splitlines(keepends=True)
    if len(kept) <= lines and end.is_cut:
        kept = "".join(pages.rest()).splitlines(keepends=True)
    else:
        pages.skip_to(end.last_ms)
    return "".join(kept[-lines:]) if lines else ""
