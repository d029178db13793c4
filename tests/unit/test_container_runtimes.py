"""Every runtime's command line: what all promise, and each one's own words."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec
import pytest

from hpc_agent.config.container_settings import ContainerSettings
from hpc_agent.containers import runtimes
from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.charliecloud import Charliecloud
from hpc_agent.containers.docker import Docker
from hpc_agent.containers.enroot import Enroot
from hpc_agent.containers.gpu_share import ALL_GPUS, NO_GPUS, GpuMaker, GpuShare, maker_of_node, share
from hpc_agent.containers.podman_hpc import PodmanHpc
from hpc_agent.containers.pyxis import Pyxis
from hpc_agent.containers.runtime_api import ContainerSpec, Mount, Runtime
from hpc_agent.errors import ContainerUnavailableError
from hpc_agent.schedulers.slurm.backend import BACKEND

RUNTIMES: list[Runtime] = [
    Docker("docker", "docker"),
    Docker("podman", "/usr/bin/podman"),
    PodmanHpc(),
    Apptainer("apptainer"),
    Apptainer("singularity", "singularity"),
    Charliecloud("ch-run"),
    Enroot("enroot"),
    Pyxis("srun"),
]
BOX = ContainerSpec(
    "img",
    "clearml_task_7",
    ["/bin/sh", "/s"],
    [Mount(Path("/scratch/w"), "/hpc-agent/work", writable=True), Mount(Path("/envs/k"), "/hpc-agent/environment")],
    arguments=["--own=1"],
)


ROOT = Path(__file__).parents[2]


def test_every_runtime_of_the_setting_has_a_program_and_is_tested() -> None:
    hints = typing.get_type_hints(ContainerSettings)
    names = set(typing.get_args(hints["runtime"])) - {"none"}
    assert set(runtimes.PROGRAMS) == set(runtimes._MAKERS) == {runtime.name for runtime in RUNTIMES} == names


@pytest.mark.parametrize(
    ("page", "start"),
    [
        ("README.md", "| containers |"),
        ("docs/README.md", "- [Containers and images]"),
        ("docs/containers.md", "hpc.container.runtime:"),
        ("docs/architecture.md", "| `containers` |"),
        ("docs/glossary.md", "| runtime (container) |"),
    ],
)
def test_pages_name_every_runtime(page: str, start: str) -> None:
    [line] = [line for line in (ROOT / page).read_text("utf-8").splitlines() if line.startswith(start)]
    assert [name for name in runtimes.PROGRAMS if name not in line] == []


def test_page_says_which_runtimes_have_no_isolation() -> None:
    page = (ROOT / "docs" / "containers.md").read_text("utf-8")
    [listed] = re.findall(r"rootless runtime \((.+?)\)", page, re.DOTALL)
    assert [runtime.name for runtime in RUNTIMES if not runtime.isolated and runtime.name not in listed] == []


def by_name(runtime: Runtime) -> str:
    return runtime.name


@pytest.mark.parametrize("runtime", RUNTIMES, ids=by_name)
def test_every_runtime_runs_the_command_in_the_image_with_the_mounts(runtime: Runtime) -> None:
    argv = runtime.wrap(BOX)
    text = " ".join(argv)
    assert argv[-1] == "/s"
    assert "/bin/sh" in text and "img" in text and "--own=1" in argv
    for mount in BOX.mounts:
        assert str(mount.source) in text and mount.target in text
    assert runtime.program in argv
    assert runtime.name in runtimes.PROGRAMS


@pytest.mark.parametrize("runtime", RUNTIMES, ids=by_name)
def test_every_runtime_fetches_into_the_file_it_is_given(runtime: Runtime) -> None:
    commands = runtime.fetch("docker://debian:12", Path("/images/debian+12.x"))
    assert any("/images/debian+12.x" in word for word in commands[-1])
    assert any("debian" in word for argv in commands for word in argv)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=by_name)
def test_a_container_that_outlives_its_client_can_be_removed_by_name(runtime: Runtime) -> None:
    command = runtime.remove("clearml_task_7")
    assert (command is not None) == runtime.isolated
    assert command is None or command[-1] == "clearml_task_7"


def test_docker_in_full() -> None:
    assert Docker("docker", "docker").wrap(BOX) == [
        *("docker", "run", "--rm", "--pull=never", "--stop-timeout=0", "--name=clearml_task_7", "--own=1"),
        *("--mount", "type=bind,source=/scratch/w,target=/hpc-agent/work"),
        *("--mount", "type=bind,source=/envs/k,target=/hpc-agent/environment,readonly"),
        *("--entrypoint=/bin/sh", "img", "/s"),
    ]


def test_paths_that_dockers_mount_words_would_split() -> None:
    argv = Docker("docker", "docker").wrap(
        ContainerSpec("img", "n", ["/s"], [Mount(Path('/a,b/"c"'), "/d", writable=True)])
    )
    assert 'type=bind,"source=/a,b/""c""",target=/d' in argv


def test_apptainer_in_full() -> None:
    box = msgspec.structs.replace(BOX, gpus=ALL_GPUS)
    assert Apptainer("apptainer").wrap(box) == [
        *("apptainer", "exec", "--cleanenv", "--nv"),
        *("--bind", "/scratch/w:/hpc-agent/work:rw", "--bind", "/envs/k:/hpc-agent/environment:ro"),
        *("--own=1", "img", "/bin/sh", "/s"),
    ]


def test_apptainer_means_docker_images_unless_set_otherwise() -> None:
    apptainer = Apptainer("apptainer")
    assert apptainer.fetch("ubuntu:22.04", Path("/i/u.sif"))[0][-1] == "docker://ubuntu:22.04"
    assert apptainer.fetch("library://u/c/i", Path("/i/u.sif"))[0][-1] == "library://u/c/i"


AMDS = GpuShare(("0", "2"), maker=GpuMaker.AMD)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (Apptainer("apptainer"), ["--rocm"]),
        (Docker("docker", "docker"), ["--device=/dev/kfd", "--device=/dev/dri", "--group-add=video"]),
        (PodmanHpc(), ["--device=/dev/kfd", "--device=/dev/dri", "--group-add=video"]),
    ],
)
def test_amds_gpus(runtime: Runtime, words: list[str]) -> None:
    argv = runtime.wrap(ContainerSpec("img", "n", ["/s"], gpus=AMDS))
    assert [word for word in argv if word in words] == words
    assert "--nv" not in argv and "--gpu" not in argv


def test_whose_gpus_a_node_has(tmp_path: Path) -> None:
    assert maker_of_node(tmp_path) is None
    (tmp_path / "kfd").touch()
    assert maker_of_node(tmp_path) is GpuMaker.AMD
    (tmp_path / "nvidiactl").touch()
    assert maker_of_node(tmp_path) is GpuMaker.NVIDIA


def test_amds_share_is_read_from_amds_variables() -> None:
    environ = {"ROCR_VISIBLE_DEVICES": "0,2", "CUDA_VISIBLE_DEVICES": "7"}
    assert share(None, environ, maker=GpuMaker.AMD) == AMDS
    assert share(None, {}, maker=GpuMaker.AMD) == GpuShare(all=True, maker=GpuMaker.AMD)


def test_podman_hpc_in_full() -> None:
    box = msgspec.structs.replace(BOX, gpus=ALL_GPUS)
    assert PodmanHpc().wrap(box) == [
        *("podman-hpc", "run", "--rm", "--pull=never", "--stop-timeout=0", "--name=clearml_task_7", "--gpu", "--own=1"),
        *("--mount", "type=bind,source=/scratch/w,target=/hpc-agent/work"),
        *("--mount", "type=bind,source=/envs/k,target=/hpc-agent/environment,readonly"),
        *("--entrypoint=/bin/sh", "img", "/s"),
    ]
    # Also of the images that other nodes have pulled.
    assert PodmanHpc().inspect("docker://lab/x:1")[1:3] == ["images", "--quiet"]
    assert PodmanHpc().pull("docker://lab/x:1") == ["podman-hpc", "pull", "lab/x:1"]


def test_enroot_in_full() -> None:
    box = msgspec.structs.replace(BOX, gpus=ALL_GPUS)
    argv = Enroot("enroot").wrap(box)
    own_rc = Path(argv[argv.index("--rc") + 1])
    assert own_rc.read_text(encoding="utf-8").endswith('exec "$@"\n')
    assert argv == [
        *("enroot", "start", "--env", "NVIDIA_VISIBLE_DEVICES=all"),
        *("--mount", "/scratch/w:/hpc-agent/work:none:x-create=auto,bind,rw"),
        *("--mount", "/envs/k:/hpc-agent/environment:none:x-create=auto,bind,ro"),
        *("--own=1", "--rc", str(own_rc), "img", "/bin/sh", "/s"),
    ]
    assert "NVIDIA_VISIBLE_DEVICES=void" in Enroot("enroot").wrap(BOX)


@pytest.mark.parametrize("runtime", [Enroot("enroot"), Pyxis("srun")], ids=by_name)
def test_enroot_imports_from_where_the_address_says(runtime: Runtime) -> None:
    for reference, address in [
        ("ubuntu:22.04", "docker://ubuntu:22.04"),
        ("docker://nvcr.io/nvidia/pytorch:24.05", "docker://nvcr.io#nvidia/pytorch:24.05"),
        ("dockerd://mine:1", "dockerd://mine:1"),
    ]:
        assert runtime.fetch(reference, Path("/i/x.sqsh")) == [["enroot", "import", "--output=/i/x.sqsh", address]]


def test_pyxis_in_full() -> None:
    assert Pyxis("srun", "n2").wrap(BOX) == [
        *("srun", "--nodes=1", "--ntasks=1", "--overlap", "--unbuffered", "--job-name=clearml_task_7"),
        *("--nodelist=n2", "--container-image=img", "--no-container-mount-home", "--no-container-entrypoint"),
        "--container-mounts=/scratch/w:/hpc-agent/work:rw,/envs/k:/hpc-agent/environment:ro",
        *("--own=1", "/bin/sh", "/s"),
    ]
    assert not any("nodelist" in word for word in Pyxis("srun").wrap(BOX))


def test_pyxis_writes_registries_as_enroot_does() -> None:
    argv = Pyxis("srun").wrap(ContainerSpec("docker://nvcr.io/nvidia/pytorch:24.05", "n", ["/s"]))
    assert "--container-image=nvcr.io#nvidia/pytorch:24.05" in argv
    for same in ("ubuntu:22.04", "nvidia/cuda:12", "/images/u.sqsh", "nvcr.io#nvidia/pytorch"):
        assert f"--container-image={same}" in Pyxis("srun").wrap(ContainerSpec(same, "n", ["/s"]))


def test_charliecloud_takes_the_images_own_variables_where_there_are_any(tmp_path: Path) -> None:
    box = ContainerSpec(str(tmp_path), "n", ["/s"])
    assert "--set-env" not in Charliecloud("ch-run").wrap(box)
    (tmp_path / "ch").mkdir()
    (tmp_path / "ch" / "environment").touch()
    assert "--set-env" in Charliecloud("ch-run").wrap(box)


@pytest.mark.parametrize(
    ("runtime", "gpus", "words"),
    [
        (Docker("docker", "docker"), ALL_GPUS, ["--gpus=all"]),
        (Docker("docker", "docker"), GpuShare(("0", "2")), ['--gpus="device=0,2"']),
        (Docker("docker", "docker"), GpuShare(("MIG-1", "1:0")), ['--gpus="device=MIG-1,1:0"']),
        (Docker("docker", "docker"), NO_GPUS, []),
        (Docker("docker", "docker", skip_gpus_flag=True), ALL_GPUS, []),
        (Docker("podman", "podman"), ALL_GPUS, ["--device=nvidia.com/gpu=all"]),
        (Docker("podman", "podman"), GpuShare(("0", "2")), ["--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=2"]),
    ],
)
def test_gpu_flags(runtime: Docker, gpus: GpuShare, words: list[str]) -> None:
    argv = runtime.wrap(ContainerSpec("img", "n", ["/s"], gpus=gpus))
    assert [word for word in argv if "gpu" in word] == words


@pytest.mark.parametrize(
    ("flag", "environ", "present", "expected"),
    [
        (None, {}, False, NO_GPUS),
        (None, {}, True, ALL_GPUS),
        ("all", {"CUDA_VISIBLE_DEVICES": "1"}, False, ALL_GPUS),
        ("0,1", {"CUDA_VISIBLE_DEVICES": "3"}, True, GpuShare(("0", "1"))),
        ("0.1", {}, True, GpuShare(("0:1",))),
        ("none", {"CUDA_VISIBLE_DEVICES": "3"}, True, NO_GPUS),
        (None, {"CUDA_VISIBLE_DEVICES": "1,3"}, True, GpuShare(("1", "3"))),
        (None, {"CUDA_VISIBLE_DEVICES": ""}, True, NO_GPUS),
        (None, {"NVIDIA_VISIBLE_DEVICES": "void"}, True, NO_GPUS),
        (None, {"NVIDIA_VISIBLE_DEVICES": "all"}, True, ALL_GPUS),
        # Slurm counts from 0 inside its cgroup; a container daemon is outside of it.
        (None, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,5"}, True, GpuShare(("4", "5"))),
        (None, {"CUDA_VISIBLE_DEVICES": "MIG-a.b", "SLURM_JOB_GPUS": "4"}, True, GpuShare(("MIG-a.b",))),
    ],
)
def test_which_gpus_a_container_is_lent(
    flag: str | None, environ: dict[str, str], present: bool, expected: GpuShare
) -> None:
    job = BACKEND.job_variables({**environ, "SLURM_JOB_ID": "7"})
    assert job is not None
    assert share(flag, environ, maker=GpuMaker.NVIDIA if present else None, job_variables=job.gpu_variables) == expected


def test_no_runtime_and_one_that_is_not_here(tmp_path: Path) -> None:
    assert runtimes.runtime(ContainerSettings()) is None
    with pytest.raises(ContainerUnavailableError, match="no-such-podman is not on this machine: install it"):
        runtimes.runtime(ContainerSettings(runtime="podman", program="no-such-podman"))


def test_docker_without_its_daemon_gives_way_to_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("docker", 1), ("podman", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    chosen = runtimes.runtime(ContainerSettings(runtime="docker"))
    assert chosen is not None
    assert (chosen.name, chosen.program) == ("podman", str(tmp_path / "podman"))
