"""Whether what ``--args`` sets can reach the code: through the init call, which answers for ``argparse``. Pure."""

from __future__ import annotations

import ast
import posixpath
import sys
from collections.abc import Iterator

from hpc_agent.drafts.code import Code
from hpc_agent.drafts.draft_request import DraftRequest

_BUILT_IN = sys.stdlib_module_names - {"argparse", "importlib", "runpy", "subprocess"}
"""Modules of Python's own that neither parse a command line nor start what might."""


def lost_arguments(request: DraftRequest, code: Code) -> str:
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
    """The top-level modules that a Python text imports; one that stands for all where it cannot be read."""
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
