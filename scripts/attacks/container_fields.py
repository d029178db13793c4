"""Image, arguments and variables of a task's container, up to the command line that starts it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from attacks.case import Case
from hpc_agent.config.clearml_settings import DockerSettings
from hpc_agent.containers import start_script
from hpc_agent.containers.choice import choose
from hpc_agent.containers.docker import Docker
from hpc_agent.containers.runtime_api import ContainerSpec
from hpc_agent.containers.start_script import StartScript
from hpc_agent.domain.task import TaskContainer
from hpc_agent.errors import ContainerError

DOOR = "container fields"

_OPENING = (
    *("-v /:/host", "-v=/:/host", "-v/:/host", "--volume /:/host", "--volume=/:/host", "-v /:/host -e A=1"),
    *("--mount type=bind,source=/,target=/host", "--mount=type=bind,src=/,dst=/h", "--volumes-from other"),
    *("--device /dev/sda", "--device=/dev/mem", "--device-cgroup-rule='a *:* rwm'", "--gpus all", "--gpus=all"),
    *(
        "--cap-add ALL",
        "--cap-add=SYS_ADMIN",
        "--privileged",
        "--privileged=true",
        "--privileged=1",
        "-e A=1 --privileged",
    ),
    *("--security-opt seccomp=unconfined", "--security-opt=apparmor=unconfined", "--pid host", "--pid=host"),
    *("--userns=host", "--uts=host", "--ipc=container:other", "--net=container:other", "--network=bridge"),
    *("--cgroup-parent=/", "--cgroupns=host", "--group-add disk", "--group-add=keep-groups", "--runtime=other"),
    *(
        "--env-file /etc/shadow",
        "--env-file=/root/.netrc",
        "--label-file /etc/shadow",
        "--sysctl kernel.shm_rmid_forced=1",
    ),
    *("-p 22:22", "-P", "--publish=1:1", "--oom-score-adj=-1000", "--oom-kill-disable", "--log-opt path=/etc/x"),
    *("--log-driver=k8s-file", "--cidfile=/etc/x", "--conmon-pidfile=/etc/x", "--pidfile=/etc/x", "--hooks-dir=/tmp"),
    *("--init-path=/bin/sh", "--rootfs /", "--pod other", "--env-host", "--authfile=/root/.docker", "--use-api-socket"),
    *("--uidmap 0:0:1", "--gidmap=0:0:1", "--preserve-fds=9", "--secret=x", "--systemd=always", "--passwd-entry=x"),
    *(
        "--storage-opt size=1T",
        "--cpu-rt-runtime=1",
        "--device-write-bps=/dev/sda:1",
        "--isolation=host",
        "--link=other",
    ),
)
_TRICKS = (
    *(
        "-dv /:/host",
        "-itv /:/host",
        "-tv/:/host",
        "-iv=/:/host",
        "-tiv/:/host",
        "-dit",
        "-di --privileged",
        "-Pv /:/h",
    ),
    *("--shm-size 8g evil/image sh -c id", "--shm-size=8g evil/image", "-e A=1 evil/image sh", "-eA=1 evil/image"),
    *(
        "--env A=1 evil/image",
        "--read-only evil/image",
        "--read-only=true evil/image",
        "-m 1g evil/image",
        "-m1g evil/image",
    ),
    *(
        "--tmpfs /x -",
        "--hostname h evil/image",
        "--cpus=1 evil/image",
        "-- evil/image",
        "--shm-size",
        "-e",
        "--hostname",
    ),
    *("'-v' '/:/host'", '"-v=/:/host"', "-\\v /:/host", "--volu'me' /:/host", "--vol''ume=/:/host", "---privileged"),
    *("-e A=1\n-v /:/host", "-e A=1\t--privileged", "--entrypoint /bin/sh -v /:/host", "--name x --privileged"),
    *("--rm=false -v /:/host", "--pull always --privileged", "--env=A=1 --env", "-v", "--volume"),
)
_IMAGES = (
    *("--privileged", "-v/:/host", "docker://--privileged", "docker://-v/:/host", "a://b://--privileged", "-"),
    *("'evil --privileged'", "a,b", "$(touch owned)", "a;b", "'a\nb'", "a\x00b", "é", "x" * 5000, "a=b", "'a\x1bb'"),
)
_VALUES = (
    "$(touch owned)",
    "`touch owned`",
    "'; touch owned; '",
    '"; touch owned; "',
    "a\ntouch owned",
    "\\'; touch owned #",
)
_OURS = {"--rm", "--pull", "--stop-timeout", "--name", "--network", "--ipc", "--user", "--entrypoint"}
_HARMLESS = {"-e", "--env", "--shm-size", "--tmpfs", "--read-only", "-m", "--hostname", "--cpus"}
_IMAGE = "ours/image:1"
_FILTERED = DockerSettings(filters=("^-e$", "^--env$", "^--shm-size$"))


def _arguments(text: str, docker: DockerSettings, *, behind_image: bool = False) -> Callable[[Path], str]:
    """``behind_image``: where older clients write them."""

    def attempt(_folder: Path) -> str:
        container = TaskContainer(f"{_IMAGE} {text}") if behind_image else TaskContainer(_IMAGE, text)
        try:
            choice = choose(container, docker)
        except ContainerError:
            return ""
        assert choice is not None
        return _beyond(
            Docker("docker", "docker").wrap(
                ContainerSpec(choice.image, "name", ["/start"], (), arguments=choice.merged.words)
            )
        )

    return attempt


def _beyond(argv: list[str]) -> str:
    """What docker would take for an option that is not ours and not harmless, or for another image."""
    rest = argv[2:]
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name not in _OURS | _HARMLESS:
            return f"the argument {word}"
        if not equals and name not in ("--rm", "--read-only"):
            rest = rest[1:]  # its value
    return "" if rest[:1] == [_IMAGE] else f"the image {rest[:1]}"


def _image(text: str) -> Callable[[Path], str]:
    def attempt(_folder: Path) -> str:
        try:
            choice = choose(TaskContainer(text), DockerSettings())
        except ContainerError:
            return ""
        return f"the image {choice.image[:60]!a}" if choice else ""

    return attempt


def _variable(value: str) -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        quoted = "'" + value.replace("'", "'\"'\"'") + "'"
        choice = choose(TaskContainer(_IMAGE, f"-e A={quoted} -e 'B;touch owned'=1"), DockerSettings())
        assert choice is not None
        if "touch" in " ".join(choice.merged.words):
            return "a value on the command line"
        start = start_script.script(StartScript(str(folder), ["true"], dict(choice.merged.environment)), _IMAGE)
        script = start.replace("\ncd /\n", f"\ncd '{folder}'\n")
        subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, timeout=20, check=False)
        return "a command of the start script" if (folder / "owned").exists() else ""

    return attempt


CASES: tuple[Case, ...] = (
    *(Case(f"arguments {text!a}", _arguments(text, DockerSettings())) for text in (*_OPENING, *_TRICKS)),
    *(Case(f"image with {text!a}", _arguments(text, DockerSettings(), behind_image=True)) for text in _TRICKS),
    *(Case(f"a filter list and {text!a}", _arguments(text, _FILTERED)) for text in _TRICKS),
    *(Case(f"image {text[:60]!a}", _image(text)) for text in _IMAGES),
    *(Case(f"variable {value!a}", _variable(value)) for value in _VALUES),
)
