"""Code of a draft, and the ``script`` section that follows from it. Pure.

See docs/internals/clearml-protocol.md#drafts.
"""

from __future__ import annotations

import posixpath

import msgspec

from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.sources.changes import INIT, add_lines, first_free_line, text_with_init

SHELL = "/bin/bash"


class Code(msgspec.Struct, frozen=True):
    """The code that a user pointed at.

    ``entry_point`` is a path relative to ``working_dir``, which is relative to the repository's root, or ``-m …``.
    ``text`` is the entry point's text where it is known. With ``literal`` it travels whole, else only what ``diff``
    holds does: the uncommitted changes to ``commit``.
    """

    entry_point: str
    working_dir: str = "."
    repository: str = ""
    branch: str = ""
    commit: str = ""
    diff: str = ""
    text: str | None = None
    literal: bool = False
    python: str = ""
    """The interpreter it was seen with (``python3.11``); empty for code that is not on this machine."""

    @property
    def is_module(self) -> bool:
        return self.entry_point.startswith("-m ")

    @property
    def suffix(self) -> str:
        return "" if self.is_module else posixpath.splitext(self.entry_point)[1].lower()

    @property
    def is_shell(self) -> bool:
        return self.suffix == ".sh"


def script_section(code: Code, requirements: Requirements, *, init: bool, binary: str = "") -> TaskScript:
    """The script section; ``init`` adds the init call, ``binary`` beats the interpreter that would be chosen.

    ``requirements.pip`` None means that the repository's own list is used; with ``init`` clearml is then added to it.
    """
    return TaskScript(
        repository=code.repository,
        branch=code.branch,
        commit=code.commit,
        entry_point=code.entry_point,
        working_dir=code.working_dir,
        binary=binary or (SHELL if code.is_shell else code.python),
        diff=_literal(code, init) if code.literal else _patch(code, init, requirements),
        requirements=requirements,
    )


def _literal(code: Code, init: bool) -> str:
    text = code.text or ""
    return _with_final_newline(text_with_init(text)) if init and code.suffix == ".py" else text


def _patch(code: Code, init: bool, requirements: Requirements) -> str:
    if not init or not code.repository:
        return code.diff
    patch = _with_final_newline(code.diff)
    if requirements.pip is None:
        # At the top of the repository's own list; agents make the file where there is none.
        patch = add_lines(patch, "requirements.txt", 0, ["clearml\n"])
    if code.suffix == ".py":
        # Of a script that is not on this machine nothing is known; agents move the call below __future__ imports.
        after = first_free_line(code.text or "")
        patch = add_lines(patch, posixpath.join(code.working_dir, code.entry_point), after, INIT)
    return patch


def _with_final_newline(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
