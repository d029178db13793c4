"""The start script of a container, run by the shells that an image may have; and what its process gets to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG_S

from hpc_agent.containers.docker_options import DockerOption, Merged
from hpc_agent.containers.gpu_share import ALL_GPUS, NO_GPUS, GpuShare
from hpc_agent.containers.runtime_api import Mount
from hpc_agent.containers.start_script import StartScript, command, script
from hpc_agent.executor.process_environment import forwarded_environment, set_gpus, translate

SHELLS = ["bash", "dash"]
AWKWARD = 'it\'s\n"two" $lines `x` \\n'


def start(tmp_path: Path, launch: StartScript, shell: str) -> subprocess.Popen[str]:
    path = tmp_path / "start"
    path.write_text(script(launch, "img"))
    return subprocess.Popen([shell, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(tmp_path: Path, launch: StartScript, shell: str = "bash") -> tuple[int, str]:
    with start(tmp_path, launch, shell) as child:
        out, _ = child.communicate(timeout=20)
    return child.returncode, out


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("first", [True, False])
def test_variables_arrive_as_they_are(tmp_path: Path, shell: str, first: bool) -> None:
    code = "import os; print(repr(os.environ['AWKWARD']), os.getcwd())"
    launch = StartScript(str(tmp_path), python(code), {"AWKWARD": AWKWARD, "not a name": "x"}, first=first)
    assert run(tmp_path, launch, shell) == (0, f"{AWKWARD!r} {tmp_path}\n")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("first", [True, False])
def test_the_exit_code_is_the_processs_own(tmp_path: Path, shell: str, first: bool) -> None:
    assert run(tmp_path, StartScript("/", python("raise SystemExit(7)"), first=first), shell)[0] == 7


def test_setup_runs_in_the_same_shell_before_the_process(tmp_path: Path) -> None:
    launch = StartScript("/", ["sh", "-c", 'echo "$A $B"'], {"A": "1"}, setup=["export B=2", "false", "echo setup"])
    assert run(tmp_path, launch) == (0, "setup\n1 2\n")


def test_the_environments_programs_come_before_the_images(tmp_path: Path) -> None:
    launch = StartScript(
        "/", ["sh", "-c", "echo $PATH"], path_first="/hpc-agent/environment/bin", setup=["PATH=/image"]
    )
    assert run(
        tmp_path, StartScript("/", ["/bin/sh", "-c", "echo $PATH"], path_first="/e/bin", setup=["PATH=/image"])
    ) == (
        0,
        "/e/bin:/image\n",
    )
    assert run(tmp_path, launch)[0] == 127  # /image has no sh


def test_a_python_that_does_not_start_is_reported_with_its_remedy(tmp_path: Path) -> None:
    code, out = run(tmp_path, StartScript("/", ["true"], python="/no/such/python"))
    assert code == 126
    assert "/no/such/python does not start in the image img" in out
    assert "hpc.container.python = image" in out


def test_home_only_where_the_image_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = StartScript("/", ["/bin/sh", "-c", "echo $HOME"], home="/hpc-agent/home")
    monkeypatch.setenv("HOME", "/root")
    assert run(tmp_path, launch)[1] == "/root\n"
    monkeypatch.delenv("HOME")
    assert run(tmp_path, launch)[1] == "/hpc-agent/home\n"


_TELLS = """
import os, signal, sys, time
def on(number, frame):
    # No print: the signal may come while the one below still writes.
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    sys.exit(5)
signal.signal(signal.SIGTERM, on)
print("ready", flush=True)
while True:  # not signal.pause(), before which the signal may come
    time.sleep(0.1)
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_process_hands_sigterm_on_and_waits(tmp_path: Path, shell: str) -> None:
    with start(tmp_path, StartScript("/", python(_TELLS), first=True), shell) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "got SIGTERM\n"
        assert child.wait(10) == 5


def test_sigint_means_something_to_the_process(tmp_path: Path) -> None:
    """Background children of a shell ignore it, unless the shell does job control."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert run(tmp_path, StartScript("/", python(code), first=True)) == (0, "True\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_when_no_process_holds_the_pipe_any_more(tmp_path: Path, shell: str) -> None:
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    with start(tmp_path, StartScript("/", python(_TELLS), first=True, alive=str(pipe)), shell) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert child.poll() is None
        os.close(held)
        assert child.stdout.readline() == "got SIGTERM\n"
        assert child.wait(10) == 5


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_when_the_process_that_held_the_pipe_died_before_the_script_began(tmp_path: Path, shell: str) -> None:
    os.mkfifo(tmp_path / "alive")
    # It waits for the signal before it starts anything.
    waits = StartScript("/", ["true"], setup=["while :; do sleep 0.1; done"], first=True, alive=str(tmp_path / "alive"))
    with start(tmp_path, waits, shell) as child:
        assert child.wait(HANG_S) == 143


def test_a_container_starts_with_bash_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "start"
    path.write_text('echo "${BASH_VERSION:+bash}"\n')
    assert subprocess.run(command(str(path)), capture_output=True, text=True, check=True).stdout == "bash\n"


def test_what_travels_into_a_container() -> None:
    node = {
        "CLEARML_TASK_ID": "t",
        "SLURM_JOB_ID": "7",
        "MASTER_ADDR": "n1",
        "LC_ALL": "C",
        "https_proxy": "p",
        "PATH": "/node",
        "LD_LIBRARY_PATH": "/node",
        "PYTHONPATH": "/node",
        "HOME": "/node",
        "HPC_AGENT_X": "1",
        "CLEARML_CONFIG_FILE": "/node",
        "CLEARML_AGENT_EXTRA_DOCKER_ARGS": "-v",
        "CLEARML_AGENT_GIT_USER": "u",
    }
    assert set(forwarded_environment(node, ("SLURM_",))) == {
        *("CLEARML_TASK_ID", "SLURM_JOB_ID", "MASTER_ADDR", "LC_ALL", "https_proxy", "CLEARML_AGENT_GIT_USER")
    }


@pytest.mark.parametrize(
    ("gpus", "skip", "nvidia"),
    [
        (ALL_GPUS, False, None),
        (GpuShare(("4",)), False, None),
        (GpuShare(("4", "5")), True, "4,5"),
        (ALL_GPUS, True, "all"),
        (NO_GPUS, False, "none"),
    ],
)
def test_gpus_have_new_numbers_inside(gpus: GpuShare, skip: bool, nvidia: str | None) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,5", "NVIDIA_VISIBLE_DEVICES": "4,5"}
    set_gpus(environ, gpus, skip_flag=skip)
    assert environ.get("NVIDIA_VISIBLE_DEVICES") == nvidia
    assert "CUDA_VISIBLE_DEVICES" not in environ


def test_dockers_arguments_for_a_runtime_of_its_own_kind() -> None:
    options = (
        DockerOption("volume", ("-v", "/data:/d:ro")),
        DockerOption("volume", ("--volume=/x",)),
        DockerOption("mount", ("--mount", "type=bind,src=/a,dst=/b,readonly")),
        DockerOption("env", ("-e", "KNOWN")),
        DockerOption("env", ("-e", "UNKNOWN")),
        DockerOption("volume", ("-v", "named:/d")),
        DockerOption("shm-size", ("--shm-size", "8g")),
        DockerOption("ipc", ("--ipc=host",)),
    )
    result = translate(Merged(options, (("A", "1"),)), {"KNOWN": "k"}, ours=frozenset({"--ipc=host"}))
    assert result.mounts == (
        Mount(Path("/data"), "/d"),
        Mount(Path("/x"), "/x", writable=True),
        Mount(Path("/a"), "/b"),
    )
    assert result.environment == (("A", "1"), ("KNOWN", "k"))
    assert [note.split(" means")[0] for note in result.notes] == [
        "The container argument -v named:/d",
        "The container argument --shm-size 8g",
    ]
