"""Site's changes to a task's code on the node: an added SDK init call, and the custom build script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.file_records import ensure_directory
from hpc_agent.process.programs import run
from hpc_agent.sources.changes import text_with_init
from hpc_agent.sources.workspace import EntryKind, EntryPoint, Workspace, expand_variables
from hpc_agent.struct_types import decodable

_BUILD_TIMEOUT_S = 3600
_LARGEST_TEXT = 100_000
"""Linux gives a variable 128 KiB."""


def add_init(workspace: Workspace) -> str:
    """Put a call of ``Task.init`` into the entry file, where it has none; returns a line for the console."""
    path = workspace.cwd / workspace.entry.text
    if workspace.entry.kind is not EntryKind.PYTHON or path.suffix != ".py":
        return "agent.force_task_init changes Python scripts only"
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if "Task.init" in text:
        return f"{workspace.entry.text} calls Task.init itself"
    path.write_text(text_with_init(text), encoding="utf-8", errors="surrogateescape")
    return f"Added a call of Task.init to {workspace.entry.text}"


class ScriptResult(msgspec.Struct, frozen=True):
    """Choice of a build script. All three paths exist."""

    binary: Path
    entry_point: Path
    working_dir: Path

    def workspace(self, before: Workspace) -> Workspace:
        return Workspace(
            before.root, self.working_dir, EntryPoint(EntryKind.PYTHON, str(self.entry_point)), before.notes
        )


class _ScriptOutput(msgspec.Struct):
    binary: str
    entry_point: str
    working_dir: str


class BuildScript(msgspec.Struct, frozen=True):
    """``agent.custom_build_script``. ``task`` is the server's own object.

    See docs/internals/clearml-protocol.md#custom-build-script.
    """

    setting: str
    task: Mapping[str, Any]
    workspace: Workspace
    folder: Path
    """Node-local, of this run."""

    def run(self, environ: Mapping[str, str], write_line: Callable[[str], None]) -> ScriptResult | None:
        """Its choice; None when the script does not exist or chose nothing: then the usual way goes on.

        Raises:
            EnvironmentBuildError: it failed.
        """
        output = ensure_directory(self.folder) / "custom-build.json"
        own = self._variables(output)
        script = Path(expand_variables(self.setting, {**environ, **own})).expanduser()
        if not script.is_file():
            write_line(f"The custom build script {script} does not exist: going on without it")
            return None
        write_line(f"Running the custom build script {script}")
        done = run([str(script)], timeout=_BUILD_TIMEOUT_S, env={**environ, **own}, cwd=self.workspace.cwd)
        for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
            write_line(line)
        if not done.ok:
            raise EnvironmentBuildError(f"the custom build script {script} ended with exit code {done.returncode}")
        return _read_choice(output, write_line)

    def _variables(self, output: Path) -> dict[str, str]:
        script = self.task.get("script") or {}
        return {
            "CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON": _text(self.task),
            "CLEARML_TASK_SCRIPT_ENTRY": str(script.get("entry_point") or ""),
            "CLEARML_TASK_WORKING_DIR": str(script.get("working_dir") or ""),
            "CLEARML_VENV_PATH": str(self.folder / "venv"),
            "CLEARML_GIT_ROOT": str(self.workspace.root),
            "CLEARML_CUSTOM_BUILD_OUTPUT": str(output),
        }


def _text(task: Mapping[str, Any]) -> str:
    text = json.dumps(task, separators=(",", ":"), default=str)
    if len(text) <= _LARGEST_TEXT:
        return text
    # Uncommitted changes make it large, and are in the code already.
    short = {**task, "script": {**(task.get("script") or {}), "diff": ""}}
    return json.dumps(short, separators=(",", ":"), default=str)[:_LARGEST_TEXT]


def _read_choice(output: Path, write_line: Callable[[str], None]) -> ScriptResult | None:
    try:
        chosen = msgspec.json.decode(output.read_bytes(), type=decodable(_ScriptOutput))
    except FileNotFoundError:
        write_line("The custom build script chose nothing: going on without it")
        return None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        write_line(f"The choice of the custom build script cannot be read ({error}): going on without it")
        return None
    built = ScriptResult(Path(chosen.binary), Path(chosen.entry_point), Path(chosen.working_dir))
    missing = [path for path in (built.binary, built.entry_point, built.working_dir) if not path.exists()]
    if missing:
        write_line(f"The custom build script chose {missing[0]}, which does not exist: going on without it")
        return None
    return built
