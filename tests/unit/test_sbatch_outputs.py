"""Where Slurm writes a job's output, as ``scontrol show job`` says it (captured from 22.05)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.domain.ids import TaskId
from hpc_agent.tracking.outputs import parse, readable
from hpc_agent.tracking.records import Folders, Stream

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
    assert [stream.path for stream in parse(SHOWN.format(out=out, err=err))] == paths


def test_a_file_of_the_same_name_on_another_machine_s_disk_is_not_the_job_s(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("of this machine\n")
    inode = output.stat().st_ino
    folder = Folders(tmp_path).of(TaskId("f00d"))
    streams = [Stream(path=str(output), inode=inode + 1), Stream(path=str(tmp_path / "none")), Stream(path=str(output))]
    [spool] = readable(folder, streams)
    assert spool.read(0, 100) == b"of this machine\n"
