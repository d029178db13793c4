"""A job submitted with hpc-agent sbatch sees what it would have seen from sbatch, and so does the person."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sbatch_bench import Answer, Person
from waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

BASH = r"""
echo "arguments: $# $*"; for word in "$@"; do echo "<$word>"; done
echo "zero: $0"; echo "options: $- $SHELLOPTS"; echo "shopt: $BASHOPTS"; echo "status: $FIRST"; echo "lineno: $LINENO"
echo "here: $PWD"; umask; ulimit -a; ulimit -Ha; trap -p; declare -F; jobs; echo "bang: <$!>"
while read -r key value
do case $key in Sig[BIC]*|Shd*|Umask:|NoNewPrivs:|Seccomp:) echo "$key $value";; esac
done <<< "$(</proc/$$/status)" # at once: between two reads its lines may change their lengths
while read -r value; do echo "oom: $value"; done </proc/$$/oom_score_adj
read -r pid comm state ppid pgid sid rest </proc/$$/stat; [ "$pid" = "$pgid" ] && echo leads its group
read -r ppid comm rest </proc/$ppid/stat; echo "parent: $comm"
for fd in 0 1 2 3 4 9 10; do [ -e /proc/$$/fd/$fd ] && echo "fd $fd"; done
compgen -v | grep -v -x _ | while read -r name; do echo "$name is declared <${!name@a}>"; done
env | sort
cat /dev/stdin
scontrol show job "$SLURM_JOB_ID" | grep -E -o '(JobName|Command|WorkDir|Std(Out|Err|In)|TimeLimit|NumTasks|TRES)=.*'
scontrol write batch_script "$SLURM_JOB_ID" -
echo to stderr >&2
"""
PYTHON = """#!/usr/bin/env python3
import os, resource, sys
print(sys.argv[1:], os.path.basename(sys.argv[0]), os.getcwd(), oct(os.umask(0)))
print({name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")})
print([line for line in open("/proc/self/status") if line.startswith("Sig")][1:])
print("\\n".join(f"{name}={value}" for name, value in sorted(os.environ.items())))
"""
PLAIN = "#!/bin/bash\nFIRST=$?" + BASH


@dataclass(frozen=True)
class Case:
    """One submission. ``words`` come before the script, ``differs`` are patterns of lines that only ours may add."""

    name: str
    words: tuple[str, ...] = ()
    script: str = PLAIN
    arguments: tuple[str, ...] = ()
    stdin: bool = False
    no_script: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ("CLEARML_TASK_ID=", "CLEARML_LOG_TASK_TO_BACKEND=0", "CLEARML_[A-Z_]*")


CASES = [
    Case("plain"),
    Case("arguments", arguments=("a", "b c", "--export=x", "", "$HOME")),
    Case("directives", script="#!/bin/bash -l\n#SBATCH --comment='a # b' -t3\n\n#\n#SBATCH -J named\nFIRST=$?" + BASH),
    Case("strict", script="#!/bin/bash -eux\nFIRST=$?\necho on\nfalse || echo off\nenv | sort\nset +x; exit 4"),
    Case("streams", words=("-o", "%x-%j.out", "-e", "%j.err", "--open-mode=append", "-i", "input.txt")),
    Case("nothing exported", words=("--export=NONE",)),
    Case("exported by the script", script="#!/bin/bash\n#SBATCH --export=NONE\nFIRST=$?" + BASH),
    Case("two exported", words=("--export=FOO,BAR=a b",), env={"FOO": "1", "HIDDEN": "2"}),
    Case("exported by the environment", env={"SBATCH_EXPORT": "FOO", "FOO": "1", "HIDDEN": "2"}),
    Case("all and more exported", words=("--export=ALL,BAR=3",), env={"FOO": "1"}),
    Case("own environment", words=("--export=NIL",), differs=()),
    Case("a BASH_ENV of its own", env={"BASH_ENV": "{folder}/module.bash"}),
    Case("another folder", words=("-D", "{folder}/sub")),
    Case("wrapped", words=("--wrap", "echo $0; env | sort; umask"), no_script=True),
    Case("from standard input", stdin=True),
    Case("sh", script="#!/bin/sh\necho $0 $*; env | sort; umask; trap\n", arguments=("x",)),
    Case("python", script=PYTHON, arguments=("x", "y z")),
    Case("python, nothing exported", ("--export=NONE",), PYTHON, differs=("CLEARML_", "SLURM_EXPORT_ENV=")),
    Case("resources", words=("-N2", "--ntasks-per-node=2", "--mem=600M", "--gres=gpu:1", "-t", "5")),
    Case("little memory", words=("--mem=100M",)),
    Case("exit code", script="#!/bin/bash\nexit 3\n"),
    Case("killed", script="#!/bin/bash\nkill -9 $$\n"),
    Case("ended by a signal", script="#!/bin/bash\nkill -TERM $$\n"),
    Case("takes its group down", script="#!/bin/bash\ntrap 'echo bye; kill 0' EXIT\nsleep 30 &\necho hi\n"),
    Case("waits for its own jobs", script="#!/bin/bash\nsleep 1 &\nwait; echo $?; wait -n; echo $?; exec echo last\n"),
    Case("quiet", words=("-Q",)),
    Case("parsable", words=("--parsable",)),
    Case("waited for", words=("--wait", "--parsable"), script="#!/bin/bash\nexit 5\n"),
    Case("abbreviated", words=("--parsa", "--outp", "x.out", "-t5")),
    Case("refused", words=("--partition=none",)),
    Case("unknown option", words=("--nonsense",)),
    Case("impossible", words=("--nodes=99",)),
    Case("no such script", no_script=True, words=("missing.sh",)),
    Case("empty script", script=""),
    Case("no interpreter", script="echo hello\n"),
    Case("DOS line ends", script="#!/bin/bash\r\necho hello\r\n"),
    Case("only tested", words=("--test-only", "-w", "n1")),
    Case("version", words=("--version",)),
    Case("usage", words=("--usage",)),
]  # fmt: skip


@dataclass
class Submitted:
    case: Case
    folder: Path
    answer: Answer
    state: str = ""


def submit(person: Person, case: Case, kind: str) -> Submitted:
    folder = person.site.folder / kind / case.name.replace(" ", "-").replace(",", "")
    (folder / "sub").mkdir(parents=True)
    (folder / "input.txt").write_text("from the input file\n")
    (folder / "module.bash").write_text("module() { echo module; }\nexport MODULES=loaded\n")
    person.script(case.script, folder=folder)
    words = [word.replace("{folder}", str(folder)) for word in case.words]
    env = {name: value.replace("{folder}", str(folder)) for name, value in case.env.items()}
    if not (case.no_script or case.stdin):
        words += ["train.sh", *case.arguments]
    run = person.sbatch if kind == "ours" else person.plain
    return Submitted(case, folder, run(*words, cwd=folder, input=case.script if case.stdin else None, **env))


def what_it_saw(submitted: Submitted) -> list[str]:
    """Everything that the job wrote and Slurm says, without what no two jobs have in common."""
    answer, folder = submitted.answer, submitted.folder
    # The job's number alone on a line: of sbatch only, for what a job prints may be the same number.
    stdout = ["JOB" if line == answer.job else line for line in answer.stdout.splitlines()]
    lines = [f"exit code {answer.returncode}", "stdout", *stdout, "stderr", *answer.stderr.splitlines()]
    lines.append(submitted.state)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("train.sh", "module.bash", "input.txt"):
            lines += [f"file {path.relative_to(folder)}", *path.read_text().splitlines()]
    return [normal(line, folder) for line in lines]


def normal(line: str, folder: Path) -> str:
    line = line.replace(str(folder), "FOLDER")
    line = re.sub(r"(batch job |slurm-|train.sh-|JOBID=|JOB_ID=)\d+", r"\1JOB", line)
    line = re.sub(r"/job\d{5,}/", "/job/", re.sub(r"\b\d+\.err\b", "JOB.err", line))
    line = re.sub(r"\bn[123]\b|n\[[-\d,]+\]", "NODE", line)
    line = re.sub(r"(SLURM_TASK_PID|SLURM_STEP_GPUS|SLURM_JOB_GPUS|(?:CUDA|GPU|ROCR|ZE_)\w+)=.*", r"\1=", line)
    # In a job's environment from 23.02 on; the last from 26.05 on.
    line = re.sub(r"(SLURM_JOB_(?:START_TIME|END_TIME|SLUID))=\w+", r"\1=", line)
    line = re.sub(r"Job \d+ to start at \S+", "Job N to start at T", line)
    return re.sub(r"\(slurmstepd[^)]*\)", "(slurmstepd)", line)


def outputs(folder: Path) -> list[Path]:
    return list(folder.glob("slurm-*.out"))


def test_a_job_sees_what_it_would_see_from_sbatch(person: Person) -> None:
    both = [(submit(person, case, "plain"), submit(person, case, "ours")) for case in CASES]
    for pair in both:
        for submitted in pair:
            if submitted.case.name == "quiet":
                wait_until("its job's output", partial(outputs, submitted.folder))
                submitted.answer = quiet_answer(submitted)
            if submitted.answer.job and submitted.answer.returncode in (0, 5):
                submitted.state = person.wait_for_job(submitted.answer.job)
    different = {}
    for plain, ours in both:
        expected, seen = what_it_saw(plain), what_it_saw(ours)
        allowed = re.compile("|".join(f"({p})" for p in plain.case.differs) or "nothing")
        more = [line for line in seen if line not in expected and not allowed.match(line)]
        less = [line for line in expected if line not in seen and not allowed.match(line)]
        if more or less:
            different[plain.case.name] = {"only with hpc-agent": more, "only with sbatch": less}
    print(json.dumps(different, indent=1))
    assert different == {}


def quiet_answer(submitted: Submitted) -> Answer:
    job = re.search(r"slurm-(\d+)", next(submitted.folder.glob("slurm-*.out")).name)
    assert job
    return Answer(submitted.answer.returncode, submitted.answer.stdout, submitted.answer.stderr, job[1])
