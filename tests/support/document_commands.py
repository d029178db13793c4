"""Commands of ours in documents, and what the real commands think of them without running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from hpc_agent.cli.daemon_flags import DaemonFlags
from hpc_agent.cli.main import group
from hpc_agent.cli.task import task
from hpc_agent.errors import HpcAgentError

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"(?:^|\n\n)(?P<body>(?: {4}[^\n]*(?:\n|$)|\n(?= {4}))+)")
"""A code block by indentation."""
_INLINE = re.compile(r"(?<!`)`(?P<text>hpc-(?:agent|task)\s[^`]+)`(?!`)")
_HERE = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?\n.*?^\s*\1$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "
_PREFIX = re.compile(r"(?:exec|srun|if|until|while|!) |\w+=")
"""What may be before a command of ours on its line."""
_PROGRAMS = ("hpc-agent", "hpc-task")
_REDIRECTION = re.compile(r"[<>]+[&|]?")
_CONTROL = re.compile(r"[();|&]+")


@dataclass(frozen=True)
class DocumentedCommand:
    """``text``: the command with its arguments, without redirections and comments."""

    file: Path
    line: int
    text: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.text}"


def commands_in_blocks(file: Path, page: str) -> Iterator[DocumentedCommand]:
    """Every line of a code block that starts one of our programs. Where a block has prompts (``$ ``), what has none is
    output."""
    for start, body in _blocks(page):
        lines = body.replace("\\\n", "  ").splitlines()
        prompted = [line for line in lines if line.lstrip().startswith(_PROMPT)]
        for text in prompted or lines:
            line = page.count("\n", 0, start + max(body.find(text[:30]), 0)) + 1
            yield from (DocumentedCommand(file, line, *found) for found in _ours(text.strip().removeprefix(_PROMPT)))


def _blocks(page: str) -> Iterator[tuple[int, str]]:
    """Each code block with its offset, without its here-documents but for scripts of the shell."""
    fences = list(_FENCE.finditer(page))
    yield from ((match.start("body"), match["body"]) for match in fences)
    without = _FENCE.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), page)
    yield from ((match.start("body"), match["body"]) for match in _BLOCK.finditer(without))


def _ours(line: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The commands of one line of the shell that are ours, each with its words."""
    if not re.search(r"\bhpc-(?:agent|task)\b", line):
        return
    lexer = shlex.shlex(re.sub(r"(?<=\s)\d(?=>)", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        words = list(lexer)
    except ValueError:  # a quotation that goes on in the next line
        return
    part: list[str] = []
    is_target = False
    for word in [*words, ";"]:
        if is_target:  # the file of a redirection
            is_target = False
        elif _REDIRECTION.fullmatch(word):
            is_target = True
        elif _CONTROL.fullmatch(word):
            yield from _own_command(part)
            part = []
        else:
            part.append(word)


def _own_command(words: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    while words and _PREFIX.match(f"{words[0]} "):
        words = words[1:]
    if words and words[0] in _PROGRAMS:
        yield shlex.join(words), tuple(words)


def commands_in_text(file: Path, page: str) -> Iterator[DocumentedCommand]:
    """Every command of ours between back-ticks in the text, with the places for what the reader fills in."""
    without = _FENCE.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), page)
    for match in _INLINE.finditer(without):
        text = " ".join(match["text"].replace("\\|", "|").split())
        yield DocumentedCommand(file, page.count("\n", 0, match.start()) + 1, text, tuple(text.split()))


def objection(words: Sequence[str]) -> str:
    """What the real command says against this command line; empty if it would begin its work."""
    program, *rest = words
    try:
        if program == "hpc-task":
            task.make_context(program, rest)
            return ""
        context = _context(rest)
        if context.info_name == "daemon":
            flags = {name: value for name, value in context.params.items() if name != "for_user"}
            DaemonFlags(**flags).check()
        if context.info_name == "sbatch":
            return _unknown(context.command, [word for word in rest if word.startswith("--clearml")])
    except click.exceptions.Exit:  # --help, --version
        return ""
    except click.ClickException as error:
        return error.format_message() or "no command is named"
    except HpcAgentError as error:
        return str(error)
    return ""


def _context(words: list[str]) -> click.Context:
    """The context of the innermost command."""
    command: click.Command = group
    context = group.make_context("hpc-agent", words)
    # As click.Group.invoke takes them; `hpc-agent server` does something without a command too.
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, inner, words = command.resolve_command(context, rest)
        assert inner is not None
        command = inner
        context = command.make_context(name, words, parent=context)
    return context


def unknown_names(words: Sequence[str]) -> str:
    """The command or the options in ``words`` that do not exist; of a command with places for what the reader fills in
    more cannot be checked."""
    program, *rest = words
    name = program
    command: click.Command | None = task if program == "hpc-task" else group
    while isinstance(command, click.Group):
        known = _options(command)
        if not rest or rest[0] in ("--help", "--version"):
            return ""
        while rest and rest[0].startswith("-"):
            option = rest.pop(0)
            if option not in known:
                return f"no option {option}"
            if rest and not known[option].is_flag:
                rest.pop(0)
        if not rest or not rest[0].isalpha():  # hpc-agent …, hpc-agent server
            return ""
        name = rest.pop(0)
        command = command.get_command(click.Context(command), name)
        if command is None:
            return f"no command {name}"
    assert command is not None
    return "" if name == "sbatch" else _unknown(command, rest)


def _unknown(command: click.Command, words: Sequence[str]) -> str:
    options = _options(command)
    options |= {"--help": click.Option(["--help"])}
    named = [re.sub(r"[\],;)]+$", "", word.lstrip("[(")).partition("=")[0] for word in words]
    unknown = [name for name in named if re.fullmatch(r"--[a-z][\w-]*|-[a-zA-Z]", name) and name not in options]
    return f"no option {', '.join(unknown)}" if unknown else ""


def _options(command: click.Command) -> dict[str, click.Option]:
    found = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {name: option for option in found for name in (*option.opts, *option.secondary_opts)}
