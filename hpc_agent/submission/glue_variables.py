"""Variables of templates in the form of ClearML's Slurm glue, and what a task has for them. Pure.

``${CLEARML_TASK.hyperparams.properties.num_nodes.value:1|strip}``: a root, a path into the task's object, a default
after the first colon, and filters. A variable of another name belongs to the shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hpc_agent.errors import TemplateError

PRE_SETUP = "PRE_SETUP"
AGENT_EXECUTE = "AGENT_EXECUTE"
POST_SETUP = "POST_SETUP"
BLOCKS = frozenset({PRE_SETUP, AGENT_EXECUTE, POST_SETUP})
"""Lines of the script that we write."""
_SINGLE = frozenset({"QUEUE_NAME", "QUEUE_ID", "WORKER_ID", "PROJECT_NAME", "PROJECT_ID"})
_TASK = "TASK"
_NESTED = frozenset({_TASK, "CONFIG", "USER", "USER_VAULTS", "PROVIDERS_INFO"})
"""Roots that have a path; of these only the task is offered."""
_NAMES = "|".join(sorted({*BLOCKS, *_SINGLE}))
_ROOTS = "|".join(sorted(_NESTED))
_VARIABLE = re.compile(
    rf"\$\{{CLEARML_\|?(?P<name>(?:{_ROOTS})(?:\.[^.:|}}\n]+)+|{_NAMES})"
    r"(?::(?P<default>[^|}\n]*))?(?P<filters>(?:\|[^|}\n]*)*)\}"
    rf"|\$CLEARML_(?P<bare>(?:{_ROOTS})(?:\.\w+)+|(?:{_NAMES})(?!\w))"
)
FILTERS = ("strip", "capitalize", "lower", "upper", "raw", "words")
WORDS_PATH = "TASK.container.arguments"
IMAGE_PATH = "TASK.container.image"


class Variable(msgspec.Struct, frozen=True):
    """``name``: root and path, without ``CLEARML_``; ``text``: as the template writes it."""

    text: str
    name: str
    default: str | None = None
    filters: tuple[str, ...] = ()

    @property
    def is_block(self) -> bool:
        return self.name in BLOCKS


class GlueFacts(msgspec.Struct, frozen=True):
    """Facts that templates of the glue's form may name. ``task``: the server's own object."""

    task: Mapping[str, Any] = msgspec.field(default_factory=dict)
    queue_name: str = ""
    queue_id: str = ""
    worker: str = ""
    project_name: str = ""
    default_image: str = ""
    """For a task that names no container image."""


class Value(msgspec.Struct, frozen=True):
    """Value of a variable. ``is_users``: a user wrote it, not the template's author. ``in_words``: it is a list of
    words, each quoted by itself."""

    text: str
    is_users: bool
    in_words: bool = False


def is_glue_template(text: str) -> bool:
    """Whether a template is of the glue's form and not Jinja's."""
    return any(_VARIABLE.finditer(text))


def split(text: str) -> Iterator[str | Variable]:
    """The template in pieces."""
    at = 0
    for found in _VARIABLE.finditer(text):
        if found.start() > at:
            yield text[at : found.start()]
        filters = tuple(name.strip() for name in (found["filters"] or "").split("|") if name.strip())
        yield Variable(found[0], found["name"] or found["bare"], found["default"], filters)
        at = found.end()
    if at < len(text):
        yield text[at:]


def value(variable: Variable, facts: GlueFacts) -> Value | None:
    """What a variable stands for; None where the task has nothing for it and the template names no default.

    A text that is empty counts as none: a user who empties a property on the web page wants the default back.

    Raises:
        TemplateError: the variable is not offered here, or has an unknown filter.
    """
    unknown = [name for name in variable.filters if name not in FILTERS]
    if unknown:
        raise TemplateError(f"{variable.text} has the filter {unknown[0]}; those known are {', '.join(FILTERS)}")
    root = variable.name.partition(".")[0]
    if root in _NESTED and root != _TASK:
        raise TemplateError(
            f"{variable.text} is not offered: of ClearML's variables a template has CLEARML_TASK.<path>, "
            f"{', '.join(f'CLEARML_{name}' for name in sorted(_SINGLE))} and the three blocks"
        )
    text = _text(variable.name, facts)
    if text:
        in_words = variable.name == WORDS_PATH or "words" in variable.filters
        return Value(_filtered(text, variable.filters), is_users=True, in_words=in_words)
    if variable.name == IMAGE_PATH and variable.default is None and facts.default_image:
        return Value(facts.default_image, is_users=False)
    if variable.default is not None:
        return Value(variable.default, is_users=False)
    return Value("", is_users=False) if variable.name == WORDS_PATH else None


def _filtered(text: str, filters: Sequence[str]) -> str:
    if "raw" not in filters:
        text = text.replace("\r", "").replace("\n", "")
    for name in filters:
        if name in ("strip", "capitalize", "lower", "upper"):
            text = getattr(text, name)()
    return text


def _text(name: str, facts: GlueFacts) -> str:
    project = facts.task.get("project")
    single = {
        "QUEUE_NAME": facts.queue_name,
        "QUEUE_ID": facts.queue_id,
        "WORKER_ID": facts.worker,
        "PROJECT_NAME": facts.project_name,
        "PROJECT_ID": project,
        "TASK.project.id": project,
        "TASK.project.name": facts.project_name,
    }
    if name in single:
        return _as_text(single[name])
    found: Any = facts.task
    for part in name.split(".")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return _as_text(found)


def _as_text(found: object) -> str:
    """A list is joined by commas; sections and what is not there are empty."""
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, (str, int, float)):
        return str(found)
    if isinstance(found, list) and all(isinstance(item, (str, int, float)) for item in found):
        return ",".join(map(_as_text, found))
    return ""
