"""A trial of a mutant: the tests that concern it, run in a copy of the tree that has the mutant's line."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from queue import SimpleQueue

from mutation.mutants import Mutant, MutantError, Mutants, mutated

PACKAGE = "hpc_agent"
_FAILED, _PASSED = 1, 0
"""Exit codes of pytest."""


class Outcome(Enum):
    KILLED = "killed"
    TIMED_OUT = "timed out"
    """Killed too: the tests came to no end."""
    SURVIVED = "survived"
    BROKEN = "broken"
    """The tests could not be run with it, which says nothing of them."""


@dataclass(frozen=True)
class Trial:
    mutant: Mutant
    outcome: Outcome
    seconds: float
    by: str = ""
    """The first test that failed, or what pytest said where it could not run."""

    @property
    def is_killed(self) -> bool:
        return self.outcome in (Outcome.KILLED, Outcome.TIMED_OUT)

    @property
    def is_as_listed(self) -> bool:
        """Killed, or one that is said to survive, and does."""
        return self.outcome is Outcome.SURVIVED if self.mutant.survives else self.is_killed


class Tree:
    """A copy of the tree to break files in."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in _files(root):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        # Once, for all runs: those with a mutant write no compiled code.
        compileall.compile_dir(folder / PACKAGE, quiet=1)

    @contextmanager
    def having(self, mutant: Mutant) -> Iterator[None]:
        path = self.folder / mutant.file
        source = path.read_text(encoding="utf-8")
        # Python takes compiled code for current if size and second of the source are the same.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()
        path.write_text(mutated(source, mutant), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")
            compileall.compile_file(path, quiet=1)

    def imports_itself(self) -> bool:
        """Whether tests in it see its own package and not the one that is installed."""
        argv = [sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"]
        found = subprocess.run(argv, cwd=self.folder, env=self._environ(), text=True, capture_output=True, check=True)
        return Path(found.stdout.strip()).is_relative_to(self.folder)

    def test(self, tests: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """pytest's exit code, None if it was ended after ``seconds``, and its output."""
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
        with subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self._environ(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                return None, output
        return process.returncode, output

    def _environ(self) -> Mapping[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "EXPLORE"))}
        return {**environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}


def _files(root: Path) -> list[str]:
    """Tracked, or new and not ignored."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=root, text=True, capture_output=True, check=True)
    return sorted(set(listed.stdout.split("\0")) - {""})


def try_all(root: Path, mutants: Mutants, *, jobs: int, seconds: float, tests_pass: bool = False) -> Iterator[Trial]:
    """Each mutant in turn, ``jobs`` at once, as they end.

    ``seconds``: for the tests of one. ``tests_pass``: it is known that they do without any mutant.

    Raises:
        MutantError: a mutant does not apply, or the tests fail without any.
    """
    for mutant in mutants.all:
        mutated((root / mutant.file).read_text(encoding="utf-8"), mutant)
    with tempfile.TemporaryDirectory(prefix="mutants") as folder, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(min(jobs, len(mutants.all))):
            trees.put(_own_tree(root, Path(folder) / str(number)))
        if not tests_pass:
            _must_pass(trees, mutants, seconds)

        def trial(mutant: Mutant) -> Trial:
            tree = trees.get()
            try:
                return _trial(tree, mutant, mutants.tests(mutant), seconds)
            finally:
                trees.put(tree)

        yield from pool.map(trial, mutants.all)


def _own_tree(root: Path, folder: Path) -> Tree:
    tree = Tree(root, folder)
    if not tree.imports_itself():
        raise MutantError(f"tests in the copy {folder} do not see its own package")
    return tree


def _must_pass(trees: SimpleQueue[Tree], mutants: Mutants, seconds: float) -> None:
    """Without a mutant: of tests that fail anyway nothing is learned."""
    tests = list(dict.fromkeys(name for mutant in mutants.all for name in mutants.tests(mutant)))
    tree = trees.get()
    code, output = tree.test(tests, seconds * 4)
    trees.put(tree)
    if code != _PASSED:
        raise MutantError(f"without any mutant the tests end with exit code {code}:\n{output[-4000:]}")


def _trial(tree: Tree, mutant: Mutant, tests: Sequence[str], seconds: float) -> Trial:
    begun = time.monotonic()
    with tree.having(mutant):
        code, output = tree.test(tests, seconds)
    took = time.monotonic() - begun
    if code is None:
        return Trial(mutant, Outcome.TIMED_OUT, took, f"no end in {seconds:.0f} s")
    if code == _PASSED:
        return Trial(mutant, Outcome.SURVIVED, took)
    failed = re.search(r"^FAILED (\S+)", output, re.MULTILINE)
    if code == _FAILED and failed:
        return Trial(mutant, Outcome.KILLED, took, failed[1])
    return Trial(mutant, Outcome.BROKEN, took, f"pytest's exit code {code}: {output[-1000:]}")
