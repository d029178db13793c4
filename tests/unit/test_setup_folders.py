"""Folders that could hold our files, and whether their type can be shared between machines."""

from __future__ import annotations

from pathlib import Path

from hpc_agent.setup.folders import find

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 27 0:50 / {folder}/home rw - nfs4 server:/home rw,vers=4.2
91 27 0:51 / {folder}/my\\040work rw - lustre mds:/work rw
a line that is none
"""


def test_folders_have_the_type_of_the_file_system_that_they_are_on(tmp_path: Path) -> None:
    for name in ("home/ann", "my work/ann", "scratch"):
        (tmp_path / name).mkdir(parents=True)
    environ = {"WORK": str(tmp_path / "my work" / "ann"), "SCRATCH": str(tmp_path / "scratch")}
    home, work, scratch = find(environ, tmp_path / "home" / "ann", "ann", MOUNTS.format(folder=tmp_path))
    assert (home.source, home.file_system, home.shared, home.short_lived) == ("home", "nfs4", True, False)
    assert (work.source, work.file_system, work.shared, work.short_lived) == ("$WORK", "lustre", True, False)
    assert (scratch.source, scratch.file_system, scratch.shared, scratch.short_lived) == (
        "$SCRATCH",
        "ext4",
        False,
        True,
    )
    assert scratch.free_gib > 0


def test_folders_that_are_missing_or_the_same_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    environ = {"WORK": str(tmp_path / "link"), "SCRATCH": str(tmp_path / "missing"), "PROJECT": "relative"}
    assert [folder.path for folder in find(environ, tmp_path, "nobody-here", MOUNTS)] == [tmp_path]


def test_this_machines_own_table_of_mounts_is_read(tmp_path: Path) -> None:
    [folder] = find({}, tmp_path, "nobody-here")
    assert folder.file_system != "unknown"
