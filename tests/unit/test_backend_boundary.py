"""What knows a batch system by name: its own folder, and a list of others that may only become shorter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from syntax_trees import syntax_nodes

from hpc_agent.schedulers.registry import BACKENDS

PACKAGE = Path(__file__).parents[2] / "hpc_agent"

NAMES = {
    "slurm": re.compile(r"slurm|sbatch|squeue|sacct|scontrol|scancel|\bsrun\b", re.IGNORECASE),
    "gridengine": re.compile(r"grid.?engine|\bsge\b|SGE_|qsub|qstat|qacct|\bqdel\b", re.IGNORECASE),
}
"""What a backend is known by, in names and strings. The backend ``local`` has no names of its own."""

KNOWN = {
    "slurm": {
        # Commands that are Slurm's by name: `hpc-agent sbatch`, and `follow` for what it submitted.
        *("cli/sbatch.py", "cli/follow.py", "cli/main.py", "cli/shared_options.py"),
        # What these commands do: a user's sbatch command and its output, and sentences on its task.
        *(
            f"tracking/{name}.py"
            for name in (
                *("describe", "follower", "hook", "output_files", "sbatch_options", "sbatch_output", "sidecar"),
                *("submission_request", "task_start", "tracked_submission", "tracking_policy", "unclear_submissions"),
            )
        ),
        # A container as a step of a job.
        "containers/runtimes.py",
        # What ClearML's variables do here, in sentences.
        "config/variables.py",
        # The old name of a setting.
        "config/names.py",
        # The property and the runtime key by which a task names its job: they are on tasks of years.
        "wire/task_state.py",
        # The folder of what `hpc-agent sbatch` submitted.
        "tracking/tracked_records.py",
        # Names of files in a run directory.
        *("runs/directory.py", "daemon/job_staging.py"),
        # Sentences on a task that still name sbatch or scontrol, whatever ran it.
        *("domain/decide.py", "domain/job.py", "domain/resources.py", "envs/materialize.py"),
        # Jobs of this machine run Slurm's scripts, whose directives are comments here.
        *("schedulers/local/backend.py", "schedulers/local/scheduler.py"),
        # Templates in the form of ClearML's Slurm glue, and the flags and the setting that have Slurm in their names.
        *("cli/daemon.py", "cli/daemon_flags.py", "cli/execute.py", "config/settings.py"),
        *("executor/template_launch.py", "submission/glue_template.py"),
        # The name of a launcher, by which users choose it.
        "domain/launch_plan.py",
        "submission/render.py",
        "schedulers/registry.py",
    },
    "gridengine": {"schedulers/registry.py"},
}
"""Files outside of a backend's folder that know its names."""


def known(path: Path, names: re.Pattern[str]) -> Iterator[str]:
    """Identifiers and strings of a module that hold one of the names; docstrings and comments may."""
    nodes = syntax_nodes(path)
    prose = {
        id(statement.value)
        for node in nodes
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in nodes:
        words = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "module")]
        if isinstance(node, ast.Constant) and id(node) not in prose:
            words.append(node.value)
        yield from (word for word in words if isinstance(word, str) and names.search(word))


@pytest.mark.parametrize("backend", sorted(NAMES))
def test_only_listed_files_know_a_backend_by_name(backend: str) -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not str(path.relative_to(PACKAGE)).startswith(f"schedulers/{backend}") and any(known(path, NAMES[backend]))
    }
    assert found == KNOWN[backend]


def test_every_backend_with_names_is_checked() -> None:
    assert {*NAMES, "local"} == set(BACKENDS)


def test_variables_of_jobs_are_read_by_backends_alone() -> None:
    pattern = re.compile(r"\bSLURM_[A-Z]|\bSGE_[A-Z]")
    found = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "schedulers" not in path.parts and any(pattern.search(word) for word in known(path, pattern))
    }
    # `hpc-agent sbatch` and the glue's templates have shell code for Slurm's jobs; config and envs name variables in
    # sentences.
    assert found <= {"tracking", "executor", "config", "envs"}
