"""Changes of one task: its name, comment and tags at any time; script, container and parameters of a draft."""

from __future__ import annotations

from starlette.responses import Response

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.page_request import Json, PageRequest, done
from hpc_agent.server.page.task_page import packages_of

_SCRIPT = ("repository", "branch", "version_num", "entry_point", "working_dir", "diff")
_CONTAINER = ("image", "arguments", "setup_shell_script")


def edit_details(page: PageRequest) -> Response:
    """Name, comment and tags."""
    name = page.sent("name").strip()
    if not name:
        raise invalid("a task needs a name")
    tags = [tag.strip() for tag in page.sent("tags").split(",") if tag.strip()]
    page.calls("tasks.update", task=page.path["task"], name=name, comment=page.sent("comment"), tags=tags)
    return done("Saved.")


def edit_parameters(page: PageRequest) -> Response:
    """All parameters of one section: those that the form has no more are removed."""
    section = page.sent("section").strip()
    names, values = page.form.get("name", ()), page.form.get("value", ())
    if not section or len(names) != len(values):
        raise invalid("a form of parameters has a section, and a value for each name")
    task = _draft(page, ("hyperparams",))
    before = (task.get("hyperparams") or {}).get(section) or {}
    wanted = {name.strip(): value for name, value in zip(names, values, strict=True) if name.strip()}
    # The server keeps what the form does not show of a parameter: its type and description.
    items = [
        {**before.get(name, {}), "section": section, "name": name, "value": value} for name, value in wanted.items()
    ]
    if items:
        page.calls("tasks.edit_hyper_params", task=task["id"], hyperparams=items, replace_hyperparams="section")
    else:
        page.calls("tasks.delete_hyper_params", task=task["id"], hyperparams=[{"section": section}])
    return done(f"Parameters of {section} saved.")


def edit_object(page: PageRequest) -> Response:
    """The text of one configuration object."""
    name = page.sent("name").strip()
    if not name:
        raise invalid("a configuration object needs a name")
    task = _draft(page, ("configuration",))
    before = (task.get("configuration") or {}).get(name) or {}
    item = {**before, "name": name, "value": page.sent("value").replace("\r\n", "\n")}
    page.calls("tasks.edit_configuration", task=task["id"], configuration=[item])
    return done(f"Configuration {name} saved.")


def edit_execution(page: PageRequest) -> Response:
    """Script, packages and container."""
    task = _draft(page, ("script", "container"))
    script: Json = dict(task.get("script") or {})
    script.update({name: _text(page, name) for name in _SCRIPT if name in page.form})
    packages = _text(page, "packages")
    if packages.strip() != packages_of(script).strip():
        kept = script.get("requirements") if isinstance(script.get("requirements"), dict) else {}
        script["requirements"] = {**(kept or {}), "pip": packages}
    container = {**(task.get("container") or {}), **{name: _text(page, name) for name in _CONTAINER}}
    page.calls("tasks.edit", task=task["id"], script=script, container=container)
    return done("Execution saved.")


def _text(page: PageRequest, name: str) -> str:
    return page.sent(name).replace("\r\n", "\n")


def _draft(page: PageRequest, fields: tuple[str, ...]) -> Json:
    """
    Raises:
        ApiFault: the task does not exist, or is not a draft any more.
    """
    task = page.calls.one("tasks", page.path["task"], ("status", *fields))
    if task["status"] != "created":
        raise invalid("only a draft can be changed; clone the task or reset it first", status=task["status"])
    return task
