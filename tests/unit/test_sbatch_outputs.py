"""Where Slurm writes a job's output, as ``scontrol show job`` says it (captured from 22.05)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_agent.domain.ids import TaskId
from hpc_agent.schedulers.slurm.job_output import output_paths
from hpc_agent.tracking.output_files import locate, not_found, not_opened, readable
from hpc_agent.tracking.sbatch_options import outputs
from hpc_agent.tracking.tracked_records import OutputStream, TrackedRoot

SHOWN = """JobId=2 JobName=s.sh
   Command=/tmp/trk/s.sh a b c
   WorkDir=/tmp/trk
   StdErr={err}
   StdIn=/dev/null
   StdOut={out}
   Power=
"""


@pytest.mark.parametrize(
    ("out", "err", "paths"),
    [
        ("/home/me/slurm-2.out", "/home/me/slurm-2.out", ["/home/me/slurm-2.out"]),
        ("/home/me/my runs/out", "/home/me/err", ["/home/me/my runs/out", "/home/me/err"]),
        ("/dev/null", "/home/me/err", ["/home/me/err"]),
        ("", "", []),
    ],
)
def test_the_output_files_of_a_job(out: str, err: str, paths: list[str]) -> None:
    assert list(output_paths(SHOWN.format(out=out, err=err))) == paths


def test_a_file_of_the_same_name_on_another_machine_s_disk_is_not_the_job_s(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("of this machine\n")
    inode = output.stat().st_ino
    folder = TrackedRoot(tmp_path).of(TaskId("f00d"))
    streams = [
        OutputStream(path=str(output), inode=inode + 1),
        OutputStream(path=str(tmp_path / "none")),
        OutputStream(path=str(output)),
    ]
    [spool] = readable(folder, streams)
    assert spool.read(0, 100) == b"of this machine\n"


JOB = """JobId=25 JobName=n m
   UserId=root(0) GroupId=root(0)
   BatchHost=n2
   StdErr={out}
   StdOut={out}
"""

WRITTEN = [
    ("o-%j", "o-25", "o-25"),
    ("o-%N", "o-%N", "o-vm"),
    ("o-%5N", "o-%5N", "o-vm"),
    ("o-%n", "o-%n", "o-0"),
    ("o-%3t", "o-%3t", "o-000"),
    ("o-%s", "o-%s", "o-batch"),
    ("o-%3s", "o-%3s", "o-batch"),
    ("o-%J", "o-%J", "o-25"),
    ("o-%6J", "o-%6J", "o-000025"),
    ("o-%4j", "o-%4j", "o-0025"),
    ("o-%11j", "o-%11j", "o-0000000025"),
    ("o-%b", "o-%b", "o-%b"),
    ("o-%b", "o-%b", "o-4"),
    ("o-%a", "o-4294967294", "o-4294967294"),
    ("o-%u", "o-root", "o-root"),
    ("o-%2x", "o-%2x", "o-n m"),
    ("o-%%x", "o-%n m", "o-%x"),
    ("o-%%%j", "o-%%25", "o-%25"),
    ("o-%8j-%N", "o-%8j-%N", "o-00000025-vm"),
    ("o-\\%j", "o-\\25", "o-%j"),
    ("\\o-%N", "\\o-%N", "o-%N"),
    ("o-%q[1]*", "o-%q[1]*", "o-%q[1]*"),
    ("o-%", "o-%", "o-%"),
]
"""What was asked for, what scontrol shows of it, and what the file was called on 22.05 (``%b``: 23.11 as well)."""


@pytest.mark.parametrize(("asked", "shown", "written"), WRITTEN, ids=[f"{a} as {w}" for a, _, w in WRITTEN])
def test_a_file_is_found_under_the_name_that_slurm_gave_it(
    asked: str, shown: str, written: str, tmp_path: Path
) -> None:
    (tmp_path / written).write_text("of the job\n", encoding="utf-8")
    (tmp_path / "p-other").write_text("of another one\n", encoding="utf-8")
    stream = located(tmp_path, [asked], shown)
    assert Path(stream.path) == tmp_path / written
    assert stream.inode == (tmp_path / written).stat().st_ino


FROM_SLURM = [(shown, written) for asked, shown, written in WRITTEN if asked not in ("o-%%x", "o-%%%j", "o-\\%j")]
"""In the others scontrol has filled in what is not a pattern."""


@pytest.mark.parametrize(
    ("shown", "written"), FROM_SLURM, ids=[f"{shown} as {written}" for shown, written in FROM_SLURM]
)
def test_of_a_job_whose_wish_is_not_known_it_is_found_by_what_scontrol_shows(
    shown: str, written: str, tmp_path: Path
) -> None:
    (tmp_path / written).write_text("of the job\n", encoding="utf-8")
    assert Path(located(tmp_path, [], shown).path) == tmp_path / written


def located(folder: Path, asked: list[str], shown: str) -> OutputStream:
    text = JOB.format(out=folder / shown)
    [stream] = locate([str(folder / name) for name in asked], text, "25")
    return stream


def test_an_element_of_an_array_has_a_file_of_its_own(tmp_path: Path) -> None:
    text = "JobId=33 ArrayJobId=31 ArrayTaskId=13 JobName=x\n   BatchHost=n1\n   StdOut=/nowhere\n"
    (tmp_path / "o-31-13-0013-%b-33-33").touch()
    [stream] = locate([str(tmp_path / "o-%A-%a-%4a-%b-%j-%J")], text, "31_13")
    assert Path(stream.path).name == "o-31-13-0013-%b-33-33"
    (tmp_path / "p-3").touch()
    [stream] = locate([str(tmp_path / "p-%b")], text, "31_13")
    assert Path(stream.path).name == "p-3"


def test_of_several_the_one_of_the_jobs_node_is_taken_else_the_newest(tmp_path: Path) -> None:
    for name, time in (("o-n2", 100), ("o-n1", 200), ("o-n3", 150)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    assert located(tmp_path, ["o-%N"], "o-%N").path.endswith("o-n2")
    (tmp_path / "o-n2").unlink()
    (tmp_path / "o-n4").touch()
    os.utime(tmp_path / "o-n4", (10**9, 10**9))
    early = JOB.replace("BatchHost", "StartTime=2000000000 BatchHost").format(out=tmp_path / "o-%N")
    assert locate([], early, "25")[0].inode == 0, "all of them are of jobs before"
    (tmp_path / "o-n4").unlink()
    assert located(tmp_path, ["o-%N"], "o-%N").path.endswith("o-n1")


def test_a_file_that_is_not_here_is_named(tmp_path: Path) -> None:
    stream = located(tmp_path, ["o-%4j"], "o-%4j")
    assert stream.inode == 0
    assert f"{tmp_path}/o-0025" in not_found([stream], "login1")
    assert "login1 has no such file" in not_found([stream], "login1")
    (tmp_path / "o-0025").touch()
    assert not_found([located(tmp_path, ["o-%4j"], "o-%4j")], "login1") == ""


def test_what_kept_slurm_from_opening_a_file_is_said(tmp_path: Path) -> None:
    assert not_opened(f"{tmp_path}/logs/x-7.log").endswith(f"could not be opened: there is no folder {tmp_path}/logs")
    assert "on its node" in not_opened(f"{tmp_path}/x-7.log")


def test_the_wish_is_read_from_the_options(tmp_path: Path) -> None:
    assert outputs({}, tmp_path, is_array=False) == (f"{tmp_path}/slurm-%j.out",)
    assert outputs({}, tmp_path, is_array=True) == (f"{tmp_path}/slurm-%A_%a.out",)
    both = {"output": "logs/%x", "error": "/elsewhere/e"}
    assert outputs(both, tmp_path, is_array=False) == (f"{tmp_path}/logs/%x", "/elsewhere/e")
    assert outputs({"output": "one", "error": "one"}, tmp_path, is_array=False) == (f"{tmp_path}/one",)
