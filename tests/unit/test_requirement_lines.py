"""Requirements files of every spelling that pip reads, and lines that are refused in a sentence."""

from __future__ import annotations

import pytest

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.requirement_lines import LONGEST_LINE, decoded, logical_lines, options_of
from hpc_agent.envs.requirements import RequirementLines, collect
from hpc_agent.errors import EnvironmentBuildError


def collected(text: str, **files: str) -> RequirementLines:
    return collect(
        [text], RequirementFiles(texts={name.replace("__", "/"): value for name, value in files.items()}), ""
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_editors_write_are_read(encoding: str) -> None:
    assert decoded("six==1.16.0 # für\n".encode(encoding)) == "six==1.16.0 # für\n"


def test_declared_encoding_counts() -> None:
    assert decoded("# -*- coding: latin-1 -*-\n./für\n".encode("latin-1")).splitlines()[1] == "./für"
    assert decoded(b"# coding: none-such\nsix\n") == "# coding: none-such\nsix\n"


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ('-e ".[dev]"', [("--editable", ".[dev]")]),
        ('-r "reqs/my reqs.txt"', [("--requirement", "reqs/my reqs.txt")]),
        ("-rbase.txt", [("--requirement", "base.txt")]),
        ("--requirement=base.txt", [("--requirement", "base.txt")]),
        ("-c 'limits.txt' --pre", [("--constraint", "limits.txt"), ("--pre", "")]),
        (
            "--extra-index-url https://h/s --trusted-host h",
            [("--extra-index-url", "https://h/s"), ("--trusted-host", "h")],
        ),
        ("-i https://h/s", [("--index-url", "https://h/s")]),
        ("--no-index -f /wheels", [("--no-index", ""), ("--find-links", "/wheels")]),
        ("six", []),
    ],
)
def test_options_are_taken_apart_as_pip_does(line: str, options: list[tuple[str, str]]) -> None:
    assert [(option.name, option.value) for option in options_of(line)] == options


def test_quoted_folder_is_installed() -> None:
    assert collected('-e ".[dev]"').local == ("./.[dev]",)


@pytest.mark.parametrize("line", ["lib @ ./lib", "lib @ file:lib", "./lib", "file:lib", "lib/"])
def test_path_of_the_repository_is_relative_to_its_root(line: str) -> None:
    assert collected(line).local == ("./lib",)


def test_hash_of_a_file_of_the_repository_is_kept() -> None:
    lines = collected("./x.whl --hash=sha256:1")
    assert lines.requirements == ("./x.whl --hash=sha256:1",)
    assert lines.local == ("./x.whl",)


def test_folder_of_the_repository_that_cannot_be_searched_is_refused_with_a_way_out() -> None:
    with pytest.raises(EnvironmentBuildError, match=r"name the file itself, as in \./wheels/x\.whl"):
        collected("--find-links wheels")


def test_file_with_a_blank_in_its_name_is_included() -> None:
    files = RequirementFiles(texts={"my reqs.txt": "six\n"})
    assert collect(['-r "my reqs.txt"'], files, "").requirements == ("six",)


def test_all_options_of_a_line_count() -> None:
    found = collected("--extra-index-url https://h/simple --trusted-host h\n")
    assert found.options == ("--extra-index-url https://h/simple", "--trusted-host h")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("./${CLEARML_AGENT_GIT_PASS}", "variables such as"),
        ("x @ http://host/${TOKEN}/x-1.0-py3-none-any.whl", "variables such as"),
        ("--index-url http://host/${TOKEN}", "variables such as"),
        ("--find-links http://host/${TOKEN}/", "variables such as"),
        ("-r ${TOKEN}.txt", "variables such as"),
        ("-e ${HOME}/lib", "variables such as"),
        ("six==1.0 --hash=sha256:${TOKEN}", "variables such as"),
        ("--target /tmp/x", "no such option"),
        ("--log=/tmp/x", "no such option"),
        ("six --config-settings=a=b", "the option --config-settings"),
        ("--extra-index-url", "needs a value"),
        ("--pre six", "follows an option and is none"),
        ('-e "-r /etc/passwd"', "is where a requirement is expected"),
        ("--editable=--index-url=http://host", "is where a requirement is expected"),
        ('--find-links "x -r /etc/passwd"', "white space"),
        ('-r "a', "closing quotation"),
        ("six ; " + "(" * 2000, "cannot be used"),
        ("x" * (LONGEST_LINE + 1), "4096 are allowed"),
        ("six \\\n" * 2000 + "six", "4096 are allowed"),
    ],
)
def test_line_that_is_not_allowed_is_refused_in_a_sentence(line: str, words: str) -> None:
    with pytest.raises(EnvironmentBuildError, match=words):
        collected(line)


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\r"])
def test_what_pip_takes_for_two_lines_is_two_lines(separator: str) -> None:
    assert collected(f"six{separator}idna").requirements == ("idna", "six")


def test_variables_in_files_of_the_repository_are_refused_too() -> None:
    files = RequirementFiles(("requirements.txt",), {"requirements.txt": "-c limits.txt\n", "limits.txt": "x==${A}\n"})
    with pytest.raises(EnvironmentBuildError, match="variables such as"):
        collect(["-r requirements.txt"], files, "")


def test_password_in_a_refused_line_is_not_shown() -> None:
    with pytest.raises(EnvironmentBuildError) as error:
        collected("--frobnicate https://me:SECRET@host/x")
    assert "SECRET" not in str(error.value)


def test_line_with_many_hashes_is_not_too_long() -> None:
    hashes = " \\\n".join(f"--hash=sha256:{number:064}" for number in range(200))
    [line] = collected(f"torch==2.0 \\\n{hashes}").requirements
    assert line.count("--hash=") == 200


def test_continued_lines_are_joined_and_comments_left_out() -> None:
    assert list(logical_lines("a \\\n  b # c\n# d \\\ne\n\nf\\")) == ["a    b", "e", "f"]
