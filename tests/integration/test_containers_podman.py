"""Tasks in real podman containers, and what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from container_images import Podman, podman
from container_registry import registry
from container_site import POLITE, ContainerSite, container_site
from waiting import empty, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.config.load import load
from hpc_agent.domain.status import TaskStatus
from hpc_agent.file_records import write_record
from hpc_agent.retry import ONCE
from hpc_agent.staging import TaskStager

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def runtime() -> Podman:
    return podman()


@pytest.fixture(scope="module")
def shared(clearml_server: Any, runtime: Podman, tmp_path_factory: pytest.TempPathFactory) -> ContainerSite:
    env = {**runtime.env, "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "podman"}
    return container_site(clearml_server, tmp_path_factory.mktemp("podman"), env)


@pytest.fixture
def site(shared: ContainerSite, runtime: Podman) -> Iterator[ContainerSite]:
    """One for all tests, so that each image is looked into once; no test leaves a container."""
    yield shared
    shared.close()
    shared.processes.clear()
    assert runtime.containers() == []


WHERE = "import os, sys; print(sys.executable, sys.base_prefix, os.path.exists('/run/.containerenv'), os.getcwd())\n"

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("not now", flush=True))
print("started", flush=True)
while True:
    time.sleep(0.1)
"""


def test_the_images_own_python_runs_the_task_with_the_images_packages(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(f"{WHERE}import onlyinimage; print(onlyinimage.VERSION)", runtime.image("python"))
    done = site.execute(task)
    assert done.returncode == 0, done.stdout
    assert "/hpc-agent/environment/bin/python /usr/local True /hpc-agent/work/code" in done.stdout
    assert "1.5" in site.console(task)
    assert site.status(task) is TaskStatus.COMPLETED


def test_an_image_without_python_gets_ours_from_the_shared_cache(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE, runtime.image("bare"))
    done = site.execute(task)
    assert f"/hpc-agent/environment/bin/python {sys.base_prefix} True /hpc-agent/work/code" in done.stdout
    again = site.execute(site.task(WHERE, runtime.image("bare")))
    assert "is ready on this node already" in again.stdout and "Looking into" not in again.stdout


def test_a_site_can_say_that_its_own_python_is_meant(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE, runtime.image("python"))
    done = site.execute(task, CLEARML_AGENT__HPC__CONTAINER__PYTHON="shared")
    assert f"/hpc-agent/environment/bin/python {sys.base_prefix} True" in done.stdout


def test_packages_are_built_in_the_image_unless_it_has_them(
    site: ContainerSite, runtime: Podman, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "alpha", "1.0")
    task = site.task(
        "import alpha, onlyinimage; print(alpha.__file__, onlyinimage.__file__)",
        runtime.image("python"),
        requirements={"pip": f"--no-index\n--find-links {wheels}\nalpha\nonlyinimage>=1.0\n"},
    )
    done = site.execute(task, PIP_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stdout
    assert "Resolving 1 requirements" in done.stdout
    assert "/hpc-agent/environment/lib/" in done.stdout
    assert "/usr/local/lib/" in done.stdout.rpartition("/hpc-agent/environment/lib/")[2]


def make_wheel(folder: Path, name: str, version: str) -> None:
    import zipfile

    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_exit_code_comes_out(site: ContainerSite, runtime: Podman) -> None:
    task = site.task("raise SystemExit(7)", runtime.image("bare"))
    assert site.execute(task).returncode == 7
    assert (site.status(task), site.reason(task)) == (TaskStatus.FAILED, "worker execution exit code 7")


def test_setup_script_variables_and_folders(site: ContainerSite, runtime: Podman, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("from outside")
    code = (
        "import os; print(os.environ['MADE'], os.environ['WORD'], open('/data/data').read()); "
        "open('/data/made', 'w').write('inside')"
    )
    task = site.task(
        code,
        runtime.image("bare"),
        f"-e 'WORD=two words' -v {tmp_path}:/data",
        "# a comment\nexport MADE=$(cat /etc/passwd | grep -c root)\necho set up",
    )
    done = site.execute(task, CLEARML_AGENT__AGENT__ALLOWED_DOCKER_EXTRA_ARGS='["volume"]')
    assert "set up\n1 two words from outside" in done.stdout
    assert (tmp_path / "made").read_text() == "inside"


def test_a_shell_task_runs_in_the_image_too(site: ContainerSite, runtime: Podman) -> None:
    task = site.task("ls /run/.containerenv; echo $0\n", runtime.image("bare"), entry_point="go.sh", binary="/bin/bash")
    done = site.execute(task)
    assert "/run/.containerenv\ngo.sh\n" in done.stdout


def command_lines() -> list[bytes]:
    """Of all processes; one may end meanwhile."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes())
    return lines


def test_no_command_line_has_secrets(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(POLITE, runtime.image("bare"), "-e TOKEN=hunter2")
    with site.executing(task, CLEARML_AGENT_GIT_USER="me", CLEARML_AGENT_GIT_PASS="hunter3"):
        lines = command_lines()
        secret = load(site.conf, {}).settings.api.secret_key.reveal()
        assert not [line for line in lines for word in ("hunter2", "hunter3", secret) if word.encode() in line]
        inside = runtime.run("inspect", "--format", "{{.Config.Env}} {{.Config.Cmd}}", *runtime.containers())
        assert "hunter" not in inside and secret not in inside


def test_what_the_sdk_finds_inside(site: ContainerSite, runtime: Podman) -> None:
    code = (
        "import json, os, stat\n"
        "path = os.environ['CLEARML_CONFIG_FILE']\n"
        "conf = json.load(open(path))\n"
        "print(oct(os.stat(path).st_mode & 0o777), conf['sdk']['storage']['cache']['default_base_dir'])\n"
        "print(*(os.environ['CLEARML_' + name] for name in ('TASK_ID', 'DOCKER_IMAGE', 'AGENT_GIT_USER')))\n"
        "open('/hpc-agent/cache/kept', 'w').write('x')\n"
    )
    task = site.task(code, runtime.image("bare"))
    done = site.execute(task, "--git-user", "me", "--git-pass", "hunter3")
    assert "0o600 /hpc-agent/cache" in done.stdout
    assert f"{task} {runtime.image('bare')} me" in done.stdout
    assert (site.folder / "sdk-cache" / "kept").exists()


def test_sigterm_reaches_the_process_and_nothing_is_left(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(POLITE, runtime.image("bare"))
    with site.executing(task) as agent:
        assert len(runtime.containers()) == 1
        agent.terminate()
        assert agent.wait(60) == 1
    assert "cleaned up" in site.console(task)
    assert site.status(task) is TaskStatus.STOPPED
    assert runtime.containers() == []


def test_a_process_that_ignores_sigterm_is_killed_with_its_container(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(STUBBORN, runtime.image("bare"))
    with site.executing(task, CLEARML_AGENT__hpc__term_grace="3") as agent:
        agent.terminate()
        assert agent.wait(60) == 137
    assert "not now" in site.console(task)
    assert runtime.containers() == []


def test_an_abort_on_the_server_ends_the_container(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(POLITE, runtime.image("bare"))
    with site.executing(task) as agent:
        # As the page does it: a task whose worker lives gets the word "stopping" in its message.
        site.client.tasks.set_status_message(task, "stopping", budget=ONCE)
        assert agent.wait(60) == 1
    assert site.status(task) is TaskStatus.STOPPED
    assert "aborted by its user" in site.reason(task)
    assert runtime.containers() == []


def test_a_container_does_not_outlive_an_agent_that_was_killed(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(STUBBORN, runtime.image("bare"))
    with site.executing(task) as agent:
        agent.kill()
        agent.wait(30)
    wait_until("the container to be gone", runtime.containers, empty)


def test_what_a_task_may_not_ask_for(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE, runtime.image("bare"), "--privileged")
    done = site.execute(task)
    assert done.returncode == 1
    assert "the task's container argument --privileged is not allowed here" in site.reason(task)
    allowed = site.execute(task, CLEARML_AGENT_EXTRA_DOCKER_ARGS="--privileged")
    assert allowed.returncode == 0, allowed.stdout


def test_the_default_image_is_noted_on_a_task_that_named_none(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE)
    done = site.execute(task, "--docker", runtime.image("bare"), "--label", "a=b")
    assert f"inside default podman: {runtime.image('bare')}" in done.stdout
    assert site.container(task)["image"] == runtime.image("bare")
    assert site.container(task)["arguments"] == "--label a=b"


def test_an_own_image_beats_the_flag_unless_the_site_says_otherwise(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE, runtime.image("bare"))
    assert f"inside podman: {runtime.image('bare')}" in site.execute(task, "--docker", "no/such:1").stdout
    done = site.execute(
        task, "--docker", runtime.image("python"), CLEARML_AGENT__AGENT__DISABLE_TASK_DOCKER_OVERRIDE="true"
    )
    assert f"inside default podman: {runtime.image('python')}" in done.stdout


def test_docker_flag_without_any_image(site: ContainerSite) -> None:
    task = site.task(WHERE)
    done = site.execute(task, "--docker")
    assert done.returncode == 1
    assert "--docker names no image" in site.reason(task)
    assert site.execute(task, "--docker", "--ipc=host").returncode == 2


def test_without_a_runtime_the_console_says_that_its_image_is_not_used(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(WHERE, runtime.image("bare"))
    done = site.execute(task, CLEARML_AGENT__HPC__CONTAINER__RUNTIME="none")
    assert done.returncode == 0
    assert f"The task names the image {runtime.image('bare')}; this agent runs tasks without" in site.console(task)
    assert "False" in done.stdout  # no /run/.containerenv


@pytest.fixture
def remote(runtime: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The reference of an image that only a registry has, and what the registry was asked for."""
    with registry(runtime, runtime.image("bare"), "lab/tools:1", tmp_path) as (reference, env, asked):
        for variable, value in {**runtime.env, **env}.items():
            monkeypatch.setenv(variable, value)
        yield reference, asked
        forget(runtime, reference)


def forget(runtime: Podman, reference: str) -> None:
    """The node has lost the image, or never had it."""
    runtime.run("untag", runtime.image("bare"), reference, check=False)
    runtime.run("rmi", "--force", reference, check=False)


def test_an_image_is_fetched_once(site: ContainerSite, remote: tuple[str, list[str]]) -> None:
    reference, asked = remote
    env = {"CONTAINERS_REGISTRIES_CONF": os.environ["CONTAINERS_REGISTRIES_CONF"]}
    task = site.task(WHERE, reference)
    first = site.execute(task, **env)
    assert first.returncode == 0, first.stdout
    assert f"Fetching the image {reference}" in first.stdout
    seen = len(asked)
    assert seen > 0
    assert site.execute(task, **env).returncode == 0
    assert len(asked) == seen
    assert site.execute(task, CLEARML_AGENT__AGENT__DOCKER_FORCE_PULL="true", **env).returncode == 0
    assert len(asked) > seen
    assert not list((site.folder / "hpc" / "images").glob("*tools*"))


def test_an_image_that_its_registry_does_not_have(site: ContainerSite, remote: tuple[str, list[str]]) -> None:
    host, _, _ = remote[0].partition("/")
    task = site.task(WHERE, f"{host}/no/such:1")
    env = {"CONTAINERS_REGISTRIES_CONF": os.environ["CONTAINERS_REGISTRIES_CONF"]}
    assert site.execute(task, **env).returncode == 1
    sentence = f"the image {host}/no/such:1 cannot be fetched: its registry has no image of this name and tag: "
    assert sentence in site.reason(task)


def test_nodes_without_a_network_take_the_image_from_the_shared_folder(
    site: ContainerSite, runtime: Podman, remote: tuple[str, list[str]]
) -> None:
    """As a daemon stages on the login node, and a job on a node finds it."""
    reference, asked = remote
    task = site.task(WHERE, reference)
    missing = site.execute(task, "--standalone-mode")
    assert missing.returncode == 1
    assert f"the image {reference} is neither on this node nor in" in site.reason(task)
    assert f"hpc-agent cache warm --id {task}" in site.reason(task)
    assert asked == []
    settings = load(site.conf, {"CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "podman"}).settings
    said: list[str] = []
    TaskStager(settings, SYSTEM).stage(site.client.tasks.get(task), said.append)
    assert f"Fetching the image {reference} into {site.folder}/hpc/images" in said
    seen = len(asked)
    forget(runtime, reference)
    done = site.execute(task, "--standalone-mode")
    assert done.returncode == 0, done.stdout
    assert "Loading the image" in done.stdout
    assert "True /hpc-agent/work/code" in done.stdout
    again = site.execute(task, "--standalone-mode")
    assert "Loading the image" not in again.stdout
    assert len(asked) == seen


def test_a_container_left_by_the_same_attempt_is_replaced(site: ContainerSite, runtime: Podman) -> None:
    """A job that Slurm killed and starts again has the same container name."""
    task = site.task(WHERE, runtime.image("bare"))
    first = site.execute(task)
    assert first.returncode == 0
    [attempt] = (site.folder / "hpc" / "runs" / task).iterdir()
    name = f"clearml_task_{task}_{attempt.name}"
    argv = [
        "podman",
        "run",
        "--rm",
        "--detach",
        "--stop-timeout=0",
        f"--name={name}",
        runtime.image("bare"),
        "sleep",
        "100",
    ]
    subprocess.run(argv, env={**os.environ, **runtime.env}, check=True, capture_output=True, timeout=60)
    assert runtime.containers() == [name]
    (attempt / "claim.json").unlink()
    (attempt / "exit.json").unlink()
    again = site.execute(task, SLURM_JOB_ID="", HPC_AGENT_RUN_DIR=str(attempt))
    assert again.returncode == 0, again.stdout


def test_a_login_node_without_containers_stages_our_own_python(
    site: ContainerSite, runtime: Podman, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes have the image; its Python was not known, so the task gets the one that was staged."""
    task = site.task(WHERE, runtime.image("python"))
    elsewhere = {
        "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "podman",
        "CLEARML_AGENT__HPC__CONTAINER__PROGRAM": "podman-of-the-nodes",
    }
    stager = TaskStager(load(site.conf, elsewhere).settings, SYSTEM)
    said: list[str] = []
    staged = stager.stage(site.client.tasks.get(task), said.append)
    assert any("podman-of-the-nodes is not on this machine" in line for line in said)
    found = stager.find(site.client.tasks.get(task))
    assert (found.source, found.env) == (staged.source, staged.env)
    attempt = site.folder / "hpc" / "runs" / task / "12345678"
    attempt.mkdir(parents=True)
    write_record(attempt / "stage.json", staged)
    done = site.execute(task, "--standalone-mode", HPC_AGENT_RUN_DIR=str(attempt))
    assert done.returncode == 0, done.stdout
    assert f"/hpc-agent/environment/bin/python {sys.base_prefix} True" in site.console(task)
