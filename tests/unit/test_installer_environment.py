"""What installers, and the code of packages that they build, see of the daemon's environment."""

from __future__ import annotations

import os
from pathlib import Path

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.envs.installers import InstallerRunner, image_environment, installer_environment
from hpc_agent.git_credentials import GitCredential, environment
from hpc_agent.redact import Secret

SECRETS = {
    **dict.fromkeys(("CLEARML_AGENT_GIT_PASS", "CLEARML_API_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "GH_PAT"), "SECRET"),
    **dict.fromkeys(("MY_API_TOKEN", "OPENAI_KEY", "DATABASE_URL", "SSHPASS", "JWT", "UV_PUBLISH_TOKEN"), "SECRET"),
    **dict.fromkeys(("PGPASSWORD", "GIT_ASKPASS", "GIT_CONFIG_VALUE_0", "TRAINS_X"), "SECRET"),
}
ELSEWHERE = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "UV_PROJECT",
)


def test_nothing_secret_and_nothing_that_leads_elsewhere_is_handed_on() -> None:
    given = installer_environment({**SECRETS, **dict.fromkeys(ELSEWHERE, "/x"), "PATH": "/bin"})
    assert given == {"PATH": "/bin"}


def test_what_building_and_fetching_need_is_handed_on() -> None:
    needed = {
        *(
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TMPDIR",
            "SSL_CERT_FILE",
            "UV_INDEX_URL",
            "SSH_AUTH_SOCK",
        ),
        *(
            "CC",
            "CFLAGS",
            "CUDA_HOME",
            "LD_LIBRARY_PATH",
            "GIT_SSH_COMMAND",
            "XDG_CACHE_HOME",
            "EBROOTGCC",
            "CMAKE_PREFIX_PATH",
        ),
    }
    assert set(installer_environment(dict.fromkeys([*needed, "PIP_INDEX_URL"], "x"))) == needed
    assert installer_environment({"PIP_INDEX_URL": "x", "PIP_TARGET": "x"}, pip=True) == {"PIP_INDEX_URL": "x"}


def test_proxies_have_lower_case_names_that_uv_does_not_expand() -> None:
    given = installer_environment({"HTTPS_PROXY": "http://me:SECRET@proxy", "NO_PROXY": "localhost"})
    assert given == {"https_proxy": "http://me:SECRET@proxy", "no_proxy": "localhost"}
    assert image_environment(given) == given


def test_git_credentials_have_such_names_too() -> None:
    variables = environment([GitCredential("https://host", "me", Secret("SECRET"))], (), {})
    holders = [name for name, value in variables.items() if "SECRET" in value]
    assert holders and all(name.islower() for name in holders)


def test_settings_of_git_in_variables_stay() -> None:
    inherited = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": "p"}
    variables = environment([], (("a.b", "c"),), inherited)
    assert variables["GIT_CONFIG_COUNT"] == "2"
    assert (variables["GIT_CONFIG_KEY_1"], variables["GIT_CONFIG_VALUE_1"]) == ("http.proxy", "p")
    assert environment([], (), {"GIT_CONFIG_COUNT": "many"})["GIT_CONFIG_COUNT"] == "0"


def test_virtualenv_waits_for_a_python_that_starts_slowly(tmp_path: Path) -> None:
    runner = InstallerRunner(PackageSettings(), tmp_path, {"PATH": os.environ["PATH"]})
    assert "PY_DISCOVERY_TIMEOUT=300" in runner.run(["env"], cwd=tmp_path).stdout.splitlines()
