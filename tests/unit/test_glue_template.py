"""Templates in the form of ClearML's Slurm glue: variables, quoting, and what becomes of the three blocks."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.glue_template import ContainerLaunch, GlueJob, script, uses_container_directives
from hpc_agent.submission.glue_variables import GlueFacts, is_glue_template
from hpc_agent.submission.second_reading import is_read_again

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples" / "slurm-glue"
TASK: dict[str, Any] = {
    "id": "abc",
    "name": "my task",
    "project": "p1",
    "tags": ["a", "b"],
    "comment": "",
    "container": {"image": "docker://nvcr.io/nvidia/pytorch:24.01-py3", "arguments": "-e 'A=b c'"},
    "hyperparams": {
        "properties": {"num_nodes": {"value": "2"}, "empty": {"value": ""}},
        "Args": {"lr": {"value": 0.1}},
    },
}
EVIL = "it's $(touch evil) `touch evil` \"; touch evil; # \\"


def rendered(
    body: str, launch: ContainerLaunch | None = None, signal: str = "", project: str = "group/project", **task: Any
) -> str:
    facts = GlueFacts({**TASK, **task}, "night shift", "q1", "host:slurm:0", project)
    job = GlueJob(
        Path("/run"), Path("/conf"), ["agent"], "abc", ["--standalone-mode"], {}, ["--requeue"], signal, launch
    )
    return script(body, facts, job, SbatchScript(SlurmSettings()))


def line(text: str, **task: Any) -> str:
    """What a line of the script's body becomes."""
    body = f"#!/bin/bash\n${{CLEARML_PRE_SETUP}}\n{text}\n${{CLEARML_AGENT_EXECUTE}}\n"
    found = rendered(body, **task).partition("HPC_AGENT_RUN_DIR=/run\n")[2]
    return found.partition("\nexec agent")[0]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${CLEARML_TASK.id} $CLEARML_TASK.id", "abc abc"),
        ("${CLEARML_TASK.hyperparams.properties.num_nodes.value:1}", "2"),
        ("${CLEARML_TASK.hyperparams.properties.empty.value:1}", "1"),
        ("${CLEARML_TASK.hyperparams.properties.gone.value:01:00:00}", "01:00:00"),
        ("${CLEARML_TASK.hyperparams.properties.gone.value:}", ""),
        ("${CLEARML_TASK.hyperparams.Args.lr.value}", "0.1"),
        ("${CLEARML_TASK.tags}", "a,b"),
        ("${CLEARML_TASK.project} ${CLEARML_TASK.project.id} ${CLEARML_PROJECT_ID}", "p1 p1 p1"),
        ("${CLEARML_TASK.project.name} ${CLEARML_PROJECT_NAME}", "group/project group/project"),
        ("${CLEARML_QUEUE_NAME|strip|upper} ${CLEARML_QUEUE_ID}", "'NIGHT SHIFT' q1"),
        ("${CLEARML_|QUEUE_ID} $CLEARML_WORKER_ID", "q1 host:slurm:0"),
        ("${CLEARML_TASK.container.arguments}", "-e 'A=b c'"),
        ("${CLEARML_TASK.name} ${CLEARML_TASK.name|words}", "'my task' my task"),
        ('"${CLEARML_TASK.name}"', '"my task"'),
        ("${CLEARML_FOO} ${CLEARML_FOO:-x} $CLEARML_AGENT__AGENT__VENVS_DIR/x", None),
        ("# ${CLEARML_TASK.gone} ${CLEARML_AGENT_EXECUTE} ${CLEARML_USER.name}", None),
    ],
)
def test_variables(written: str, expected: str | None) -> None:
    assert line(f"echo {written}" if written[0] != "#" else written).removeprefix("echo ") == (
        written if expected is None else expected
    )


@pytest.mark.parametrize("quotes", ["", '"', "'"])
def test_what_a_user_wrote_stays_one_word(quotes: str, tmp_path: Path) -> None:
    """As the shell itself reads it."""
    command = line(f"printf '%s\\n' {quotes}${{CLEARML_TASK.name}}{quotes}", name=EVIL)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert done.stdout == f"{EVIL}\n" and list(tmp_path.iterdir()) == []


def sbatch_words(line: str) -> list[str]:
    """Words of an option line as sbatch splits it: a backslash takes the next character as it is, in quotes as well."""
    words: list[str] = []
    word, quote, escaped, begun = "", "", False, False
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\":
            escaped = begun = True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "\"'":
            quote, begun = character, True
        elif character.isspace():
            words, word, begun = [*words, word] if begun else words, "", False
        elif character == "#":
            break
        else:
            word, begun = word + character, True
    assert not quote and not escaped
    return [*words, word] if begun else words


HOSTILE = [
    EVIL,
    "a\n#SBATCH --uid=0\r\ntouch evil\n",
    "$(touch evil)",
    "`touch evil`",
    "; touch evil",
    "& touch evil &",
    "| tee evil",
    "> evil",
    "# a comment",
    "${HOME} $HOME ~ ~root !! {a,b} * ? [a-z]",
    "\\",
    "ends in \\",
    "'",
    '"',
    "'; touch evil; '",
    '"; touch evil; "',
    "$'\\x41'",
    "${CLEARML_AGENT_EXECUTE} ${CLEARML_TASK.id}",
    "-n",
    "%d %s",
    " spaces  around ",
    "é ü 漢",
]
BY_USERS = (
    *("CLEARML_TASK.name", "CLEARML_TASK.comment", "CLEARML_TASK.user", "CLEARML_TASK.tags"),
    *("CLEARML_TASK.container.image", "CLEARML_TASK.hyperparams.properties.own.value"),
    *("CLEARML_TASK.hyperparams.Args.own.value", "CLEARML_TASK.project.name", "CLEARML_PROJECT_NAME"),
)


def written_by_users(text: str) -> dict[str, Any]:
    """The task's fields of ``BY_USERS``, all of which have this text."""
    own = {"own": {"value": text}}
    return {
        **dict.fromkeys(("name", "comment", "user"), text),
        "tags": [text],
        "container": {"image": text},
        "hyperparams": {"properties": own, "Args": own},
        "project": text,
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_user_wrote_leaves_its_place(text: str, tmp_path: Path) -> None:
    """In each variable, at each place of a command; as the shell itself reads it."""
    places = ["{}", '"{}"', "'{}'", "a{}b", "--x={}", '"a {} $WORD b"', "'a {} b'", '--x="{}"', "a'{}'\"{}\"{}"]
    variables = [f"${{{name}}}" for name in BY_USERS]
    commands = [f"printf '%s\\0' {place.replace('{}', each)} # {each}" for each in variables for place in places]
    exports = [f'export FOUND={each}; printf "%s\\0" "$FOUND"' for each in variables]
    fields = written_by_users(text)
    del fields["project"]
    body = line("\n".join([*commands, *exports]), project=text, **fields)
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "job.sh").write_text(body, encoding="utf-8")
    done = subprocess.run(
        ["bash", "../job.sh"], cwd=work, env={"WORD": "word"}, encoding="utf-8", capture_output=True, check=True
    )
    plain = text.replace("\r", "").replace("\n", "")
    expected = [place.replace('"', "").replace("'", "").replace("$WORD", "word") for place in places]
    per_variable = [place.replace("{}", plain) for place in expected]
    assert done.stdout.split("\0")[:-1] == per_variable * len(variables) + [plain] * len(variables)
    assert done.stderr == "" and list(work.iterdir()) == []


@pytest.mark.parametrize("place", ["echo {}", 'echo "{}"', "echo '{}'", "# {}"])
@pytest.mark.parametrize("text", ["a\tb", "a\0b", "a\x1b[2Jb", "a\u2028b", "a\x85b", "a\ud800b"])
def test_control_characters_are_refused_at_each_place(text: str, place: str) -> None:
    with pytest.raises(TemplateError, match=r"CLEARML_TASK\.name"):
        line(place.replace("{}", "${CLEARML_TASK.name}"), name=text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["--comment={}", '--comment="{}"', "--comment {}", '--comment "a {} b"'])
def test_a_directive_stays_one_line_and_one_option(text: str, place: str) -> None:
    plain = text.replace("\r", "").replace("\n", "")
    for name in BY_USERS:
        fields = written_by_users(text)
        del fields["project"]
        directive = place.replace("{}", f"${{{name}}}")
        body = f"#!/bin/bash\n#SBATCH {directive}\n${{CLEARML_PRE_SETUP}}\n${{CLEARML_AGENT_EXECUTE}}\n"
        lines = rendered(body, project=text, **fields).splitlines()
        assert [each for each in lines if each.startswith("#SBATCH")][:1] == ["#SBATCH --requeue"]
        assert lines[3].startswith("export CLEARML_CONFIG_FILE=")
        found = sbatch_words(lines[2].removeprefix("#SBATCH "))
        assert found == [word.replace("{}", plain) for word in sbatch_words(place)]


def test_words_of_container_arguments_are_words_and_nothing_else() -> None:
    text = "-e 'A=b c' ; touch evil & $(id) `id` > x"
    found = line("printf ${CLEARML_TASK.container.arguments}", container={"arguments": text})
    assert shlex.split(found.removeprefix("printf ")) == shlex.split(text)
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {found[7:]}"], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == shlex.split(text)
    with pytest.raises(TemplateError, match="cannot be split into words"):
        line("printf ${CLEARML_TASK.container.arguments}", container={"arguments": "-e 'A"})


def test_a_directive_is_quoted_as_sbatch_reads_it() -> None:
    body = '#!/bin/bash\n#SBATCH --comment="${CLEARML_TASK.name}"\n#SBATCH -J ${CLEARML_TASK.name}\n'
    text = rendered(f"{body}${{CLEARML_PRE_SETUP}}\n${{CLEARML_AGENT_EXECUTE}}", name='a "b" \\c #d')
    assert '#SBATCH --comment="a \\"b\\" \\\\c #d"\n#SBATCH -J "a \\"b\\" \\\\c #d"\n' in text


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("echo ${CLEARML_TASK.gone}", "the task has no gone and no default is given"),
        ("echo ${CLEARML_TASK.comment}", "the task has no comment"),
        ("echo ${CLEARML_TASK.id|swap}", "has the filter swap; those known are strip"),
        ("echo ${CLEARML_CONFIG.api.credentials.secret_key}", "is not offered"),
        ("bash -c 'echo ${CLEARML_TASK.name}'", "reads its argument as a program once more"),
        ('srun bash -lc "x ${CLEARML_TASK.name}"', "reads its argument as a program once more"),
        ("[[ ${CLEARML_TASK.name} -gt 1 ]]", "reads its argument as a program once more"),
        ("[ -v ${CLEARML_TASK.name} ]", "reads its argument as a program once more"),
        ("printf -v ${CLEARML_TASK.name} x", "reads its argument as a program once more"),
        ("read -r ${CLEARML_TASK.name} <file", "reads its argument as a program once more"),
        ('bash <<<"${CLEARML_TASK.name}"', "reads its argument as a program once more"),
        ("ruby -e ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ("/usr/bin/ssh n1 'echo ${CLEARML_TASK.name}'", "reads its argument as a program once more"),
        ("exec /bin/tcsh -c ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ('"bash" -c "${CLEARML_TASK.name}"', "reads its argument as a program once more"),
        ("${SHELL} -c ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ('gawk "{ print ${CLEARML_TASK.name} }"', "reads its argument as a program once more"),
        ("flock lock -c ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ("php -r ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ("pdsh -w n1 ${CLEARML_TASK.name}", "reads its argument as a program once more"),
        ("cat <<E\n${CLEARML_TASK.name}\nE", "cannot be quoted safely"),
        ("echo ${CLEARML_TASK.name|raw}", "control character"),
    ],
)
def test_what_cannot_be_filled_in_safely_is_refused(written: str, sentence: str) -> None:
    with pytest.raises(TemplateError, match=sentence.replace("(", r"\(")):
        line(written, name="a $(b)\n" if "raw" in written else "a $(b)")


@pytest.mark.parametrize(
    "written",
    ["srun -c 4 train --name", "python train.py --name", "singularity exec -e x.sif train", "bash run.sh", "tar -c"],
)
def test_what_only_looks_like_a_second_reading_is_filled_in(written: str) -> None:
    assert line(f"{written} ${{CLEARML_TASK.name}}", name="a b") == f"{written} 'a b'"


@pytest.mark.parametrize("written", ["echo ${CLEARML_TASK.name}", "echo '${CLEARML_TASK.name}'"])
def test_a_text_that_is_too_long_is_refused(written: str) -> None:
    with pytest.raises(TemplateError, match="holds 30001 characters, of which a script takes 30000: shorten it"):
        line(written, name="a " * 15_000 + "b")


@pytest.mark.parametrize("text", [";", "bash ", "/", " sh -a", "a/;"])
def test_a_long_text_is_looked_through_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert not is_read_again(f"echo '{text * 20_000}'")
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("${CLEARML_AGENT_EXECUTE}", "needs ${CLEARML_PRE_SETUP} once"),
        ("${CLEARML_PRE_SETUP}", "would never run the task"),
        ("echo ${CLEARML_PRE_SETUP}\n${CLEARML_AGENT_EXECUTE}", "has it on line 2 behind text"),
    ],
)
def test_a_missing_block_is_named(body: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        rendered(f"#!/bin/bash\n{body}\n")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("after", "start", "warned"),
    [
        ("${CLEARML_AGENT_EXECUTE}\n\n# over\n${CLEARML_POST_SETUP}\n", "\nexec agent execute", True),
        ("${CLEARML_AGENT_EXECUTE}\necho over\n", "\nhpc_agent_run agent execute", True),
        ("srun --label ${CLEARML_AGENT_EXECUTE} || true\n", "\nsrun --label agent execute", False),
    ],
)
def test_the_agent_takes_the_scripts_place_where_nothing_follows(after: str, start: str, warned: bool) -> None:
    text = rendered(f"#!/bin/bash\n${{CLEARML_PRE_SETUP}}\n{after}", signal="B:USR1@60")
    assert f"{start} --id abc --require-queue --standalone-mode" in text
    assert ("#SBATCH --signal=B:USR1@60" in text) is warned
    assert text.startswith("#!/bin/bash\n#SBATCH --requeue\n")


def launched(name: str, launch: ContainerLaunch | None = None, **task: Any) -> str:
    return rendered((EXAMPLES / f"{name}.template").read_text(), launch, **task)


def test_singularitys_command_line_becomes_a_function() -> None:
    text = launched("singularity", ContainerLaunch.SINGULARITY)
    assert 'hpc_agent_launch() {\nsrun singularity exec --uts \\\n    --bind "$DATA:/data" "$@"\n}\n' in text
    assert "hpc_agent_run agent execute --id abc --require-queue --standalone-mode --container-launch apptainer" in text


def test_pyxis_options_go_to_srun() -> None:
    text = launched("pyxis-directives")
    image = TASK["container"]["image"]
    assert f'srun --container-image={image} --container-remap-root --container-writable "$@"\n' in text
    assert "#SBATCH --container" not in text and text.rstrip().endswith("--container-launch pyxis")


def _with_directive(directive: str) -> str:
    return f"#!/bin/bash\n{directive}\n${{CLEARML_PRE_SETUP}}\n${{CLEARML_AGENT_EXECUTE}}\n"


def test_a_directive_may_have_a_tab_before_its_options() -> None:
    template = _with_directive("#SBATCH\t--container-image=x.sqsh")
    text = rendered(template)
    assert uses_container_directives(template, "#SBATCH")
    assert 'srun --container-image=x.sqsh "$@"\n' in text and "#SBATCH\t" not in text


@pytest.mark.parametrize(
    "directive",
    ["#SBATCH --nodes=1 --container-image=x.sqsh", "#SBATCH --container-image x.sqsh --container-writable"],
)
def test_a_directive_with_other_words_than_a_containers_options_is_refused(directive: str) -> None:
    """sbatch would start the whole script in the container."""
    assert uses_container_directives(_with_directive(directive), "#SBATCH")
    with pytest.raises(TemplateError, match="write the options of a container on a line of their own"):
        rendered(_with_directive(directive))


def test_srun_delegation_calls_the_templates_function() -> None:
    text = launched("pyxis-srun", ContainerLaunch.SRUN)
    assert f'--container-image="{TASK["container"]["image"]}" \\\n' in text
    assert 'hpc_agent_launch() {\nsrun "$@"\n}\nexec agent' in text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("${CLEARML_AGENT_EXECUTE}", "a command has to be before"),
        ("if srun x ${CLEARML_AGENT_EXECUTE}; then :; fi", "is behind if"),
        ("x $(srun ${CLEARML_AGENT_EXECUTE})", "in a command of its own"),
    ],
)
def test_a_container_needs_a_command_of_its_own(line: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        rendered(f"#!/bin/bash\n${{CLEARML_PRE_SETUP}}\n{line}\n", ContainerLaunch.SINGULARITY)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["native", "singularity", "pyxis-directives", "pyxis-srun"])
def test_examples_are_scripts_that_bash_can_read(name: str) -> None:
    launch = {"singularity": ContainerLaunch.SINGULARITY, "pyxis-srun": ContainerLaunch.SRUN}.get(name)
    done = subprocess.run(["bash", "-n"], input=launched(name, launch), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_glue_template((EXAMPLES / f"{name}.template").read_text())


def test_the_agent_gets_signals_and_its_code_is_passed_on(tmp_path: Path) -> None:
    text = rendered("#!/bin/bash\n${CLEARML_PRE_SETUP}\nset -eu\n${CLEARML_AGENT_EXECUTE} || echo code $?\n")
    agent = tmp_path / "agent"
    agent.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\n"
        "os.kill(os.getppid(), signal.SIGUSR1)\n"
        "time.sleep(50)\n"
    )
    agent.chmod(0o700)
    lines = text.replace("hpc_agent_run agent", f"hpc_agent_run {agent}")
    done = subprocess.run(["bash", "-c", lines], text=True, capture_output=True, timeout=60, check=True)
    assert done.stdout == "code 7\n"
