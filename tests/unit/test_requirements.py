"""Requirement lines of every spelling, and which list of a task counts.

See docs/internals/clearml-protocol.md#requirements.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs import pip_config
from hpc_agent.envs.env_lock import normalise, prepare_input, without_password
from hpc_agent.envs.env_request import request_for
from hpc_agent.envs.requirements import collect, name_of
from hpc_agent.errors import EnvironmentBuildError

NO_FILES = RequirementFiles()
SETTINGS = PackageSettings()


@pytest.mark.parametrize(
    ("line", "canonical"),
    [
        ("NumPy", "numpy"),
        ("scikit_learn == 1.4 ", "scikit-learn==1.4"),
        ("torch>=2.0 , <3", "torch<3,>=2.0"),
        ("uvicorn[Standard, http2]", "uvicorn[http2,standard]"),
        ("six;python_version>'3'", 'six ; python_version > "3"'),
        ("six  # why", "six"),
        ("pkg@ https://host/p.whl", "pkg @ https://host/p.whl"),
        ("git+https://host/r.git@v1#egg=r", "git+https://host/r.git@v1#egg=r"),
        ("-e git+https://host/r.git#egg=r", "git+https://host/r.git#egg=r"),
        ("./lib", "./lib"),
        ("lib/sub[x]", "./lib/sub[x]"),
        ("/srv/wheels/six.whl", "/srv/wheels/six.whl"),
        ("file:///srv/lib", "file:///srv/lib"),
        (".", "./."),
        ("-e .", "./."),
        ("six==1.16.0 --hash=sha256:b --hash=sha256:a", "six==1.16.0 --hash=sha256:a --hash=sha256:b"),
    ],
)
def test_equal_requirements_have_one_normal_form(line: str, canonical: str) -> None:
    assert collect([line], NO_FILES, "").requirements == (canonical,)


def test_order_comments_and_empty_lines_do_not_matter() -> None:
    one = collect(["b\n\n# about\na \\\n >=1\n"], NO_FILES, "")
    assert one == collect(["a>=1", "b", "b"], NO_FILES, "")


def test_options_are_kept_apart() -> None:
    lines = collect(["--extra-index-url=https://i/simple\n-f https://f\n--no-binary six\nsix"], NO_FILES, "")
    assert lines.options == ("--extra-index-url https://i/simple", "--find-links https://f", "--no-binary six")
    assert lines.requirements == ("six",)


def test_injected_packages_are_collapsed_to_the_last_pinned_line() -> None:
    assert collect(["clearml==1.0", "six", "clearml==2.0", "clearml"], NO_FILES, "").requirements == (
        "clearml==2.0",
        "six",
    )


def test_included_files_are_relative_to_the_one_that_includes_them() -> None:
    files = RequirementFiles(
        ("requirements.txt",),
        {
            "requirements.txt": "a\n-r more/base.txt\n",
            "more/base.txt": "b\n-rdeep.txt\n--constraint limits.txt\n-e ../lib\n",
            "more/deep.txt": "c\n-r base.txt\n",
            "more/limits.txt": "c<2\n",
        },
    )
    lines = collect(["-r requirements.txt"], files, "")
    assert lines.requirements == ("./lib", "a", "b", "c")
    assert lines.constraints == ("c<2",)
    assert lines.local == ("./lib",)


def test_included_file_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentBuildError, match=r"'-r nope.txt' includes a file .*: src/nope.txt"):
        collect(["-r nope.txt"], NO_FILES, "src")


FILES = RequirementFiles(("requirements.txt", "src/requirements.txt"), {
    "requirements.txt": "from-root\n", "src/requirements.txt": "from-src\n", "src/x.txt": "from-x\n",
}, "src")  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "settings", "lines"),
    [
        (Requirements(pip=("six", "-r x.txt")), SETTINGS, ("from-x", "six")),
        (Requirements(pip=()), SETTINGS, ()),
        (Requirements(), SETTINGS, ("from-root", "from-src")),
        (Requirements(pip=("six",)), PackageSettings(force_repo_requirements_txt=True), ("from-root", "from-src")),
        (
            Requirements(pip=("six==1",), org_pip=("six",)),
            PackageSettings(force_original_requirements=True),
            ("six",),
        ),
        (Requirements(pip=("six==1",)), PackageSettings(force_original_requirements=True), ("six==1",)),
    ],
)
def test_list_that_counts(wanted: Requirements, settings: PackageSettings, lines: tuple[str, ...]) -> None:
    assert request_for(TaskScript(repository="r", requirements=wanted), FILES, settings).lines.requirements == lines


def test_without_repository_and_list_nothing_is_asked_for() -> None:
    assert request_for(TaskScript(), NO_FILES, SETTINGS).lines.requirements == ()


def test_notebook_brings_its_converter() -> None:
    script = TaskScript(entry_point="a.ipynb", requirements=Requirements(pip=("six",)))
    assert request_for(script, NO_FILES, SETTINGS).lines.requirements == ("ipython", "nbconvert", "six")


@pytest.mark.parametrize(
    ("binary", "version"),
    [("python3.11", "3.11"), ("/usr/bin/python3.9.4", "3.9"), ("python3", ""), ("python", ""), ("bash", ""), ("", "")],
)
def test_requested_python(binary: str, version: str) -> None:
    assert request_for(TaskScript(binary=binary), NO_FILES, SETTINGS).python == version
    ignoring = PackageSettings(ignore_requested_python_version=True)
    assert request_for(TaskScript(binary=binary), NO_FILES, ignoring).python == ""


def test_digest_changes_with_what_matters_only() -> None:
    def digest(*lines: str, settings: PackageSettings = SETTINGS, source: str = "") -> str:
        script = TaskScript(requirements=Requirements(pip=lines))
        return request_for(script, NO_FILES, settings, source=source).digest(settings)

    assert digest("a", "B_b>=1, <2") == digest("b-b<2,>=1", "a")
    assert digest("a") != digest("a", "b")
    assert digest("a") != digest("a", settings=PackageSettings(system_site_packages=True))
    # The commit counts where something is built from it, and only there.
    assert digest("a", source="1") == digest("a", source="2")
    assert digest("./lib", source="1") != digest("./lib", source="2")
    # A token that is renewed must not rebuild everything.
    index = "--extra-index-url https://{}@host/simple"
    assert digest(index.format("me:old")) == digest(index.format("me:new"))


def test_files_of_another_machine_are_asked_for_by_name(tmp_path: Path) -> None:
    here = tmp_path / "six-1.0-py3-none-any.whl"
    here.touch()
    lines = collect([f"six @ file://{here}", "numpy @ file:///home/conda/work/numpy"], NO_FILES, "")
    said: list[str] = []
    assert prepare_input(lines, (), said.append).lines == ("numpy", f"six @ file://{here}")
    assert "taking numpy from the package index" in said[0]


def test_post_packages_are_separated() -> None:
    made = prepare_input(collect(["torch", "horovod==0.28"], NO_FILES, ""), ("horovod",), print)
    assert (made.lines, made.post_packages) == (("torch",), ("horovod==0.28",))


def test_password_in_a_repository_line_goes_another_way() -> None:
    line, [credential] = without_password("lib @ git+https://me:s%40fe@host:8443/lib.git@v1")
    assert line == "lib @ git+https://host:8443/lib.git@v1"
    assert (credential.origin, credential.user, credential.password.reveal()) == ("https://host:8443", "me", "s@fe")
    assert without_password("six==1.0") == ("six==1.0", [])


def test_locks_that_mean_the_same_are_the_same() -> None:
    one = "# made by x\nSix==1.0 \\\n    --hash=sha256:b \\\n    --hash=sha256:a\nZope.Interface==5\n"
    assert normalise(one) == ("six==1.0 --hash=sha256:a --hash=sha256:b", "zope-interface==5")
    assert normalise(one) == normalise("zope_interface==5\nsix==1.0 --hash=sha256:a --hash=sha256:b")


@pytest.mark.parametrize(
    ("line", "name"),
    [("six", "six"), ("a-b[x]>=1", "a-b"), ("c @ https://h/x", "c"), ("git+https://h/r", ""), ("./lib", "")],
)
def test_name_of_a_line(line: str, name: str) -> None:
    assert name_of(line) == name


def test_indexes_of_a_site_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    named = tmp_path / "named.conf"
    named.write_text(
        "[global]\nindex-url = https://a/simple\nfind-links =\n    /wheels\n    /more\n[install]\nno-index=on\n"
    )
    user = tmp_path / "config" / "pip" / "pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[global]\nindex-url = https://lost/simple\ntrusted-host = a\ncert = /ca.pem\n")
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CONFIG_DIRS": str(tmp_path),
        "PIP_CONFIG_FILE": str(named),
        "PIP_EXTRA_INDEX_URL": "https://b/simple https://c/simple",
    }
    found = pip_config.load(environ)
    for line in (
        "--index-url https://a/simple",
        "--extra-index-url https://c/simple",
        "--find-links /more",
        "--no-index",
    ):
        assert line in found.lines
    assert found.environ["UV_INSECURE_HOST"] == "a"
    assert pip_config.load({**environ, "UV_INDEX": "https://x"}) == pip_config.SiteIndexes()
