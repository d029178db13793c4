"""Task and resources → the text of a job script. Strict: what a template names must exist."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from msgspec.structs import asdict

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.base import ScriptLanguage
from hpc_agent.submission import glue_template
from hpc_agent.submission.glue_template import ContainerLaunch, GlueJob
from hpc_agent.submission.glue_variables import GlueFacts, is_glue_template
from hpc_agent.submission.task_text import (
    TEXT_FILTERS,
    TaskText,
    concatenated,
    directive,
    keeping,
    printed,
    task_texts,
    written,
)


class JobContext(msgspec.Struct, frozen=True):
    """Everything that a script is made from. Holds no secret."""

    task: Task
    attempt: Attempt
    queue_name: str
    resources: Resources
    run_dir: Path
    output: Path
    config_file: Path
    agent: Sequence[str]
    """How the job calls this program."""
    flags: Sequence[str] = ()
    """Further flags of ``execute``."""
    exports: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Variables of the job, each a shell word."""
    job_name: str = ""
    """The attempt's when empty."""
    signal_ahead: float = 0.0
    """Seconds before its time limit at which the agent gets the signal; 0: not at all."""
    requeue: bool = True
    """Whether the scheduler may start the job again after a preemption or a node's failure, and the agent may ask for
    it."""
    facts: GlueFacts = msgspec.field(default_factory=GlueFacts)
    """For templates in the glue's form."""
    launch: ContainerLaunch | None = None
    """For templates in the glue's form: what they start containers with."""

    def variables(self) -> dict[str, Any]:
        """The names that templates know; ``sbatch_templates/README.md`` describes each."""
        return {
            "job_name": self.job_name or self.attempt.job_name,
            "attempt": self.attempt.id,
            "output": str(self.output),
            "run_dir": str(self.run_dir),
            "config_file": str(self.config_file),
            "agent": shlex.join(self.agent),
            "flags": shlex.join(self.flags),
            "exports": self.exports,
            "resources": _resources(self.resources),
            "queue": {"name": TaskText(self.queue_name, "queue.name")},
            "task": _task(self.task),
        }


def _task(task: Task) -> dict[str, object]:
    texts = {name: getattr(task, name) for name in ("id", "name", "project", "type", "user")}
    container = {"image": task.container.image, "arguments": task.container.arguments}
    return {
        **{name: TaskText(text, f"task.{name}") for name, text in texts.items()},
        "container": {name: TaskText(text, f"task.container.{name}") for name, text in container.items()},
        "properties": task_texts(task.properties, "task.properties"),
    }


def _resources(resources: Resources) -> dict[str, object]:
    """Names may be a task's choice."""
    return {
        name: TaskText(value, f"resources.{name}") if isinstance(value, str) else value
        for name, value in asdict(resources).items()
    }


def _quote(value: object) -> object:
    """One shell word; what a user wrote is quoted by its position in any case."""
    return value if isinstance(value, TaskText) else shlex.quote(str(value))


class _Environment(jinja2.Environment):
    concat = staticmethod(concatenated)  # type: ignore[assignment] # as jinja2.nativetypes does


class Renderer:
    """Renders the scripts of one backend. Finds templates in the site's folders first, then among the backend's."""

    def __init__(self, language: ScriptLanguage, folders: Sequence[Path] = ()) -> None:
        self.language = language
        self._folders = [*folders, language.templates]
        self._jinja = _Environment(
            loader=jinja2.FileSystemLoader([str(folder) for folder in self._folders]),
            undefined=jinja2.StrictUndefined,
            finalize=printed,
            keep_trailing_newline=True,
            autoescape=False,  # shell, not HTML: see task_text
        )
        self._glue: dict[str, tuple[Callable[[], bool], bool]] = {}
        """Which templates are in the glue's form, by name, and whether that still holds."""
        self._jinja.filters.update({name: keeping(self._jinja.filters[name]) for name in TEXT_FILTERS})
        self._jinja.filters.update(quote=_quote, directive=self._directive)

    def _directive(self, value: object) -> object:
        """A value on a line of options. What a user wrote is quoted later, for the place where it is."""
        return value if isinstance(value, TaskText) else directive(value, self.language)

    def render(self, template: str, context: JobContext) -> str:
        """The script's text. ``template``: a name or a path; the backend's default where it is empty.

        Raises:
            TemplateError: the template is missing, broken, or names a variable that does not exist; the message
                names the file and line.
        """
        template = template or self.language.default_template
        if self.is_glue_template(template):
            return _checked(template, self._render_glue(template, context))
        requests = self.language.variables(context.resources, context.signal_ahead, context.requeue)
        try:
            text = written(self._load(template).render({**context.variables(), **requests}), self.language)
        except jinja2.UndefinedError as error:
            raise TemplateError(
                f"the job template {template} names something that does not exist: {error.message}; "
                "sbatch_templates/README.md lists the variables"
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the job template {error.filename or template} is broken at line {error.lineno}: {error.message}"
            ) from error
        except jinja2.TemplateNotFound as error:
            searched = ", ".join(str(folder) for folder in self._folders)
            raise TemplateError(f"there is no job template {error.name}; searched: {searched}") from error
        except TemplateError as error:
            raise TemplateError(f"the job template {template} cannot be used for this task: {error}") from error
        except Exception as error:  # a template is code of the site: whatever it raises is its error
            raise TemplateError(f"the job template {template} failed: {type(error).__name__}: {error}") from error
        return _checked(template, text)

    def is_glue_template(self, template: str) -> bool:
        """Whether a template of this name is in the form of ClearML's Slurm glue; False where it cannot be read."""
        is_current, found = self._glue.get(template, (lambda: False, False))
        if is_current():
            return found
        try:
            text, is_current = self._source(template)
        except (OSError, UnicodeError, jinja2.TemplateError):
            return False
        self._glue[template] = is_current, is_glue_template(text)
        return self._glue[template][1]

    def _render_glue(self, template: str, context: JobContext) -> str:
        variables = self.language.variables(context.resources, context.signal_ahead, context.requeue)
        job = GlueJob(
            run_dir=context.run_dir,
            config_file=context.config_file,
            agent=context.agent,
            task=context.task.id,
            flags=context.flags,
            exports=context.exports,
            directives=self._policy(context),
            signal=str(variables.get("signal", "")),
            launch=context.launch,
        )
        try:
            return glue_template.script(self._source(template)[0], context.facts, job, self.language)
        except TemplateError as error:
            raise TemplateError(f"the job template {template} cannot be used for this task: {error}") from error

    def _policy(self, context: JobContext) -> list[str]:
        exclude = context.resources.exclude
        return [
            "--requeue" if context.requeue else "--no-requeue",
            *([f"--exclude={self.language.directive(exclude)}"] if exclude else []),
        ]

    def _source(self, template: str) -> tuple[str, Callable[[], bool]]:
        """A template's text, and whether it is still the same."""
        path = Path(template or self.language.default_template).expanduser()
        if path.is_absolute():
            return path.read_text(encoding="utf-8"), lambda: False
        assert self._jinja.loader is not None
        text, _, is_current = self._jinja.loader.get_source(self._jinja, str(path))
        return text, is_current or (lambda: False)

    def _load(self, template: str) -> jinja2.Template:
        path = Path(template).expanduser()
        if not path.is_absolute():
            return self._jinja.get_template(template)
        try:
            return self._jinja.from_string(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TemplateError(f"it cannot be read: {error.strerror}") from error


def _checked(template: str, text: str) -> str:
    if not text.startswith("#!"):
        raise TemplateError(
            f"the job template {template} does not begin with #! and an interpreter, which a job script needs"
        )
    return text
