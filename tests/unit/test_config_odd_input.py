"""Odd content of clearml.conf and of variables: understood where its meaning is certain, else reported in one
sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.config.apply import apply_environment, apply_files
from hpc_agent.config.load import load
from hpc_agent.config.settings import AllSettings
from hpc_agent.errors import ConfigError


def read(folder: Path, text: str, **environ: str) -> AllSettings:
    file = folder / "clearml.conf"
    file.write_text(text, encoding="utf-8")
    return load(file, environ).settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('api.api_server: "http://[::1"', 'api.api_server is "http://[::1", expected a URL'),
        ('api.api_server: "http://h:port"', 'api.api_server is "http://h:port", expected a URL'),
        (
            "hpc.queues.gpu.overrides { num_gpuz {} }",
            'hpc.queues.gpu.overrides.num_gpuz; did you mean "num_gpus"?',
        ),
        ("hpc.queues.gpu.overrides.num_gpus { max: lots }", 'overrides.num_gpus.max is "lots", expected a number'),
        ("hpc.queues.gpu.overrides.time_limit { max: lots }", 'time_limit is "lots", expected minutes'),
        ("hpc.resources.memory_gb: -5", "hpc.resources.memory_gb is -5, expected a number > 0"),
        ("hpc.poll_interval: 0", "hpc.poll_interval is 0, expected a number >= 0.1"),
        ('hpc.root: ""', "hpc.root is '', expected the path of a folder"),
        ('hpc.resources.partition: "a b"', 'partition is "a b", expected a name without spaces'),
        ("api: 5", "api is 5, expected a section"),
        ("agent: [1, 2]", "agent is a list, expected a section"),
        ("agent.package_manager: pip", "agent.package_manager is 'pip', expected a section"),
        ("hpc: []", "hpc is a list, expected a section"),
        ("agent.git_user: 1.10", "agent.git_user is 1.1, expected text in quotes"),
        ("agent.git_pass: 1.10", "agent.git_pass is ********, expected text in quotes"),
        ("api.verify_certificate: /none/ca.pem", "the path of a CA bundle that exists"),
        ("[1, 2]", "holds a list, expected sections"),
        ('include "none.conf"', "none.conf, which does not exist"),
        ('include "clearml.conf"', "does it include itself?"),
    ],
)
def test_what_cannot_be_meant_is_reported_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "clearml.conf"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "False"])
def test_certificates_are_not_checked_where_the_user_says_so(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, f"api.verify_certificate: {word}").api.verify_certificate is False
    assert read(tmp_path, "", CLEARML_API_HOST_VERIFY_CERT=word).api.verify_certificate is False


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", '""'])
def test_certificates_are_checked_else(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, f"api.verify_certificate: {word}").api.verify_certificate is True


def test_a_ca_bundle_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_text("")
    assert read(tmp_path, 'api.verify_certificate: "~/ca.pem"').api.verify_certificate == str(tmp_path / "ca.pem")


def test_text_may_be_written_without_quotes(tmp_path: Path) -> None:
    text = """
    agent { git_user: 123, git_pass: 456, worker_tags: [1, b], enable_task_env: yes }
    hpc { runs_dir: "", queues.gpu.overrides.num_gpus { max: "8", choices: [1, 8] } }
    """
    settings = read(tmp_path, text)
    assert (settings.git.user, settings.git.password.reveal()) == ("123", "456")
    assert settings.agent.tags == ("1", "b") and settings.agent.enable_task_env
    assert settings.hpc.runs == settings.hpc.root / "runs"
    rule = settings.hpc.queue("gpu").policy("gpu", settings.hpc.resources).overrides["num_gpus"]
    assert (rule.maximum, rule.choices) == (8, ("1", "8"))


def test_paths_of_all_groups_begin_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = """
    agent.force_code_dir: "~/code"
    hpc { template_dirs: ["~/sbatch", "/site"], cache_dir: "~/cache", server.certfile: "~/c.pem" }
    """
    settings = read(tmp_path, text)
    assert settings.agent.force_code_dir == tmp_path / "code"
    assert settings.hpc.template_dirs == (tmp_path / "sbatch", Path("/site"))
    assert (settings.hpc.cache, settings.hpc.server.certfile) == (tmp_path / "cache", tmp_path / "c.pem")
    assert settings.hpc.root == tmp_path / ".clearml" / "hpc"
    with pytest.raises(ConfigError, match=r"~nobody-x/runs .* of a user that does not exist"):
        read(tmp_path, 'hpc.runs_dir: "~nobody-x/runs"')


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    for text in ("hpc.max_jobs: 3", '{"hpc": {"max_jobs": 3}}'):
        assert read(tmp_path, "\ufeff" + text).hpc.max_jobs == 3


def test_what_is_there_is_included(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.conf").write_text("hpc.max_jobs: 3")
    assert read(tmp_path, 'include "site.conf"').hpc.max_jobs == 3
    with pytest.raises(ConfigError):
        read(tmp_path, 'include "none.conf"')
    assert capfd.readouterr().err == ""


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path, {})


SECRET = "s3cretS3CRET"
BROKEN = [
    f'agent.git_pass: pa"{SECRET}#w0rd',
    f'api {{ credentials {{ secret_key: "{SECRET}\n}} }}',
    f'agent.git_pass = """{SECRET}',
    f'{{"agent": {{"git_pass": "{SECRET}"',
    f"agent.git_pass: {SECRET} [1]",
    f"agent.git_pass: [1] {SECRET}",
    f"agent.git_pass: {{x: 1}} {SECRET}",
    f"a: {SECRET}\na += {{b: 1}}\nc = ${{a}}{{}}",
    f"a: {SECRET}${{nothing}}",
    f'include required(file("{SECRET}"))',
    f'environment: "{SECRET}"',
    f'environment: ["{SECRET}"]',
    f'files: "{SECRET}"',
    f'files {{ x {{ path: "/x", mode: "{SECRET}" }} }}',
    f'files {{ x {{ path: "/x", contents: "{SECRET}ä", format: base64 }} }}',
    f'agent.git_pass: ["{SECRET}"]',
    f'api.credentials: "{SECRET}"',
    f'api.credentials.secret_key: {{a: "{SECRET}"}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_no_message_about_a_broken_configuration_shows_what_it_holds(text: str, tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        configuration = load(conf, {})
        apply_environment(configuration, {})
        apply_files(configuration, lambda _line: None)
    assert SECRET not in str(raised.value)


def test_a_broken_line_is_named_by_its_place(tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text('agent.git_user: me\nagent.git_pass: pa"ss#w0rd\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"clearml\.conf is not valid HOCON: line 2, column 19 .* double quotes"):
        load(conf, {})
