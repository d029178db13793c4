"""clearml.conf, the environment and flags become settings; wrong input is named."""

from __future__ import annotations

import json
import stat
import typing
from pathlib import Path

import msgspec
import pytest

from hpc_agent.config.job_config import share_job_config, write_job_config
from hpc_agent.config.load import Configuration, load
from hpc_agent.config.names import RENAMED, conf_path
from hpc_agent.config.settings import AllSettings
from hpc_agent.config.types import SettingsGroup
from hpc_agent.errors import ConfigError
from hpc_agent.schedulers.registry import BACKENDS

CONF = """
api {
    # as clearml-init writes it
    web_server: http://localhost:8080
    api_server: "http://localhost:8008"
    credentials { "access_key" = "KEY", "secret_key" = "SECRET" }
}
agent.git_user = alice
sdk { storage { cache.default_base_dir = "~/.clearml/cache" } }
hpc {
    resources { partition: main, time_limit: "02:00:00" }
    queues {
        gpu { resources { num_gpus: 1 }, overrides { num_gpus { max: 4 }, time_limit { max: "1-00:00:00" } } }
    }
}
"""


def read(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> Configuration:
    file = tmp_path / "clearml.conf"
    file.write_text(text)
    return load(file, environ or {}, flags)


def test_a_clearml_conf_is_read_as_it_is(tmp_path: Path) -> None:
    settings = read(tmp_path, CONF).settings
    assert settings.api.access_key == "KEY"
    assert settings.api.secret_key.reveal() == "SECRET"
    assert settings.api.files_server == "http://localhost:8081"
    assert settings.git.user == "alice"


def test_the_queue_lies_over_the_site(tmp_path: Path) -> None:
    hpc = read(tmp_path, CONF).settings.hpc
    resources = hpc.queue("gpu").policy("gpu", hpc.resources).resources({"num_gpus": "3", "unrelated": "x"})
    assert (resources.gpus, resources.partition, resources.time_minutes) == (3, "main", 120)
    assert hpc.queue("another").policy("another", hpc.resources).resources({}).gpus == 0


def test_environment_beats_file_and_flags_beat_both(tmp_path: Path) -> None:
    environ = {
        "CLEARML_API_HOST": "http://other:8008",
        "TRAINS_AGENT_GIT_USER": "bob",
        "CLEARML_AGENT__hpc__max_jobs": "7",
        "CLEARML_API_ACCESS_KEY": "",
    }
    configuration = read(tmp_path, CONF, environ)
    assert configuration.settings.api.api_server == "http://other:8008"
    assert configuration.settings.api.access_key == "KEY"
    assert configuration.settings.git.user == "bob"
    assert configuration.settings.hpc.max_jobs == 7
    assert configuration.origins["hpc.max_jobs"] == "the variable CLEARML_AGENT__hpc__max_jobs"
    flagged = load(tmp_path / "clearml.conf", environ, {"agent.git_user": "carol"})
    assert flagged.settings.git.user == "carol"


def test_the_named_file_is_the_only_one(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text("agent.git_user = dave")
    assert load(None, {"CLEARML_CONFIG_FILE": str(file)}).files == (file,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hpc.max_jobs = many", ["hpc.max_jobs", "'many'", "expected a whole number"]),
        ("hpc.max_jobs = 0", ["hpc.max_jobs", ">= 1"]),
        ("hpc.slurm.gpu_flag = gpu", ["hpc.slurm.gpu_flag", "'gpu'"]),
        ("hpc.pol_interval = 3", ["unknown key hpc.pol_interval", 'did you mean "poll_interval"?']),
        ("hpc.queues.gpu.resources.num_gpu = 3", ["hpc.queues.gpu.resources.num_gpu", '"num_gpus"']),
        ("hpc.queues.gpu.resources.time_limit = soon", ["hpc.queues.gpu.resources", "soon"]),
        ("hpc.queues = 3", ["hpc.queues", "3", "expected"]),
        ("hpc = 3", ["hpc", "expected a section"]),
        # An error about an address names its origin, which may be the environment.
        ("api { api_server: localhost:8008 }", ["api.api_server", "expected a URL"]),
        ("api { api_server ", ["not valid HOCON"]),
        ("api { credentials { secret_key: [1] } }", ["api.credentials.secret_key", "********"]),
    ],
)
def test_wrong_input_is_named_with_its_file(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    for word in words:
        assert word in message
    if "URL" not in message:
        assert str(tmp_path / "clearml.conf") in message


def test_a_missing_named_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.conf", {})


def site_file(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "site.conf"
    file.write_text(text)
    return {"HPC_AGENT_SITE_CONFIG": str(file)}


def test_the_users_file_lies_over_the_sites(tmp_path: Path) -> None:
    environ = site_file(tmp_path, "hpc { max_jobs: 20, resources { partition: gpu, account: lab } }")
    configuration = read(
        tmp_path, "hpc.resources.partition: main", {**environ, "CLEARML_AGENT__hpc__poll_interval": "9"}
    )
    hpc = configuration.settings.hpc
    assert (hpc.max_jobs, hpc.resources.partition, hpc.resources.account, hpc.poll_interval) == (20, "main", "lab", 9)
    assert configuration.origins["hpc.resources.account"] == str(tmp_path / "site.conf")
    assert configuration.origins["hpc.resources.partition"] == str(tmp_path / "clearml.conf")
    assert configuration.files == (tmp_path / "site.conf", tmp_path / "clearml.conf")


def test_the_sites_file_is_the_one_in_etc_unless_the_variable_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "etc.conf"
    usual.write_text("hpc.max_jobs: 3")
    monkeypatch.setattr("hpc_agent.config.load.SITE_FILE", usual)
    assert read(tmp_path, "").settings.hpc.max_jobs == 3
    assert read(tmp_path, "", {"HPC_AGENT_SITE_CONFIG": "/dev/null"}).settings.hpc.max_jobs == 100
    usual.unlink()
    assert read(tmp_path, "").settings.hpc.max_jobs == 100


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("{folder}/missing.conf", ["the site's configuration file", "does not exist", "HPC_AGENT_SITE_CONFIG"]),
        ("{folder}", ["is a folder"]),
        ("{folder}/wrong.conf", ["wrong.conf: unknown key hpc.max_job;"]),
    ],
)
def test_a_wrong_site_file_is_named(tmp_path: Path, named: str, words: list[str]) -> None:
    (tmp_path / "wrong.conf").write_text("hpc.max_job: 3")
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "", {"HPC_AGENT_SITE_CONFIG": named.format(folder=tmp_path)})
    assert [word for word in words if word not in str(error.value)] == []


def test_a_job_has_the_sites_values_as_its_daemon_read_them(tmp_path: Path) -> None:
    environ = site_file(tmp_path, "hpc { max_jobs: 20 }")
    target = tmp_path / "job.conf"
    write_job_config(read(tmp_path, "", environ), target)
    site_file(tmp_path, "hpc { max_jobs: 30, key_of_a_later_version: 1 }")
    configuration = load(target, environ)
    assert configuration.settings.hpc.max_jobs == 20
    assert configuration.files == (target,)


def test_the_job_file_is_private_complete_and_read_back(tmp_path: Path) -> None:
    configuration = read(tmp_path, CONF, {"CLEARML_API_SECRET_KEY": "FROM-ENV"})
    target = tmp_path / "job.conf"
    write_job_config(configuration, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert json.loads(target.read_text())["sdk"]["storage"]
    again = load(target, {}).settings
    assert again.api.secret_key.reveal() == "FROM-ENV"
    assert again.hpc.queue("gpu") == configuration.settings.hpc.queue("gpu")


def test_a_secret_does_not_print(tmp_path: Path) -> None:
    settings = read(tmp_path, CONF).settings
    assert "SECRET" not in repr(settings) + str(settings) + f"{settings.api.secret_key}"


def test_a_waiting_job_keeps_the_configuration_of_its_own_daemon(tmp_path: Path) -> None:
    first = share_job_config(read(tmp_path, CONF, {"CLEARML_AGENT_GIT_PASS": "A-PASS"}), tmp_path)
    second = share_job_config(read(tmp_path, CONF, {"CLEARML_AGENT_GIT_PASS": "B-PASS"}), tmp_path)
    again = share_job_config(read(tmp_path, CONF, {"CLEARML_AGENT_GIT_PASS": "A-PASS"}), tmp_path)
    assert first == again != second
    assert load(first, {}).settings.git.password.reveal() == "A-PASS"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_old_name_of_a_setting_is_read_with_a_note(tmp_path: Path) -> None:
    configuration = read(tmp_path, "hpc.slurm.lost_after: 30")
    assert configuration.settings.hpc.lost_after == 30
    assert configuration.origins["hpc.lost_after"].endswith("clearml.conf")
    [note] = configuration.notes
    assert note == f"hpc.slurm.lost_after is now hpc.lost_after: rename it in {tmp_path}/clearml.conf"


def test_new_name_of_a_setting_beats_the_old_one(tmp_path: Path) -> None:
    configuration = read(tmp_path, "hpc { lost_after: 40, slurm.lost_after: 30 }")
    assert configuration.settings.hpc.lost_after == 40
    later = read(tmp_path, "hpc.lost_after: 40", {"CLEARML_AGENT__hpc__slurm__lost_after": "5"})
    assert later.settings.hpc.lost_after == 5


def test_section_of_a_backend_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'hpc\.gridengine\.gpu_resorce; did you mean "gpu_resource"\?'):
        read(tmp_path, "hpc.gridengine.gpu_resorce: gpus")
    names = ", ".join(("auto", *BACKENDS))
    with pytest.raises(ConfigError, match=rf"hpc\.scheduler is 'pbs-x', expected one of: {names}"):
        read(tmp_path, "hpc.scheduler: pbs-x")


def test_every_key_is_in_a_section_of_clearml_conf() -> None:
    """A field that ``config.names`` does not place would be read from a section that ClearML does not have."""
    keys = [conf_path(group, name) for group, kind in groups() for name in kind.__struct_fields__]
    assert len(keys) > 70 and len(set(keys)) == len(keys)
    assert [key for key in keys if not key.startswith(("api.", "agent.", "hpc."))] == []


def test_old_key_of_a_setting_leads_to_one_that_is_read() -> None:
    keys = {conf_path(group, name) for group, kind in groups() for name in kind.__struct_fields__}
    assert [key for key in RENAMED if key in keys] == []
    assert [key for key in RENAMED.values() if not any(key == at or key.startswith(f"{at}.") for at in keys)] == []


def groups() -> list[tuple[str, type[SettingsGroup]]]:
    return list(typing.get_type_hints(AllSettings).items())


SWITCHES = [
    (group, field.name, field.default)
    for group, kind in groups()
    for field in msgspec.structs.fields(kind)
    if isinstance(field.default, bool)
]


@pytest.mark.parametrize(("group", "name", "default"), SWITCHES)
def test_value_of_every_group_comes_from_its_key(tmp_path: Path, group: str, name: str, default: bool) -> None:
    settings = read(tmp_path, f"{conf_path(group, name)} = {str(not default).lower()}").settings
    assert getattr(getattr(settings, group), name) is not default


def test_every_group_has_a_switch_to_test_it_by_or_is_tested_here() -> None:
    assert {group for group, _, _ in SWITCHES} | {"hpc"} == {group for group, _ in groups()}
