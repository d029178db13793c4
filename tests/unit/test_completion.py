"""Shell completion of both commands, as each shell asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from capabilities import missing

BIN = Path(sys.executable).parent

ASK = """
eval "$(hpc-agent completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_{function}_completion {program} "${{COMP_WORDS[COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def run(*argv: str, **env: str) -> str:
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **env}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hpc-agent dae", {"daemon"}),
        ("hpc-agent com", {"completion"}),
        ("hpc-agent daemon --dy", {"--dynamic-gpus"}),
        ("hpc-agent daemon --queue a b --order", {"--order-fairness"}),
        ("hpc-agent execute --log-level D", {"DEBUG"}),
        ("hpc-agent completion z", {"zsh"}),
        ("hpc-task --pack", {"--packages"}),
    ],
)
def test_bash_completes_both(words: str, expected: set[str]) -> None:
    program = words.split()[0]
    script = ASK.format(words=words, program=program, function=program.replace("-", "_"))
    assert set(run("bash", "--norc", "-c", script).split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_lines_for_both(shell: str) -> None:
    lines = run("hpc-agent", "completion", shell)
    for program in ("hpc-agent", "hpc-task"):
        assert program in lines
        assert f"_{program.replace('-', '_').upper()}_COMPLETE={shell}_complete" in lines


@pytest.mark.parametrize(
    "shell",
    ["bash", pytest.param("zsh", marks=pytest.mark.shells), pytest.param("fish", marks=pytest.mark.shells)],
)
def test_every_shell_understands_its_lines(shell: str) -> None:
    if shutil.which(shell) is None:
        missing("shells", f"{shell} is not installed")
    run(shell, "-n", "-c", run("hpc-agent", "completion", shell))


@pytest.mark.parametrize(
    ("shell", "words", "answer"),
    [
        ("zsh", {"COMP_WORDS": "hpc-agent lis", "COMP_CWORD": "1"}, "plain\nlist\nList the workers"),
        ("fish", {"COMP_WORDS": "hpc-agent lis", "COMP_CWORD": "lis"}, "plain,list\tList the workers"),
    ],
)
def test_the_others_get_descriptions_too(shell: str, words: dict[str, str], answer: str) -> None:
    assert answer in run("hpc-agent", _HPC_AGENT_COMPLETE=f"{shell}_complete", **words)


def test_version() -> None:
    from hpc_agent import __version__

    assert run("hpc-agent", "--version") == f"hpc-agent, version {__version__}\n"
