"""``hpc-agent config``: everything that holds and who said so, and no secret whatever it is called."""

from __future__ import annotations

import json
import typing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import Meta

from hpc_agent.cli.main import group
from hpc_agent.config import secret_keys
from hpc_agent.config.names import conf_path
from hpc_agent.config.parse import build_group
from hpc_agent.config.settings import AllSettings
from hpc_agent.config.shown_config import masked
from hpc_agent.config.types import SettingsGroup
from hpc_agent.errors import ConfigError
from hpc_agent.redact import HIDDEN, Secret, is_secret

CONF = """
api { api_server: "http://api.lab:8008", credentials { access_key: "AK", secret_key: "hidden-1" } }
agent {
    git_user: ann, git_pass: hidden-2
    extra_docker_arguments: ["-e", "HF=hidden-3", "--env=WANDB=hidden-4", "-v", "/a:/b"]
    default_docker.arguments: "-e KEY=hidden-5 --ipc=host --env OTHER='hidden-6 hidden'"
    package_manager.extra_index_url: ["https://ann:hidden-7@index.lab/simple"]
}
sdk.aws.s3 { key: AKIA, secret: hidden-8, credentials: [{bucket: b, key: K, secret: hidden-9}] }
sdk.azure.storage.containers: [{account_name: n, account_key: hidden-10}]
hpc.slurm.sbatch_args: ["--export=PATH,OPENAI_APIKEY=hidden-13"]
agent.extra_docker_shell_script: ["export HF_TOKEN='hidden-14 hidden' A=b", "export A=b"]
agent.force_git_ssh_user: git
sdk.some_password: 1415926
environment { ANYTHING: hidden-11 }
files { mine { contents: hidden-12, path: "~/x" } }
hpc.max_jobs: 7
"""


@pytest.fixture
def show(tmp_path: Path) -> Any:
    conf = tmp_path / "clearml.conf"
    conf.write_text(CONF)

    def run(*flags: str, **env: str) -> str:
        unset = {"CLEARML_CONFIG_FILE": str(conf), "HOME": str(tmp_path), **env}
        done = CliRunner().invoke(group, ["config", *flags], env=unset)
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_no_secret_is_shown_however_deep_it_lies(show: Any) -> None:
    for output in (show(), show("--json"), show("--defaults")):
        assert "hidden" not in output and "1415926" not in output
    shown = json.loads(show("--json"))
    assert shown["sdk.aws.s3.credentials"]["value"] == [{"bucket": "b", "key": "K", "secret": "********"}]
    assert shown["agent.extra_docker_arguments"]["value"] == [
        *("-e", "HF=********", "--env=WANDB=********", "-v", "/a:/b")
    ]
    assert shown["agent.default_docker.arguments"]["value"] == "-e KEY=******** --ipc=host --env OTHER=********"
    assert shown["agent.extra_docker_shell_script"]["value"] == ["export HF_TOKEN=******** A=b", "export A=b"]
    assert shown["hpc.slurm.sbatch_args"]["value"] == ["--export=PATH,OPENAI_APIKEY=********"]
    assert shown["agent.package_manager.extra_index_url"]["value"] == ["https://index.lab/simple"]


def test_each_value_names_its_origin(show: Any, tmp_path: Path) -> None:
    shown = json.loads(show("--json", CLEARML_WORKER_NAME="box", CLEARML_AGENT__hpc__max_jobs="8"))
    conf = str(tmp_path / "clearml.conf")
    assert shown["agent.git_user"] == {"value": "ann", "origin": conf}
    assert shown["agent.worker_name"] == {"value": "box", "origin": "the variable CLEARML_WORKER_NAME"}
    assert shown["hpc.max_jobs"] == {"value": 8, "origin": "the variable CLEARML_AGENT__hpc__max_jobs"}
    assert f'agent.git_user = "ann"  # {conf}' in show()


def test_defaults_on_request(show: Any) -> None:
    assert "hpc.poll_interval" not in show()
    shown = json.loads(show("--json", "--defaults"))
    assert shown["hpc.poll_interval"] == {"value": 5, "origin": "default"}
    assert shown["hpc.max_jobs"]["value"] == 7
    # What follows from another value is shown as it is.
    assert shown["api.web_server"] == {"value": "http://app.lab:8008", "origin": "default"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("a.token_expiration_sec", 5, 5),
        ("a.secret", "", ""),
        ("a.password", "x", "********"),
        ("a.api_key", "x", "********"),
        ("a.private_key", "x", "********"),
        ("a.access_key", "x", "x"),
        ("a.bypass", "x", "x"),
        ("a.auth_token", "x", "********"),
        ("a.arguments", "--env-file=x -v /e:/f", "--env-file=x -v /e:/f"),
    ],
)
def test_what_is_masked_and_what_is_not(key: str, value: Any, expected: Any) -> None:
    assert masked(key, value) == expected


class Door(SettingsGroup, frozen=True, kw_only=True):
    """Secrets whose names do not say so."""

    phrase: Annotated[Secret, Meta(description="Opens it.")] = Secret("")
    spare: Annotated[tuple[Secret, ...] | None, Meta(description="Open it too.")] = None
    color: str = ""


class House(SettingsGroup, frozen=True, kw_only=True):
    front: Door = Door()
    doors: dict[str, Door] = msgspec.field(default_factory=dict)
    arguments: dict[str, Secret] | None = None


DOORS = ("phrase", "spare")
HOUSE = {*(f"front.{name}" for name in DOORS), *(f"doors.<name>.{name}" for name in DOORS), "arguments"}


def test_secret_settings_are_found_by_their_type_at_any_depth() -> None:
    assert not any(map(is_secret, DOORS))
    assert set(secret_keys.secret_keys(House, str)) == HOUSE


def test_every_secret_setting_is_masked() -> None:
    keys = {
        key
        for group, kind in typing.get_type_hints(AllSettings).items()
        for key in secret_keys.secret_keys(kind, partial(conf_path, group))
    }
    assert keys >= {"api.credentials.secret_key", "api.auth_token", "agent.git_pass"}
    for key in keys:
        for value in ("hidden", 1415, ["hidden"], {"a": "hidden"}, True):
            assert masked(key.replace("<name>", "a.b"), value) == HIDDEN, key


@pytest.mark.parametrize("key", ["front.phrase", "front.spare", "doors.a.phrase", "doors.a.b.spare", "arguments.x"])
def test_a_secret_is_masked_whatever_its_name(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(secret_keys, "AllSettings", msgspec.defstruct("All", [("house", House)]))
    secret_keys.secret_settings.cache_clear()
    try:
        assert masked(f"house.{key}", ["hidden"]) == HIDDEN
        assert masked("house", {"front": {"phrase": "hidden", "color": "red"}}) == {
            "front": {"phrase": HIDDEN, "color": "red"}
        }
    finally:
        secret_keys.secret_settings.cache_clear()


@pytest.mark.parametrize(
    "values",
    [
        {"front": {"phrase": 1415.5}},
        {"front": {"phrase": True}},
        {"front": {"spare": "hidden"}},
        {"doors": {"a": {"spare": "hidden"}}},
        {"arguments": "hidden"},
    ],
)
def test_an_error_does_not_show_a_secret_whatever_its_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        build_group(House, values, str, {})
    assert HIDDEN in str(raised.value)
    assert not any(word in str(raised.value) for word in ("hidden", "1415", "True"))
