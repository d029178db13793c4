"""docker's arguments: read as people write them, the site's rules applied."""

from __future__ import annotations

import pytest

from hpc_agent.config.clearml_settings import DockerSettings
from hpc_agent.containers.choice import DEFAULTS, choose
from hpc_agent.containers.docker_options import ArgumentRules, Merged, merge, parse, split
from hpc_agent.domain.task import TaskContainer
from hpc_agent.errors import ContainerError

SITE_RULES = ArgumentRules(protected=("privileged", "security-opt", "network", "ipc"), forbidden=("entrypoint",))


def merged(task: str = "", site: str = "", rules: ArgumentRules = SITE_RULES) -> Merged:
    return merge(DEFAULTS, split(site), split(task), rules)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("--ipc=host -v /a:/b", ("--ipc=host", "-v", "/a:/b")),
        (["--ipc=host", "-v", "/a b:/c"], ("--ipc=host", "-v", "/a b:/c")),
        (["-v /a:/b", "--shm-size 8g"], ("-v", "/a:/b", "--shm-size", "8g")),
        ("-e 'A=1 2'", ("-e", "A=1 2")),
        ("", ()),
    ],
)
def test_a_text_and_a_list_of_words_say_the_same(written: str | list[str], words: tuple[str, ...]) -> None:
    assert split(written) == words


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--env", "A=1"], "env", "A=1"),
        (["-e", "A=1"], "env", "A=1"),
        (["-eA=1"], "env", "A=1"),
        (["--env=A=1"], "env", "A=1"),
        (["-v", "/a:/b:ro"], "volume", "/a:/b:ro"),
        (["--net", "host"], "network", "host"),
        (["--privileged"], "privileged", ""),
        (["-u", "0:0"], "user", "0:0"),
    ],
)
def test_an_option_has_one_name_however_it_is_written(words: list[str], name: str, value: str) -> None:
    [option] = parse(words)
    assert (option.name, option.value, list(option.words)) == (name, value, words)


def test_arguments_that_are_none_are_refused() -> None:
    with pytest.raises(ContainerError, match=r"begin with 'python:3\.11', expected an option such as --ipc=host"):
        parse(["python:3.11", "--rm"])
    with pytest.raises(ContainerError, match="cannot be read: No closing quotation"):
        split("-e 'A=1")


def test_variables_are_never_on_the_command_line() -> None:
    result = merged(task="-e TOKEN=hunter2 --env=B=2 -e INHERITED")
    assert result.environment == (("TOKEN", "hunter2"), ("B", "2"))
    assert "hunter2" not in " ".join(result.words)
    assert result.words[-2:] == ("-e", "INHERITED")


@pytest.mark.parametrize("argument", ["--privileged", "--security-opt=label=disable", "--net=bridge", "--ipc private"])
def test_a_task_may_not_give_what_is_protected(argument: str) -> None:
    with pytest.raises(ContainerError, match="is not allowed here"):
        merged(task=argument)


def test_the_site_may_and_a_task_may_then_say_it_too() -> None:
    assert "--privileged" in merged(site="--privileged").words
    assert merged(site="--privileged", task="--privileged").words.count("--privileged") == 1
    assert "--privileged" in merged(task="--privileged", rules=ArgumentRules(protected=("ipc",))).words


def test_what_every_container_gets_anyway_is_not_a_demand() -> None:
    assert merged(task="--network host --ipc=host").words == DEFAULTS


def test_the_sites_arguments_replace_the_defaults_by_name() -> None:
    words = merged(site="--net=bridge -u 1000:1000").words
    assert words == ("--ipc=host", "--net=bridge", "-u", "1000:1000")


def test_own_shared_memory_instead_of_the_nodes() -> None:
    assert merged(task="--shm-size=8g").words == ("--network=host", "--user=0:0", "--shm-size=8g")


@pytest.mark.parametrize("argument", ["--rm", "-d", "-it", "--name x", "--restart=always", "--entrypoint /bin/bash"])
def test_what_takes_the_container_from_its_agent_is_left_out_and_reported(argument: str) -> None:
    result = merged(task=argument, site=argument)
    assert result.words == DEFAULTS
    assert [note.split(" is left out")[0] for note in result.notes] == [
        f"The container argument {argument.split()[0]}"
    ] * 2


def test_filters_are_a_list_of_what_tasks_may_say() -> None:
    rules = ArgumentRules(filters=("^--env$", "^-e$"))
    result = merged(task="-e A=1 -v /:/host", site="-v /data:/data", rules=rules)
    assert result.environment == (("A", "1"),)
    assert "/:/host" not in result.words
    assert "/data:/data" in result.words
    assert result.notes == ("The container argument -v is left out: agent.docker_args_filters does not list it",)
    with pytest.raises(ContainerError, match=r"agent.docker_args_filters has '\*', which is not a regular expression"):
        merged(task="-e A=1", rules=ArgumentRules(filters=("*",)))


def test_the_tasks_image_comes_before_the_default() -> None:
    docker = DockerSettings(default_image="default:1", default_arguments="--shm-size=1g", extra_arguments=("-e", "S=1"))
    own = choose(TaskContainer("own:2", "-e T=1", "echo hello\n\necho again"), docker)
    assert own is not None
    assert (own.image, own.by_task, own.setup) == ("own:2", True, ("echo hello", "echo again"))
    assert own.merged.environment == (("S", "1"), ("T", "1"))
    assert "--shm-size=1g" not in own.merged.words
    default = choose(TaskContainer(arguments="-e T=1"), docker)
    assert default is not None
    assert (default.image, default.by_task, default.merged.environment) == ("default:1", False, (("S", "1"),))
    assert "--shm-size=1g" in default.merged.words


def test_a_site_can_ignore_what_tasks_name() -> None:
    docker = DockerSettings(default_image="default:1", ignore_task=True, extra_shell_script="echo site")
    choice = choose(TaskContainer("own:2", "--privileged", "echo task"), docker)
    assert choice is not None
    assert (choice.image, choice.setup) == ("default:1", ("echo site", "echo task"))


def test_no_argument_names_an_image() -> None:
    assert choose(TaskContainer(), DockerSettings()) is None
    assert choose(TaskContainer("own:2"), DockerSettings(ignore_task=True)) is None


def test_older_clients_write_arguments_behind_the_image() -> None:
    choice = choose(TaskContainer("own:2 -e A=1 --shm-size=1g"), DockerSettings())
    assert choice is not None
    assert choice.image == "own:2"
    assert choice.merged.environment == (("A", "1"),)
    with pytest.raises(ContainerError, match="'--ipc=host' is not a container image"):
        choose(TaskContainer("--ipc=host own:2"), DockerSettings())


def test_a_clone_may_keep_the_default_arguments_that_were_noted_on_its_task() -> None:
    docker = DockerSettings(default_image="default:1", default_arguments="--privileged")
    choice = choose(TaskContainer("default:1", "--privileged"), docker)
    assert choice is not None
    assert "--privileged" in choice.merged.words


REFUSED = (
    "-v /:/host",
    "-v=/:/host",
    "-v/:/host",
    "--volume /:/host",
    "--volume=/:/host",
    "--mount type=bind,source=/,target=/host",
    "--volumes-from other",
    "--device /dev/sda",
    "--device=/dev/mem",
    "--cap-add ALL",
    "--privileged",
    "--privileged=true",
    "--security-opt seccomp=unconfined",
    "--pid host",
    "--pid=host",
    "--userns=host",
    "--uts=host",
    "--ipc=container:x",
    "--net=bridge",
    "--cgroup-parent=/",
    "--cgroupns=host",
    "--group-add disk",
    "--env-file /home/owner/.netrc",
    "--gpus all",
    "--runtime=evil",
    "--sysctl kernel.x=1",
    "-p 22:22",
    "-P",
    "-dv /:/host",
    "-itv /:/host",
    "-tv/:/host",
    "-dit",
    "-iv=/:/host",
    "--rootfs /",
    "--pod x",
    "--env-host",
    "--log-opt path=/x",
    "--init-path /x",
    "--use-api-socket",
    "--Volume /:/host",
    "-- evil/image",
    "---privileged",
    "--shm-size 8g evil/image sh -c id",
    "--shm-size=8g evil/image",
    "-e A=1 evil/image",
    "-eA=1 evil/image",
    "--read-only evil/image",
    "--read-only=true evil/image",
    "--tmpfs /x -",
    "--shm-size",
    "-e",
    "--hostname --privileged",
    "-e 'A=1' -v /:/host",
    "-e 'A=\0'",
)


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_opens_the_machine_to_a_container_is_not_a_tasks_to_give(arguments: str) -> None:
    for container in (TaskContainer("own:2", arguments), TaskContainer(f"own:2 {arguments}")):
        with pytest.raises(ContainerError, match=r"container argument|cannot be read"):
            choose(container, DockerSettings())


@pytest.mark.parametrize("arguments", ["-v /:/host", "--cap-add ALL", "--pid=host", "--rootfs /", "-dv /:/host", "-P"])
def test_a_site_gives_what_it_wants_to(arguments: str) -> None:
    choice = choose(TaskContainer("own:2"), DockerSettings(extra_arguments=arguments))
    assert choice is not None
    assert choice.merged.words[-len(arguments.split()) :] == tuple(arguments.split())


def test_a_site_lets_tasks_give_more() -> None:
    docker = DockerSettings(allowed=("volume", "--privileged", "rootfs"))
    choice = choose(TaskContainer("own:2", "-v /data:/data --privileged --rootfs=/x"), docker)
    assert choice is not None
    assert choice.merged.words[-4:] == ("-v", "/data:/data", "--privileged", "--rootfs=/x")
    with pytest.raises(ContainerError, match=r"words that belong to no option: evil/image"):
        choose(TaskContainer("own:2", "-v /data:/data evil/image"), docker)
    with pytest.raises(ContainerError, match="--device=/dev/x is not allowed here"):
        choose(TaskContainer("own:2", "--device=/dev/x"), docker)


def test_a_filter_list_lets_no_words_through_behind_what_it_admits() -> None:
    docker = DockerSettings(filters=("^-e$", "^--env$", "^--shm-size$"))
    with pytest.raises(ContainerError, match="words that belong to no option: evil/image sh"):
        choose(TaskContainer("own:2", "--shm-size 8g evil/image sh"), docker)


def test_harmless_arguments_of_a_task_pass_as_they_are() -> None:
    arguments = "-e A=1 --env B -m 8g --shm-size 1g --ulimit memlock=-1 --tmpfs=/x --read-only -w /w -h n --cpus=2"
    choice = choose(TaskContainer("own:2", arguments), DockerSettings())
    assert choice is not None
    assert " ".join(choice.merged.words).endswith(arguments.removeprefix("-e A=1 "))
    assert choice.merged.notes == ()


@pytest.mark.parametrize(
    "image",
    ["-v/:/h", "docker://-v/:/h", "docker://--privileged", "a://b://-v", "'a b'", "a,b", "$(id)", "'a\nb'", "a;b", "é"],
)
def test_an_image_is_the_name_of_one(image: str) -> None:
    with pytest.raises(ContainerError, match="not a container image"):
        choose(TaskContainer(image), DockerSettings())


@pytest.mark.parametrize(
    "image",
    [
        "python:3.11",
        "nvcr.io/nvidia/pytorch:24.05-py3",
        "localhost:5000/a/b@sha256:0f",
        "docker://ubuntu",
        "/i/a b.sif",
        "~/x.sif",
        "library://lab/x:1",
        "nvcr.io#nvidia/pytorch:1",
    ],
)
def test_names_of_images(image: str) -> None:
    choice = choose(TaskContainer(f"'{image}'"), DockerSettings())
    assert choice is not None
    assert choice.image == image
