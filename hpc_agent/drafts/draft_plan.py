"""Plan of a draft: the task that the flags describe. Reads local files only; creates nothing."""

from __future__ import annotations

import ast
import posixpath
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.draft import Draft
from hpc_agent.domain.task import Requirements, TaskContainer, TaskScript
from hpc_agent.drafts.code import Code, script_section
from hpc_agent.drafts.draft_request import DraftRequest, check_usage, typed_path
from hpc_agent.drafts.draft_requirements import packages_as_lines, read_requirements, with_clearml
from hpc_agent.drafts.draft_resources import check_values
from hpc_agent.drafts.locate import locate
from hpc_agent.errors import InputError

PIPELINES = ".pipelines"
"""ClearML keeps each pipeline's runs in a hidden project of its own below this one."""

DEFAULT_PIPELINE_VERSION = "1.0.0"
_CREATED_BY_TASK_COMMAND = {"_CLEARML_TASK": True}
_SKIP_ENVIRONMENT = "-e CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1"


class DraftPlan(msgspec.Struct, frozen=True):
    """Task to create. ``draft.script`` is used if ``has_code``; else the base task's script, with the given
    packages."""

    draft: Draft
    has_code: bool = True
    type_given: bool = False
    warnings: tuple[str, ...] = ()


def plan(request: DraftRequest, here: Path, comment: str) -> DraftPlan:
    """Check everything that can be checked on this machine and describe the task.

    Raises:
        WrongUsageError: flags are missing or contradict each other.
        InputError, SourceError: files or the repository are not as they must be.
    """
    check_usage(request)
    check_values(request.resources)
    output_uri = _output_uri(request.output_uri)
    container = _container(request, here)
    requirements = _requirements(request, here)
    warnings: tuple[str, ...] = ()
    if request.force_no_requirements and (request.packages or request.requirements):
        warnings = ("--packages and --requirements are ignored because of --force-no-requirements",)
    script = _script_parts(request, requirements)
    if request.has_code:
        found = locate(request, here)
        _check_packages(found.code, requirements, found.lists_packages)
        init = not request.skip_task_init and not request.pipeline
        script = script_section(found.code, requirements, init=init, binary=request.binary)
        warnings += found.warnings
        if warning := unreachable_arguments(request, found.code):
            warnings += (warning,)
    draft = _draft(request, script, container)
    return DraftPlan(
        replace(draft, comment=comment, output_uri=output_uri), request.has_code, bool(request.task_type), warnings
    )


def _script_parts(request: DraftRequest, requirements: Requirements) -> TaskScript:
    """The flags that change the script of a base task."""
    return TaskScript(
        branch=request.branch,
        commit=request.commit,
        working_dir=request.cwd,
        binary=request.binary,
        requirements=requirements,
    )


def _draft(request: DraftRequest, script: TaskScript, container: TaskContainer) -> Draft:
    pipeline = request.pipeline
    return Draft(
        name=request.name,
        project=f"{request.project}/{PIPELINES}/{request.name}" if pipeline else request.project,
        script=script,
        type="controller" if pipeline else request.task_type or "training",
        container=container,
        arguments=dict(word.split("=", 1) for word in request.args),
        properties={**_version(request), **request.resources},
        tags=request.tags,
        system_tags=("pipeline", "development") if pipeline else ("development",),
        runtime=_CREATED_BY_TASK_COMMAND,
    )


def _version(request: DraftRequest) -> Mapping[str, str]:
    return {"version": request.pipeline_version or DEFAULT_PIPELINE_VERSION} if request.pipeline else {}


def _requirements(request: DraftRequest, here: Path) -> Requirements:
    """Requested packages; ``pip`` is None without a list, and empty for "install nothing"."""
    if request.force_no_requirements:
        return Requirements(pip=())
    lines: tuple[str, ...] = ()
    if request.requirements:
        file = typed_path(request.requirements, here)
        if not file.is_file():
            raise InputError(f"the requirements file {request.requirements} does not exist")
        lines = read_requirements(file)
    lines += packages_as_lines(request.packages)
    return Requirements(pip=with_clearml(lines) if lines else None)


def _check_packages(code: Code, requirements: Requirements, lists_packages: bool) -> None:
    if requirements.pip is not None or lists_packages or code.is_shell:
        return
    why = (
        "the repository has neither requirements.txt nor pyproject.toml"
        if code.repository
        else "without a repository the packages that the code needs are unknown"
    )
    raise InputError(f"{why}: give --packages or --requirements, or --force-no-requirements if it needs none")


def _container(request: DraftRequest, here: Path) -> TaskContainer:
    """Container of the task; ``--docker "image arguments"`` means ``--docker image --docker_args arguments``."""
    image, _, rest = request.docker.strip().partition(" ")
    arguments = request.docker_args.strip() or rest.strip()
    try:
        shlex.split(arguments)
    except ValueError as error:
        raise InputError(f"--docker_args {arguments!r} cannot be read: {str(error).lower()}") from error
    if request.skip_python_env_install:
        arguments = f"{arguments} {_SKIP_ENVIRONMENT}".strip()
    return TaskContainer(image, arguments, _setup_script(request.docker_bash_setup_script, here))


def _setup_script(value: str, here: Path) -> str:
    """The text of the file that ``value`` names, without its ``#!`` line, else ``value`` itself."""
    if not value:
        return ""
    # A name longer than any path may be cannot even be looked for.
    file = typed_path(value, here) if "\n" not in value and len(value) < 4096 else None
    if file is None or not file.is_file():
        if re.fullmatch(r"[~./\w-]+\.(sh|bash)", value):
            raise InputError(f"the file {value} given with --docker_bash_setup_script does not exist")
        return value
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{value}, given with --docker_bash_setup_script, cannot be read: {error}") from error
    return text.partition("\n")[2] if text.lstrip().startswith("#!") else text


def _output_uri(value: str) -> str:
    if not value or "://" in value:
        return value
    if not value.startswith(("/", "~")):
        raise InputError(
            f"--output-uri {value} must be a URL (s3://…, https://…) or an absolute path on a shared file system"
        )
    return f"file://{typed_path(value, Path('/'))}"


_BUILT_IN = sys.stdlib_module_names - {"argparse", "importlib", "runpy", "subprocess"}
"""Modules of Python's own that neither parse a command line nor start what might."""


def unreachable_arguments(request: DraftRequest, code: Code) -> str:
    """A sentence on arguments that cannot reach the code; empty where they may."""
    if not request.args:
        return ""
    program = posixpath.basename(request.binary)
    if code.is_shell or (program and not program.startswith("python")):
        return (
            f"--args do not reach {code.entry_point}, for {program or 'a shell'} runs it: only Python code gets them, "
            "through a call of Task.init"
        )
    if code.text is None or "clearml" in code.text:
        return ""
    if code.suffix == ".ipynb":
        return (
            f"--args do not reach {code.entry_point}: a notebook gets them through Task.init, and no cell names clearml"
        )
    if request.skip_task_init:
        return (
            f"--args do not reach {code.entry_point}: they come through a call of Task.init, which --skip-task-init "
            "leaves out, and the script itself does not name clearml"
        )
    if _BUILT_IN.issuperset(_imported(code.text)):
        return f"--args do not reach {code.entry_point}: it imports nothing that could read them, such as argparse"
    return ""


def _imported(text: str) -> Iterator[str]:
    """The top-level modules that a Python text imports; the name ``unknown`` where it cannot be parsed."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "unknown"
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "unknown" if node.level else str(node.module).partition(".")[0]
