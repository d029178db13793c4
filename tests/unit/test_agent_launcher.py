"""The launcher that runs this program from a copy on a node's own disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_agent import agent_launcher
from hpc_agent.bundles.agent_archive import archive_of

PROGRAM = "import sys; print('copy', sys.prefix, *sys.argv[1:], flush=True)\n"
BASE = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@dataclass(frozen=True)
class Node:
    """``installed`` is run where there is no copy; it prints a line of its own. As in a job, the working directory has
    no package of the program's name."""

    archive: Path
    installed: Path
    scratch: Path

    def argv(self, *arguments: str) -> list[str]:
        launcher = [BASE, "-I", "-S", agent_launcher.__file__, str(self.archive), str(self.installed)]
        return [*launcher, "NO_SUCH_VARIABLE", str(self.scratch), "--", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*arguments), text=True, capture_output=True, timeout=120, check=False, cwd="/")

    @property
    def copies(self) -> Path:
        return self.scratch / f"hpc-agent-{os.getuid()}" / "agents"

    @property
    def copy(self) -> Path:
        return self.copies / self.archive.name.partition(".")[0]


def small_program(root: Path, text: str = PROGRAM) -> bytes:
    packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    package = packages / "hpc_agent"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(text)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(BASE)
    (root / "pyvenv.cfg").write_text(f"home = {Path(BASE).parent}\ninclude-system-site-packages = false\n")
    return archive_of(root)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    data = small_program(tmp_path / "packed" / "agent")
    archive = tmp_path / f"{hashlib.sha256(data).hexdigest()}.tar.gz"
    archive.write_bytes(data)
    installed = tmp_path / "installed"
    installed.write_text('#!/bin/sh\necho installed "$@"\n')
    installed.chmod(0o755)
    return Node(archive, installed, tmp_path / "scratch")


def test_first_start_unpacks_and_later_ones_find_the_copy(node: Node) -> None:
    first = node.run("execute", "--id", "a b")
    assert (first.stdout, first.stderr) == (f"copy {node.copy} execute --id a b\n", "")
    node.archive.unlink()
    assert node.run("--version").stdout == f"copy {node.copy} --version\n"
    assert node.copies.stat().st_mode & 0o777 == 0o700


def test_same_files_make_the_same_archive(tmp_path: Path) -> None:
    assert small_program(tmp_path / "one") == small_program(tmp_path / "two")


def test_damaged_archive_is_not_run(node: Node) -> None:
    node.archive.write_bytes(node.archive.read_bytes()[:-20])
    done = node.run("execute")
    assert done.stdout == "installed -m hpc_agent execute\n"
    assert f"{node.archive} is damaged" in done.stderr
    assert not node.copy.exists()


def test_missing_archive_costs_no_task(node: Node) -> None:
    node.archive.unlink()
    done = node.run("execute")
    assert done.stdout == "installed -m hpc_agent execute\n"
    assert "no copy of the program on this node" in done.stderr


def test_file_that_a_cleaner_took_comes_back(node: Node) -> None:
    node.run()
    [package] = node.copy.glob("lib/*/site-packages/hpc_agent")
    kept = (package / "__init__.py").stat().st_ino
    (package / "__main__.py").unlink()
    assert not agent_launcher.is_untouched(str(node.copy))
    assert node.run().stdout == f"copy {node.copy}\n"
    assert agent_launcher.is_untouched(str(node.copy))
    assert (package / "__init__.py").stat().st_ino == kept, "other jobs may run from it"


def test_jobs_that_start_together_unpack_once(node: Node) -> None:
    started = [
        subprocess.Popen(node.argv(str(number)), stdout=subprocess.PIPE, text=True, cwd="/") for number in range(8)
    ]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert printed == [f"copy {node.copy} {number}\n" for number in range(8)]
    assert sorted(path.suffix for path in node.copies.iterdir()) == ["", ".lock", ".used"]


def test_folder_that_others_can_write_to_is_not_used(node: Node) -> None:
    folder = node.scratch / f"hpc-agent-{os.getuid()}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    done = node.run("execute")
    assert done.stdout == "installed -m hpc_agent execute\n"
    assert "another user could write to it" in done.stderr


def test_shared_scratch_where_every_user_may_rename_is_not_used(node: Node) -> None:
    node.scratch.mkdir()
    node.scratch.chmod(0o777)
    assert node.run("execute").stdout == "installed -m hpc_agent execute\n"


def test_copy_without_its_interpreter_is_not_used(node: Node, tmp_path: Path) -> None:
    node.run()
    (node.copy / "bin" / "python").unlink()
    (node.copy / "bin" / "python").symlink_to(tmp_path / "gone")
    os.utime(node.copy / "bin", (agent_launcher.FOLDER_TIME, agent_launcher.FOLDER_TIME))
    assert node.run("execute").stdout == "installed -m hpc_agent execute\n"


def test_new_version_removes_old_copies_that_no_process_uses(node: Node, tmp_path: Path) -> None:
    unused, used = node.copies / ("0" * 64), node.copies / ("1" * 64)
    node.run()
    for copy in (unused, used):
        node.copy.rename(copy) if copy is unused else copy.mkdir()
    with used.with_name(f"{used.name}.used").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert node.run().stdout == f"copy {node.copy}\n"
    assert used.exists() and not unused.exists()


def test_what_killed_jobs_left_is_removed(node: Node) -> None:
    node.copies.mkdir(parents=True)
    node.scratch.chmod(0o755)
    node.copies.parent.chmod(0o700)
    for key in (node.copy.name, "0" * 64):
        (node.copies / f"{key}.4711.part" / "lib").mkdir(parents=True)
    assert node.run().stdout == f"copy {node.copy}\n"
    assert [path for path in node.copies.iterdir() if path.is_dir()] == [node.copy]


def test_running_program_keeps_its_copy(tmp_path: Path, node: Node) -> None:
    data = small_program(tmp_path / "waits", "input()\n")
    archive = tmp_path / f"{hashlib.sha256(data).hexdigest()}.tar.gz"
    archive.write_bytes(data)
    waiting = Node(archive, node.installed, node.scratch)
    with subprocess.Popen(waiting.argv(), stdin=subprocess.PIPE, text=True, cwd="/") as process:
        while not agent_launcher.is_untouched(str(waiting.copy)):
            assert process.poll() is None
        node.run()
        assert waiting.copy.exists()
        process.communicate("\n", timeout=60)
    node.copy.rename(tmp_path / "put aside")
    node.run()
    assert not waiting.copy.exists()
