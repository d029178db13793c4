"""Addresses of the web page: those of ClearML's own page and of its clients' links, and those of parts of pages."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import Route

from hpc_agent.server.page.comparison import compare_tasks, follow_comparison_link
from hpc_agent.server.page.model_page import run_model_action, show_model, show_models
from hpc_agent.server.page.page_request import PageRequest, redirect
from hpc_agent.server.page.project_list import create_project, show_dashboard, show_projects
from hpc_agent.server.page.queue_page import run_queue_action, show_queues
from hpc_agent.server.page.site import PageSite, View, acted_by, shown_by
from hpc_agent.server.page.static_files import serve_static
from hpc_agent.server.page.task_actions import run_action, show_dialog
from hpc_agent.server.page.task_charts import figures_of, scalars_of, show_images
from hpc_agent.server.page.task_console import download_console, search_console, show_earlier, show_later
from hpc_agent.server.page.task_edit import edit_details, edit_execution, edit_object, edit_parameters
from hpc_agent.server.page.task_list import choose_columns, show_tasks
from hpc_agent.server.page.task_page import show_head, show_task
from hpc_agent.server.page.worker_page import show_workers


def _to(address: str) -> View:
    def go(page: PageRequest) -> Response:
        return redirect(address)

    return go


_READING: tuple[tuple[str, View], ...] = (
    ("/", show_dashboard),
    ("/dashboard", show_dashboard),
    ("/projects", show_projects),
    ("/compare", compare_tasks),
    ("/models", _to("/projects/*/models")),
    ("/queues", show_queues),
    ("/workers", show_workers),
    ("/workers-and-queues", show_workers),
    ("/workers-and-queues/workers", show_workers),
    ("/workers-and-queues/queues", show_queues),
    ("/pipelines", _to("/projects/*/tasks?type=controller")),
    ("/tasks/{task}/head", show_head),
    ("/tasks/{task}/console/earlier", show_earlier),
    ("/tasks/{task}/console/later", show_later),
    ("/tasks/{task}/console/search", search_console),
    ("/tasks/{task}/console/download", download_console),
    ("/tasks/{task}/images", show_images),
    ("/charts/scalars", scalars_of),
    ("/charts/figures", figures_of),
    ("/actions/{action}", show_dialog),
    ("/projects/{project}/columns", choose_columns),
    ("/projects/{project}", show_tasks),
    ("/projects/{project}/tasks", show_tasks),
    ("/projects/{project}/experiments", show_tasks),
    ("/projects/{project}/overview", show_tasks),
    ("/projects/{project}/models", show_models),
    ("/projects/{project}/models/{model}", show_model),
    ("/projects/{project}/models/{model}/{tab:path}", show_model),
    ("/projects/{project}/compare-{rest:path}", follow_comparison_link),
    *(
        # Of a task each kind of link opens the same page, and the end of it a tab.
        (f"/{section}/{{project}}/{{kind}}/{{task}}{tab}", show_task)
        for section in ("projects", "pipelines", "datasets/simple")
        for tab in ("", "/{tab:path}")
    ),
)
"""Pages and their parts; the first that fits is taken."""

_ACTING: tuple[tuple[str, View], ...] = (
    ("/actions/{action}", run_action),
    ("/tasks/{task}/details", edit_details),
    ("/tasks/{task}/parameters", edit_parameters),
    ("/tasks/{task}/configuration", edit_object),
    ("/tasks/{task}/execution", edit_execution),
    ("/queues/actions/{action}", run_queue_action),
    ("/models/actions/{action}", run_model_action),
    ("/projects/create", create_project),
)
"""Forms that change something."""


def page_routes(site: PageSite) -> Iterable[Route]:
    yield Route("/static/{version}/{name}", serve_static, methods=["GET"])
    yield Route("/login", site.login_form, methods=["GET"])
    yield Route("/login", site.login, methods=["POST"])
    yield Route("/logout", site.logout, methods=["POST"])
    for path, view in _ACTING:
        yield Route(path, acted_by(site, view), methods=["POST"])
    for path, view in _READING:
        yield Route(path, shown_by(site, view), methods=["GET"])
