"""docker's arguments as people write them: taken apart, the site's rules applied, put together again. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

import msgspec

from hpc_agent.domain.container_options import FLAGS, KNOWN
from hpc_agent.errors import ContainerError

_ALIASES = {
    "e": "env",
    "v": "volume",
    "p": "publish",
    "u": "user",
    "w": "workdir",
    "l": "label",
    "m": "memory",
    "h": "hostname",
    "net": "network",
    "c": "cpu-shares",
    "d": "detach",
    "i": "interactive",
    "t": "tty",
    "it": "interactive",
    "ti": "interactive",
    "a": "attach",
}
_OURS = frozenset(
    {"detach", "interactive", "tty", "attach", "rm", "name", "restart", "cidfile", "sig-proxy", "init", "pull", "help"}
)
"""What would take the container out of our hands: its life is the agent's business."""

_ATTACHED = re.compile(r"^-(?P<letter>[evpulwmhc])(?P<value>[^=].*)$")
"""``-eNAME=1``, ``-v/a:/b``."""


class DockerOption(msgspec.Struct, frozen=True):
    """``name`` without dashes, in its long form; ``words`` as they were written."""

    name: str
    words: tuple[str, ...]

    @property
    def is_attached(self) -> bool:
        """Whether the first word holds the value too: ``--env=A=1``, ``-eA=1``."""
        first = self.words[0]
        return "=" in first or (not first.startswith("--") and bool(_ATTACHED.match(first)))

    @property
    def value(self) -> str:
        first = self.words[0]
        if not first.startswith("--") and (match := _ATTACHED.match(first)):
            return match["value"]
        _, equals, attached = first.partition("=")
        return attached if equals else " ".join(self.words[1:])


class ArgumentRules(msgspec.Struct, frozen=True):
    """As ``config.settings.DockerSettings`` describes them. ``granted``: arguments that the site gives by default."""

    protected: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


class Merged(msgspec.Struct, frozen=True):
    """``environment``: what ``--env NAME=value`` set, in order; ``notes``: sentences for the task's console."""

    options: tuple[DockerOption, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for option in self.options for word in option.words)


def split(arguments: str | Iterable[str]) -> tuple[str, ...]:
    """Words of a text, or of a list, where each item may hold several (``"-v /a:/b"``).

    Raises:
        ContainerError: a quote is not closed, or it holds a NUL, which no argument can.
    """
    texts = [arguments] if isinstance(arguments, str) else list(arguments)
    words: list[str] = []
    for text in texts:
        if "\0" in text:
            raise ContainerError(f"the container arguments {text!r} cannot be read: they hold a NUL character")
        if isinstance(arguments, str) or text.startswith("-"):
            try:
                words += shlex.split(text)
            except ValueError as error:
                raise ContainerError(f"the container arguments {text!r} cannot be read: {error}") from error
        else:
            words.append(text)
    return tuple(words)


def parse(words: Sequence[str]) -> tuple[DockerOption, ...]:
    """A word without a dash belongs to the option before it, as the reference agent reads them.

    Raises:
        ContainerError: it does not begin with an option.
    """
    options: list[DockerOption] = []
    for word in words:
        if word.startswith("-") and word != "-":
            options.append(DockerOption(_name(word), (word,)))
        elif not options:
            raise ContainerError(f"the container arguments begin with {word!r}, expected an option such as --ipc=host")
        else:
            options[-1] = DockerOption(options[-1].name, (*options[-1].words, word))
    return tuple(options)


def _name(word: str) -> str:
    if not word.startswith("--") and (match := _ATTACHED.match(word)):
        return _ALIASES.get(match["letter"], match["letter"])
    name = word.lstrip("-").partition("=")[0]
    return _ALIASES.get(name, name)


def merge(ours: Sequence[str], site: Sequence[str], task: Sequence[str], rules: ArgumentRules) -> Merged:
    """Everything that a container is started with. ``ours`` are defaults that site and task may replace by name.

    Raises:
        ContainerError: the task gives a protected argument that the site does not give in the same form.
    """
    notes: list[str] = []
    site_options = _allowed(parse(site), rules, notes)
    task_options = _allowed(_filtered(parse(task), rules, notes), rules, notes)
    default_options = parse(ours)
    doubled = {(option.name, option.value) for option in (*site_options, *default_options)}
    task_options = [option for option in task_options if (option.name, option.value) not in doubled]
    granted = {(option.name, option.value) for option in parse(rules.granted)}
    for option in task_options:
        if (option.name, option.value) not in granted:
            _check(option, rules)
    given = {option.name for option in (*site_options, *task_options)}
    kept = [option for option in default_options if option.name not in given and not _clashes(option, given)]
    options = [*kept, *site_options, *task_options]
    return Merged(
        tuple(option for option in options if not _sets_variable(option)),
        tuple(_variable(option) for option in options if _sets_variable(option)),
        tuple(notes),
    )


def _allowed(options: Sequence[DockerOption], rules: ArgumentRules, notes: list[str]) -> list[DockerOption]:
    refused = {*_OURS, *rules.forbidden}
    for option in options:
        if option.name in refused:
            notes.append(f"The container argument {option.words[0]} is left out: it would take the task from its agent")
    return [option for option in options if option.name not in refused]


def _filtered(options: Sequence[DockerOption], rules: ArgumentRules, notes: list[str]) -> list[DockerOption]:
    if not rules.filters:
        return list(options)
    patterns = [_pattern(text) for text in rules.filters]
    kept = []
    for option in options:
        if any(pattern.match(option.words[0].partition("=")[0]) for pattern in patterns):
            kept.append(option)
        else:
            notes.append(
                f"The container argument {option.words[0]} is left out: agent.docker_args_filters does not list it"
            )
    return kept


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ContainerError(
            f"agent.docker_args_filters has {text!r}, which is not a regular expression: {error}"
        ) from error


def _check(option: DockerOption, rules: ArgumentRules) -> None:
    """
    Raises:
        ContainerError: a task may not give this option, or not in this form.
    """
    shown = " ".join(option.words)
    is_allowed = option.name in _long_names(rules.allowed)
    if not is_allowed and option.name in _long_names(rules.protected):
        raise ContainerError(
            f"the task's container argument {shown} is not allowed here: the site may give it to all containers "
            f"(agent.extra_docker_arguments), or let tasks give it: add {option.name} to "
            "agent.allowed_docker_extra_args, or take it out of agent.protected_docker_extra_args"
        )
    if not is_allowed and option.name not in KNOWN:
        raise ContainerError(
            f"the task's container argument {shown} is not known here, so it is not allowed; short flags must be "
            f"alone (-i -t); the site may let tasks give it: add {option.name!r} to agent.allowed_docker_extra_args"
        )
    # What is left over would be taken for the image and its command.
    if option.is_attached or option.name in FLAGS:
        surplus = option.words[1:]
    elif len(option.words) == 1:
        raise ContainerError(f"the task's container argument {shown} lacks its value: write {shown}=VALUE")
    else:
        surplus = option.words[2:]
    if surplus:
        raise ContainerError(
            f"the task's container argument {shown} has words that belong to no option: {' '.join(surplus)}; an "
            "image belongs in the task's field for it, a value with spaces in quotes"
        )


def _long_names(names: Iterable[str]) -> set[str]:
    return {_ALIASES.get(name.lstrip("-"), name.lstrip("-")) for name in names}


def _clashes(default: DockerOption, given: set[str]) -> bool:
    """docker and podman refuse a size for shared memory that is the machine's own."""
    return default.name == "ipc" and "shm-size" in given


def _sets_variable(option: DockerOption) -> bool:
    return option.name == "env" and "=" in option.value


def _variable(option: DockerOption) -> tuple[str, str]:
    name, _, value = option.value.partition("=")
    return name, value
