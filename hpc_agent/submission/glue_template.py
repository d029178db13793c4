"""Job scripts from templates in the form of ClearML's Slurm glue: bash with ``${CLEARML_…}`` in it.

The template's own text is kept as it is. What a user wrote is quoted for its place. The block
``${CLEARML_AGENT_EXECUTE}`` becomes the agent; with a container launcher (``ContainerLaunch``) its line becomes the
function by which the agent, which stays on the node, starts the task's process.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.base import ScriptLanguage
from hpc_agent.submission.glue_variables import (
    AGENT_EXECUTE,
    POST_SETUP,
    PRE_SETUP,
    GlueFacts,
    Value,
    Variable,
    split,
    value,
)
from hpc_agent.submission.second_reading import is_read_again
from hpc_agent.submission.shell_position import Position
from hpc_agent.submission.task_text import TaskText, quoted, refuse_unfit

LAUNCH_FUNCTION = "hpc_agent_launch"
"""Name of the script's function that starts the command it is given in the task's container."""
_CONTAINER_OPTION = re.compile(r"--(?:no-)?container(?:-[a-z-]+)?(?:=.*)?", re.DOTALL)
_ONLY_COMMENTS = re.compile(r"(?:[ \t]*(?:#[^\n]*)?(?:\n|\Z))*")
_KEYWORDS = frozenset(
    ["!", "case", "do", "elif", "else", "for", "function", "if", "select", "then", "until", "while", "{", "("]
)

_RUN_FUNCTION = """\
# Runs the agent, passes on the signals that this shell gets, and goes on when the agent has ended.
hpc_agent_run() {
    local code again
    (trap '' USR1; exec "$@") &
    hpc_agent_pid=$!
    trap 'hpc_agent_signalled=1; kill -USR1 "$hpc_agent_pid" 2>/dev/null' USR1
    trap 'hpc_agent_signalled=1; kill -TERM "$hpc_agent_pid" 2>/dev/null' TERM INT
    while :; do
        hpc_agent_signalled=
        code=0
        wait "$hpc_agent_pid" || code=$?
        # A wait that a signal interrupted does not mean that the agent has ended.
        [ -n "$hpc_agent_signalled" ] || break
        kill -0 "$hpc_agent_pid" 2>/dev/null && continue
        again=0
        wait "$hpc_agent_pid" 2>/dev/null || again=$?
        # 127: the first wait has taken its exit code.
        [ "$again" = 127 ] || code=$again
        break
    done
    trap - USR1 TERM INT
    return "$code"
}
"""
_CONTAINER_SETUP = """\
export CLEARML_AGENT__AGENT__VENVS_DIR="$HPC_AGENT_RUN_DIR"
ln -sfn "$CLEARML_CONFIG_FILE" "$HPC_AGENT_RUN_DIR/clearml.conf"
# The agent calls a function of this script to start the task: it and what it names must reach the agent.
set -a
"""


class ContainerLaunch(Enum):
    """What the template starts containers with; the values are those of ``hpc.container.runtime``."""

    SINGULARITY = "apptainer"
    """``--singularity-mode``: ``srun singularity exec [options] ${CLEARML_AGENT_EXECUTE}``."""
    SRUN = "pyxis"
    """``--srun-delegation``: a function ``srun`` of the template; or ``#SBATCH --container-…`` options."""


class GlueJob(msgspec.Struct, frozen=True):
    """What a script is made from in addition to the facts. ``agent`` and ``flags`` are the program and the further
    flags of ``execute``, as lists; ``exports`` are shell words by name."""

    run_dir: Path
    config_file: Path
    agent: Sequence[str]
    task: str
    flags: Sequence[str]
    exports: Mapping[str, str]
    directives: Sequence[str] = ()
    """Options that stand for the site's policy; those of the template come later and win."""
    signal: str = ""
    """Value of ``--signal``; empty: no warning ahead of the time limit."""
    launch: ContainerLaunch | None = None


def uses_container_directives(template: str, prefix: str) -> bool:
    """Whether a template asks for its container by ``#SBATCH --container-image``."""
    return re.search(rf"^{re.escape(prefix)}\s(?:.*\s)?--container-image\b", template, re.MULTILINE) is not None


def script(template: str, facts: GlueFacts, job: GlueJob, language: ScriptLanguage) -> str:
    """The job script.

    Raises:
        TemplateError: the template lacks a block, or cannot hold what the task brings.
    """
    filled = _Filler(facts, language).fill(template)
    if job.launch is None and filled.container_options:
        job = replace(job, launch=ContainerLaunch.SRUN)
    return _Assembly(filled, job, language).text()


class _Block(msgspec.Struct):
    """A block of the template. Offsets are those of the filled text, in which the block itself is empty."""

    variable: Variable
    line: int
    at: int
    line_start: int
    line_end: int
    prefix: str
    is_top_level: bool

    @property
    def is_alone(self) -> bool:
        return not self.prefix.strip()


class _Filled(msgspec.Struct, frozen=True):
    """The template with values in it and without its blocks."""

    text: str
    blocks: Sequence[_Block]
    container_options: Sequence[str]
    """Words of the ``--container-…`` directives, which are taken out of the text."""

    def of(self, name: str) -> list[_Block]:
        return [block for block in self.blocks if block.variable.name == name]


class _Filler:
    """Follows the template as bash reads it, so that each value is quoted for its place; ``fill`` once."""

    def __init__(self, facts: GlueFacts, language: ScriptLanguage) -> None:
        self._facts = facts
        self._language = language
        self._position = Position(language.prefix)
        self._text = ""
        self._line_start = 0
        """Offset at which the current command line begins, over all lines that it continues."""
        self._blocks: list[_Block] = []
        self._options: list[str] = []
        self._has_command = False
        """Whether a command came, after which sbatch reads no options."""

    def fill(self, template: str) -> _Filled:
        for piece in split(template if template.endswith("\n") else f"{template}\n"):
            if isinstance(piece, str):
                self._add(piece)
            elif self._position.is_comment and not self._is_known(piece):
                self._add(piece.text)
            elif piece.is_block:
                self._add_block(piece)
            else:
                self._add(self._placed(piece))
        return _Filled(self._text, self._blocks, self._options)

    def _is_known(self, variable: Variable) -> bool:
        try:
            return not variable.is_block and value(variable, self._facts) is not None
        except TemplateError:
            return False

    def _add(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            self._text += line
            is_directive = self._position.is_directive or line.startswith(self._language.prefix)
            if not line.endswith("\n"):
                self._position.advance(line)
                continue
            self._position.advance(line[:-1])
            is_comment = self._position.is_comment or is_directive
            self._position.advance("\n")
            if not self._position.command_line and self._position.is_top_level:
                self._end_command_line(is_comment)

    def _end_command_line(self, is_comment: bool) -> None:
        line = self._text[self._line_start : -1]
        if not is_comment and line.strip():
            self._has_command = True
        elif not self._has_command and (words := self._container_words(line)):
            self._options += words
            self._text = self._text[: self._line_start]
        for block in self._blocks:
            if block.line_end < 0:
                block.line_end = len(self._text) - 1
        self._line_start = len(self._text)

    def _container_words(self, line: str) -> list[str]:
        """Words of a directive that has container options only; none where it has no such option.

        Raises:
            TemplateError: it has other options too, which sbatch would have to read with those.
        """
        if not re.match(rf"{re.escape(self._language.prefix)}\s", line):
            return []
        words = _shell_words(line.removeprefix(self._language.prefix), comments=True)
        ours = [word for word in words if _CONTAINER_OPTION.fullmatch(word)]
        if ours and len(ours) < len(words):
            raise TemplateError(
                f"{line.strip()!r} has more words than {shlex.join(ours)}: write the options of a container on a line "
                "of their own, each with its value behind an equals sign"
            )
        return ours

    def _add_block(self, variable: Variable) -> None:
        self._has_command = True
        position = self._position
        prefix = position.command_line
        self._blocks.append(
            _Block(variable, position.line, len(self._text), self._line_start, -1, prefix, position.is_top_level)
        )

    def _placed(self, variable: Variable) -> str:
        found = value(variable, self._facts)
        if found is None:
            path = variable.name.removeprefix("TASK.")
            raise TemplateError(
                f"line {self._position.line} names {variable.text}, but the task has no {path} and no default is "
                f"given: set it on the task, or write a default, as in ${{CLEARML_{variable.name}:default}}"
            )
        if not found.is_users:
            return found.text
        return self._quoted(variable, found)

    def _quoted(self, variable: Variable, found: Value) -> str:
        quotes = self._position.quotes
        is_plain = shlex.quote(found.text) == found.text
        if not is_plain and not self._position.is_directive and not self._position.is_comment:
            self._refuse_second_reading(variable)
        if not is_plain and quotes:
            return self._in_quotes(variable, found.text, quotes)
        words = _shell_words(found.text) if found.in_words and not quotes else [found.text]
        return " ".join(quoted(TaskText(word, variable.text), self._position, self._language) for word in words)

    def _refuse_second_reading(self, variable: Variable) -> None:
        if is_read_again(self._position.command_line):
            raise TemplateError(
                f"{variable.text} on line {self._position.line} of the template goes to a command that reads its "
                "argument as a program once more, where this task's text cannot be quoted safely: put it into a "
                'variable on a line of its own before, export VALUE=${…}, and let that command expand "$VALUE" itself'
            )

    def _in_quotes(self, variable: Variable, text: str, quotes: str) -> str:
        """The text inside the template's own quotes."""
        where = f"{variable.text} on line {self._position.line} of the template"
        refuse_unfit(text, where)
        if not self._position.is_directive:
            return text.replace("'", "'\\''") if quotes == "'" else re.sub(r'([\\"$`])', r"\\\1", text)
        if quotes == '"':
            return text.replace("\\", "\\\\").replace('"', '\\"')
        if not set(text) & set("'\\"):
            return text
        raise TemplateError(f"{where} is in single quotes, in which sbatch knows no quoting: use double quotes")


def _shell_words(text: str, *, comments: bool = False) -> list[str]:
    try:
        return shlex.split(text, comments=comments)
    except ValueError as error:
        raise TemplateError(f"{text.strip()!r} cannot be split into words: {error}") from error


class _Assembly:
    """Puts what is ours into the filled template."""

    def __init__(self, filled: _Filled, job: GlueJob, language: ScriptLanguage) -> None:
        self._filled = filled
        self._job = job
        self._language = language
        self._runs_function = False
        self._takes_warning = True
        """Whether the shell passes a signal on to the agent, or has become the agent."""

    def text(self) -> str:
        setup = self._only_block(PRE_SETUP, "before the agent")
        edits = [self._container_edit()] if self._job.launch else self._native_edits()
        text = self._filled.text
        for start, end, new in sorted([*edits, (setup.at, setup.at, self._setup())], reverse=True):
            text = text[:start] + new + text[end:]
        return self._with_directives(text)

    def _only_block(self, name: str, what: str) -> _Block:
        blocks = self._filled.of(name)
        if len(blocks) != 1 or not blocks[0].is_alone:
            raise TemplateError(
                f"it needs ${{CLEARML_{name}}} once, on a line of its own {what}, "
                f"and has it {f'{len(blocks)} times' if len(blocks) != 1 else f'on line {blocks[0].line} behind text'}"
            )
        return blocks[0]

    def _native_edits(self) -> list[tuple[int, int, str]]:
        blocks = self._filled.of(AGENT_EXECUTE)
        if not blocks:
            raise TemplateError("it has no ${CLEARML_AGENT_EXECUTE}, so it would never run the task")
        if len(blocks) == 1 and blocks[0].is_alone and self._is_last(blocks[0].at):
            return [(blocks[0].at, blocks[0].at, self._exec())]
        return [(block.at, block.at, self._call(block)) for block in blocks]

    def _call(self, block: _Block) -> str:
        if block.is_alone and block.is_top_level:
            self._runs_function = True
            return f"hpc_agent_run {self._agent()}"
        self._takes_warning = False
        return self._agent()

    def _container_edit(self) -> tuple[int, int, str]:
        """The command line of the block becomes a function, and the agent is started in its place."""
        if "bash" not in self._filled.text.partition("\n")[0]:
            raise TemplateError("its first line does not name bash, whose functions start the container")
        start, end, line = self._container_line()
        first = (line.split() or [""])[0]
        if first in _KEYWORDS:
            raise TemplateError(
                f"${{CLEARML_AGENT_EXECUTE}} is behind {first}, but has to be in a command of its own, which the "
                "agent calls to start the container"
            )
        launch = f"{LAUNCH_FUNCTION}() {{\n{line}\n}}\n"
        if self._is_last(end):
            return start, end, launch + self._exec()
        self._runs_function = True
        return start, end, f"{launch}hpc_agent_run {self._agent()}"

    def _container_line(self) -> tuple[int, int, str]:
        text, options = self._filled.text, shlex.join(self._filled.container_options)
        command = " ".join(filter(None, [options, '"$@"']))
        blocks = self._filled.of(AGENT_EXECUTE)
        if len(blocks) > 1 or not all(block.is_top_level for block in blocks):
            raise TemplateError("it needs ${CLEARML_AGENT_EXECUTE} once, in a command of its own")
        if not blocks:
            if self._job.launch is not ContainerLaunch.SRUN:
                raise TemplateError("it has no ${CLEARML_AGENT_EXECUTE}, so it would never run the task")
            end = self._only_block(POST_SETUP, "at which the agent starts the task through srun")
            return end.at, end.at, f"srun {command}"
        block = blocks[0]
        if block.is_alone and self._job.launch is ContainerLaunch.SINGULARITY:
            raise TemplateError(
                "with --singularity-mode a command has to be before ${CLEARML_AGENT_EXECUTE}, as in "
                "srun singularity exec ${CLEARML_AGENT_EXECUTE}"
            )
        before = f"{block.prefix}srun " if block.is_alone else text[block.line_start : block.at]
        return block.line_start, block.line_end, f"{before}{command}{text[block.at : block.line_end]}"

    def _is_last(self, at: int) -> bool:
        """Whether only comments follow: the shell has nothing left to do, and becomes the agent."""
        return _ONLY_COMMENTS.fullmatch(self._filled.text, at) is not None

    def _exec(self) -> str:
        return f"exec {self._agent()}"

    def _agent(self) -> str:
        job = self._job
        launch = ["--container-launch", job.launch.value] if job.launch else []
        words = [*job.agent, "execute", "--id", job.task, "--require-queue", *job.flags, *launch]
        return shlex.join(words)

    def _setup(self) -> str:
        job = self._job
        lines = [
            f"export CLEARML_CONFIG_FILE={shlex.quote(str(job.config_file))}",
            f"export HPC_AGENT_RUN_DIR={shlex.quote(str(job.run_dir))}",
            *(f"export {name}={word}" for name, word in job.exports.items()),
        ]
        if job.signal and self._takes_warning:
            lines.append("trap '' USR1")
        setup = "\n".join(lines) + "\n"
        setup += _CONTAINER_SETUP if job.launch else ""
        setup += _RUN_FUNCTION if self._runs_function else ""
        return setup.removesuffix("\n")

    def _with_directives(self, text: str) -> str:
        first, newline, rest = text.partition("\n")
        signal = [f"--signal={self._job.signal}"] if self._job.signal and self._takes_warning else []
        lines = [f"{self._language.prefix} {option}\n" for option in (*self._job.directives, *signal)]
        return f"{first}{newline}{''.join(lines)}{rest}"
