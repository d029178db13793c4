"""conda: what tasks ask for, what its programs print, and names of folders in files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs import conda_prefix, conda_programs
from hpc_agent.envs.conda_programs import CondaPackage, parse_solution
from hpc_agent.envs.conda_request import check_secrets, conda_list, read_environment
from hpc_agent.envs.env_request import request_for
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.errors import EnvironmentBuildError

ENVIRONMENT = """
name: lab
channels: [pytorch, https://conda.example/lab]
dependencies:
  - python=3.11
  - numpy >=1.26,<2   # comment
  - pytorch::pytorch==2.3
  - pip
  - pip: ["-r requirements.txt", "clearml==1.16"]
"""

MICROMAMBA = {
    "actions": {
        "FETCH": [],
        "LINK": [
            {
                "build": "py311h1_0",
                "build_number": 0,
                "channel": "https://conda.anaconda.org/conda-forge/linux-64",
                "fn": "numpy-1.26.4-py311h1_0.conda",
                "md5": "aa",
                "name": "numpy",
                "subdir": "linux-64",
                "url": "https://conda.anaconda.org/conda-forge/linux-64/numpy-1.26.4-py311h1_0.conda",
                "version": "1.26.4",
            }
        ],
        "PREFIX": "/p",
    },
    "dry_run": True,
    "prefix": "/p",
    "success": True,
}
"""micromamba 2: create --dry-run --json."""

_CONDA_LINK = {
    "base_url": "https://conda.anaconda.org/conda-forge",
    "build_number": 0,
    "build_string": "py311h1_0",
    "channel": "conda-forge",
    "dist_name": "numpy-1.26.4-py311h1_0",
    "name": "numpy",
    "platform": "linux-64",
    "version": "1.26.4",
}
CONDA = {"actions": {"LINK": [_CONDA_LINK], "PREFIX": "/p"}, "dry_run": True, "prefix": "/p", "success": True}
"""conda 24: it has loaded the package before, and does not say from where."""


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghijk")
)
LAUGHS += "dependencies: [*k]\n"
"""A few lines whose whole content would fill the memory."""


def test_an_environment_yml() -> None:
    found = read_environment("sub/environment.yml", ENVIRONMENT)
    assert found.request.packages == ("python=3.11", "numpy>=1.26,<2", "pytorch::pytorch==2.3", "pip")
    assert found.request.channels == ("pytorch", "https://conda.example/lab")
    assert found.request.names == {"python", "numpy", "pytorch", "pip"}
    assert found.pip == ("-r requirements.txt", "clearml==1.16") and found.folder == "sub"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dependencies: [", "environment.yml of the task's repository cannot be read: while parsing"),
        ("- a", "it has no list of dependencies"),
        ("dependencies: numpy", "it has no list of dependencies"),
        ("dependencies: [{npm: [x]}]", "an entry with 'npm' is neither a package nor a list under pip:"),
        ("dependencies: [{pip: [{a: b}]}]", "an entry with 'pip' is neither a package nor a list under pip:"),
        ("dependencies: [a]\nvariables: {A B: x}", "its variable 'A B' is not a name with a text"),
        ("dependencies: [a]\nvariables: [A]", "its variables are not names with texts"),
        (f"dependencies: [{'a, ' * 100_000}]", "it has 300016 characters, of which 200000 are allowed"),
        (LAUGHS, "an entry with others in it is neither a package"),
        ("dependencies: ['--file=/etc/passwd']", "cannot be a conda package: write name"),
        ('dependencies: ["a${HOME}"]', "cannot be a conda package"),
        ("channels: [-x]\ndependencies: [a]", "'-x' cannot be a conda channel"),
        ("channels: x\ndependencies: [a]", "its channels are not a list"),
        ("dependencies: !!python/object/apply:os.system ['x']", "cannot be read: could not determine a constructor"),
    ],
)
def test_what_an_environment_yml_may_not_be(text: str, sentence: str) -> None:
    with pytest.raises(EnvironmentBuildError) as caught:
        read_environment("environment.yml", text)
    assert sentence in str(caught.value)


def test_forms_of_specs_and_what_else_a_file_says() -> None:
    text = """
channels: [conda-forge, nodefaults]
dependencies: [numpy 1.26.4, "scipy 1.11.* ", "a 1.0 py311_0", "b >=1, <2", "pandas 1.5|1.6", "c[version='>=1']"]
variables: {DATA: "/data/$x's", N: 4}
"""
    request = read_environment("environment.yml", text).request
    assert request.packages == (
        *("numpy==1.26.4", "scipy=1.11.*", "a=1.0=py311_0", "b>=1,<2", "pandas=1.5|1.6", "c[version='>=1']"),
    )
    assert request.channels == ("conda-forge",)
    assert request.variables == (("DATA", "/data/$x's"), ("N", "4"))


@pytest.mark.parametrize("secret", ["https://me:pass@conda.example/lab", "https://conda.example/t/TO-KEN/lab"])
def test_secrets_in_the_address_of_a_channel(secret: str) -> None:
    check_secrets(["conda-forge", "https://conda.example/lab", "file:///shared/t"])
    with pytest.raises(EnvironmentBuildError) as caught:
        check_secrets(["conda-forge", secret])
    assert "the conda channel https://conda.example/lab has a password" in str(caught.value)
    assert "pass@" not in str(caught.value) and "KEN" not in str(caught.value)


def test_which_list_counts() -> None:
    files = RequirementFiles(conda={"environment.yml": ENVIRONMENT})
    both = Requirements(pip=("NumPy==1.26", "clearml"), conda=("# Conda packages", "numpy == 1.26", ""))
    own = conda_list(both, files, prefer_files=False)
    assert own is not None and own.request.packages == ("numpy==1.26",) and own.pip == ("clearml",)
    of_file = conda_list(both, files, prefer_files=True)
    assert of_file is not None and of_file.request.origin == "environment.yml"
    # The SDK writes an empty list where a task was not made in an environment of conda's.
    assert conda_list(Requirements(pip=("six",), conda=()), files, prefer_files=False) is None
    assert conda_list(Requirements(), files, prefer_files=False) is not None
    assert conda_list(Requirements(), RequirementFiles(), prefer_files=True) is None


def test_conda_is_used_by_setting_and_is_part_of_the_request() -> None:
    script = TaskScript(requirements=Requirements(pip=("six",), conda=("numpy",)), binary="python3.11")
    settings = PackageSettings(type="conda")
    request = request_for(script, RequirementFiles(), settings)
    assert request.conda is not None and request.lines.requirements == ("six",) and request.python == "3.11"
    other = PackageSettings(type="conda", conda_channels=("nvidia", "conda-forge"))
    assert request.digest(settings) != request.digest(other)
    assert request_for(script, RequirementFiles(), PackageSettings()).conda is None


def test_arguments_that_all_three_programs_understand() -> None:
    assert conda_programs.solve("mamba", ("a", "b"), "/w/specs.txt", "/p") == [
        *("mamba", "create", "--yes", "--quiet", "--prefix", "/p", "--dry-run", "--json"),
        *("--override-channels", "--channel", "a", "--channel", "b", "--file", "/w/specs.txt"),
    ]
    exact = ["https://c/linux-64/numpy-1-0.conda#aa"]
    assert conda_programs.lock_text(exact) == ["@EXPLICIT", *exact]
    assert conda_programs.create("conda", ("a",), exact, "/w/l.txt", "/p") == [
        *("conda", "create", "--yes", "--quiet", "--prefix", "/p", "--file", "/w/l.txt"),
    ]
    named = ["https://c/linux-64::numpy=1=0"]
    assert conda_programs.lock_text(named) == named
    assert "--no-deps" in conda_programs.create("conda", ("a",), named, "/w/l.txt", "/p")


def test_what_micromamba_and_conda_print() -> None:
    [package] = parse_solution(f"Welcome to our cluster\n{json.dumps(MICROMAMBA)}\n", "", "the list")
    assert package.lock_line == "https://conda.anaconda.org/conda-forge/linux-64/numpy-1.26.4-py311h1_0.conda#aa"
    [package] = parse_solution(json.dumps(CONDA), "", "the list")
    assert package == CondaPackage("numpy", "1.26.4", "py311h1_0", "https://conda.anaconda.org/conda-forge/linux-64")
    assert package.lock_line == "https://conda.anaconda.org/conda-forge/linux-64::numpy=1.26.4=py311h1_0"
    fetched = {**MICROMAMBA["actions"]["LINK"][0], "channel": "x"}  # type: ignore[index]
    with_address = {**CONDA, "actions": {"LINK": [_CONDA_LINK], "FETCH": [fetched]}}
    [package] = parse_solution(json.dumps(with_address), "", "the list")
    assert package.url.endswith("numpy-1.26.4-py311h1_0.conda") and package.md5 == "aa"


@pytest.mark.parametrize(
    ("stdout", "stderr", "sentence", "again"),
    [
        ('{"success": false, "solver_problems": ["nothing provides x"]}', "", "nothing provides x", False),
        ('{"success": false, "message": "not available:\\n  - x"}', "", "not available: - x", False),
        ('{"success": false, "exception_name": "CondaHTTPError", "message": "HTTP 000"}', "", "HTTP 000", True),
        ("", "critical libmamba Could not load repodata", "Could not load repodata", True),
        ("{not json", "", "{not json", False),
        ("[]", "", "cannot be resolved: []", False),
        ("", "", "it printed nothing", False),
    ],
)
def test_no_solution(stdout: str, stderr: str, sentence: str, again: bool) -> None:
    with pytest.raises(ResolutionError) as caught:
        parse_solution(stdout, stderr, "environment.yml")
    assert sentence in str(caught.value) and "conda packages of environment.yml" in str(caught.value)
    assert caught.value.retryable is again


def test_the_programs_get_their_settings_but_not_an_activated_environment() -> None:
    environ = {
        "CONDA_OVERRIDE_CUDA": "12.4",
        "CONDA_PREFIX": "/x",
        "CONDARC": "/c",
        "MAMBA_ROOT_PREFIX": "/m",
        "A": "1",
    }
    assert conda_programs.own_variables({**environ, "CONDA_PREFIX_1": "/y", "CONDA_EXE": "/z"}) == {
        "CONDA_OVERRIDE_CUDA": "12.4",
        "CONDARC": "/c",
        "MAMBA_ROOT_PREFIX": "/m",
    }


def test_a_name_in_a_library_becomes_shorter_and_the_library_does_not() -> None:
    content = b"\x7fELF/long/folder/lib:/long/folder/share\0next\0"
    assert (
        conda_prefix.replaced(content, b"/long/folder", b"/s") == b"\x7fELF/s/lib:/s/share" + b"\0" * 20 + b"\0next\0"
    )


def test_environments_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    assert conda_prefix.relocate(tmp_path, Path("/elsewhere")) == {}


def test_a_build_folder_has_a_long_name(tmp_path: Path) -> None:
    assert len(str(conda_prefix.build_folder(tmp_path))) == conda_prefix.LENGTH
