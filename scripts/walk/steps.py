"""Steps of the walk: what a researcher types on the first day on a cluster, and what is to be seen. The one source of
the commands of docs/walkthrough.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

API_SERVER, ACCESS_KEY, SECRET_KEY = "{api_server}", "{access_key}", "{secret_key}"
"""In an answer: the user's own."""

_TASK = "hpc-task --project demo --packages clearml --queue gpu"


@dataclass(frozen=True)
class Step:
    """``text``: what one sees. ``shows``: parts of the output without which the walk has failed. ``answers``: what is
    typed once the text before it is on the screen. ``when``: a line of bash that ends with 0 as soon as it is time."""

    text: str
    command: str
    shows: tuple[str, ...] = ()
    code: int = 0
    answers: tuple[tuple[str, str], ...] = ()
    when: str = ""
    picture: str = ""
    """Name of a picture of the terminal, below the text."""


@dataclass(frozen=True)
class Section:
    title: str
    steps: Sequence[Step]


def _state(name: str, state: str) -> str:
    return f'hpc-agent jobs --ended --json --name {name} | grep -q \'"state": "{state}"\''


INSTALL = Section(
    "Install",
    [
        Step(
            "The checkout lies in the home folder, which the compute nodes see too. An environment of its own gets "
            "the program; pip prints nothing if all is well.",
            "python3 -m venv ~/hpc-agent-env\n"
            "~/hpc-agent-env/bin/pip install -qq ./hpc-agent\n"
            "export PATH=~/hpc-agent-env/bin:$PATH",
        ),
        Step("", "hpc-agent --version", ("hpc-agent, version",)),
    ],
)

SET_UP = Section(
    "Set up",
    [
        Step(
            "`init` looks at the cluster, asks for the server's address and keys, because there is no `clearml.conf` "
            "yet, and then for the few things that it cannot find out. What is typed for the secret key is not shown.",
            "hpc-agent init",
            ("Slurm", "8 × a100, 4 × h100", "lab (your default)", "clearml.conf: written"),
            answers=(
                ("API server", API_SERVER),
                ("Access key", ACCESS_KEY),
                ("Secret key", SECRET_KEY),
                ("queues to serve", "gpu"),
                ("Partition of their jobs", ""),
                ("Folder for our files", ""),
                ("Keep the daemon running by", ""),
            ),
        ),
        Step(
            "The queue's block in the new section of `clearml.conf`: what its jobs ask for, and how far a task may "
            "deviate.",
            "sed -n '/One block for each/,/^}/p' clearml.conf",
            ('partition: "main"', "num_gpus { max: 4 }"),
        ),
    ],
)

DOCTOR = Section(
    "Does it work here?",
    [
        Step(
            "`doctor` checks what tasks need, on this machine first. One line failed, and below it is the command that "
            "fixes it: the server has no queue `gpu` yet. That the home folder is not a network file system is true of "
            "this small cluster, whose nodes are one machine.",
            "hpc-agent doctor --no-jobs",
            ("FAIL  queue gpu", "→ hpc-agent daemon --queue gpu --create-queue", "1 failed"),
            code=1,
            picture="doctor",
        ),
        Step(
            "The daemon makes the queue and serves it in the background.",
            "hpc-agent daemon --queue gpu --create-queue --detached",
            ("Serving gpu through slurm", "in the background"),
        ),
        Step(
            "With `--jobs` a job of some seconds looks at a compute node. Nothing failed.",
            "hpc-agent doctor --jobs",
            ("ok    queue gpu", "Partition main", "a file written here is seen on the node"),
        ),
    ],
)

TRAIN = """cat > train.py <<'END'
import time

from clearml import Task

task = Task.init()
for epoch in range(1, 11):
    loss = 1 / epoch
    task.get_logger().report_scalar("loss", "train", loss, epoch)
    print(f"epoch {epoch} loss {loss:.3f}", flush=True)
    time.sleep(1)
END"""

FIRST_TASK = Section(
    "A first task",
    [
        Step("What is free now, by GPU type, partition and node.", "hpc-agent free", ("8 of 8", "4 of 4 h100")),
        Step("A small training script.", TRAIN),
        Step(
            "Without `--queue` the task is a draft.",
            "hpc-task --project demo --name train --script train.py --packages clearml",
            ('"train" created', "left as a draft"),
        ),
        Step(
            "`render` shows what its job would ask for and where each value comes from; `--check` asks Slurm whether "
            "it would take the job, and when it would start. Without `--check` the script is printed.",
            "hpc-agent render --id train --queue gpu --check",
            ("num_gpus", "the queue: hpc.queues", "would take it", "at once"),
        ),
        Step(
            "A task that asks for more than the queue allows is refused at once, and nothing is created.",
            f"{_TASK} --name large --script train.py --num-gpus 16",
            ('error: num_gpus is 16, but queue "gpu" allows at most 4',),
            code=2,
        ),
        Step(
            "This one fits.",
            f"{_TASK} --name train-2 --script train.py --num-gpus 2 --memory-gb 4 --time-limit 30",
            ("queued on gpu",),
        ),
        Step(
            "For the first task with these packages their environment is built, here on the login node; it is kept for "
            "all later ones.",
            "hpc-agent jobs",
            ("train-2", "staging"),
            when=_state("train-2", "staging"),
        ),
        Step(
            "`logs -f` stays with the task until it has ended. What `ClearML` and `clearml` print is the SDK's own.",
            "hpc-agent logs -f train-2",
            ("epoch 10 loss 0.100", "The task is completed"),
        ),
    ],
)

SLEEP = """cat > sleep.py <<'END'
import time

for minute in range(60):
    print("minute", minute, flush=True)
    time.sleep(60)
END"""

WAITING = Section(
    "Why does it wait?",
    [
        Step("Two tasks of which each wants all four GPUs of the only node that has an H100.", SLEEP),
        Step(
            "",
            f"{_TASK} --name night --script sleep.py --gpu-type h100 --num-gpus 4 --time-limit 2:00:00",
            ("queued on gpu",),
        ),
        Step(
            "",
            f"{_TASK} --name weekend --script sleep.py --gpu-type h100 --num-gpus 4 --time-limit 1:00:00",
            ("queued on gpu",),
            when=_state("night", "running"),
        ),
        Step(
            "One runs, the other one waits, with Slurm's reason and the start that Slurm expects.",
            "hpc-agent jobs",
            ("night", "running", "weekend", "pending", "Resources"),
            when='hpc-agent jobs --json --name weekend | grep -q \'"expected_start": "\'',
            picture="jobs",
        ),
        Step(
            "The same in a paragraph, with what to do and the evidence. The sentence is the task's status message on "
            "its page too, where times are in UTC.",
            "hpc-agent why weekend",
            ("is waiting (Resources): it is next, once enough is free", "Next: wait", "render --id"),
            when="hpc-agent why --json weekend | grep -q 'verdict.*waiting' && "
            "! hpc-agent why --json weekend | grep -q Preparing",
        ),
        Step(
            "Where would such a job start sooner?",
            "hpc-agent free --gpus 4 --type h100 --time 1:00:00",
            ("0 of 4", "would start", "main"),
        ),
        Step(
            "Neither is needed: the running one is asked to end, the waiting one leaves its queue.",
            "hpc-agent cancel night weekend",
            ("was asked to end", "was taken off its queue"),
        ),
        Step(
            "",
            "hpc-agent jobs --ended",
            ("night", "weekend", "stopped", "train-2", "completed"),
            when=_state("night", "stopped") + " && ! squeue --me -h | grep -q .",
        ),
    ],
)

DIES = """cat > hungry.py <<'END'
import time

blocks = []
for number in range(1, 41):
    blocks.append(bytearray(b"x") * (100 << 20))
    print(f"{number * 100} MiB", flush=True)
    time.sleep(0.5)
END
echo 'import torch' > imports.py"""

DYING = Section(
    "Why did it die?",
    [
        Step("Three tasks that cannot end well: too little time, too little memory, a package that is missing.", DIES),
        Step("", f"{_TASK} --name short --script sleep.py --time-limit 1", ("queued on gpu",)),
        Step("", f"{_TASK} --name hungry --script hungry.py --memory-gb 1", ("queued on gpu",)),
        Step("", f"{_TASK} --name imports --script imports.py", ("queued on gpu",)),
        Step(
            "Some minutes later.",
            "hpc-agent jobs --ended --state failed",
            ("short", "hungry", "imports", "3 failed"),
            when=" && ".join(_state(name, "failed") for name in ("short", "hungry", "imports")),
        ),
        Step(
            "A time limit. The program gets SIGTERM shortly before it: with a handler for it, it could save its work.",
            "hpc-agent why short",
            ("failed: time limit 00:01:00", "Next: ask for more with the user property time_limit"),
        ),
        Step(
            "Memory. Slurm ended the job here by what its accounting plugin had counted (`OverMemoryKill`); where "
            "sites limit memory with control groups, the kernel does.",
            "hpc-agent why hungry",
            ("failed: out of memory: used", "Next: ask for more with the user property memory_gb"),
        ),
        Step(
            "A missing package. The place in the program is among the evidence.",
            "hpc-agent why imports",
            ("the Python module torch is not installed", "Next: add its package", "ModuleNotFoundError"),
            picture="why",
        ),
    ],
)

AFTERWARDS = Section(
    "What was it worth?",
    [
        Step(
            "What tasks used of what they had asked for, and what would have been enough.",
            "hpc-agent efficiency",
            ("train-2", "memory_gb", "would have been enough"),
        ),
        Step("How often Slurm and the server were asked today.", "hpc-agent stats", ("squeue", "tasks.get_all")),
        Step("The daemon, and where its log is.", "hpc-agent daemon --status", ("queue gpu: 0 waiting",)),
        Step("It can stop at any time: jobs go on.", "hpc-agent daemon --stop", ("its jobs go on",)),
    ],
)

SECTIONS = (INSTALL, SET_UP, DOCTOR, FIRST_TASK, WAITING, DYING, AFTERWARDS)
STEPS = [step for section in SECTIONS for step in section.steps]
