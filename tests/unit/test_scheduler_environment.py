"""What the environment of scheduler commands, and so of jobs, is freed of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.config.job_config import share_job_config
from hpc_agent.config.load import load
from hpc_agent.config.shown_config import rows
from hpc_agent.redact import HIDDEN, is_secret
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.local import gpu_inventory
from hpc_agent.schedulers.slurm.commands import for_queries

SECRET = (
    "CLEARML_API_SECRET_KEY CLEARML_API_ACCESS_KEY CLEARML_AUTH_TOKEN CLEARML_AGENT_GIT_PASS HF_TOKEN GITHUB_PAT "
    "WANDB_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_STORAGE_KEY DB_PASSWORD PGPASSWORD "
    "AZURE_STORAGE_CONNECTION_STRING GIT_PASSWORD MY_CREDENTIALS SMTP_PASS github_token "
    "OPENAI_APIKEY NPM_AUTHTOKEN SENTRY_DSN SLACK_WEBHOOK SLACK_WEBHOOK_URL SSHPASS MYSQL_PWD NPM_AUTH AUTH_HEADER "
    "AZURE_SAS JWT COOKIE SESSION_COOKIES VAULT_TOKEN_ID OAUTH_CLIENT DOCKER_AUTH_CONFIG DBPASS API_TOKENS "
    "LDAP_BIND_PW DBPW NPM_CONFIG__AUTH HTTP_AUTHORIZATION AWS_CREDS DB_CONN_STR SSH_PRIVATE_KEY_B64"
)
HARMLESS = (
    "PATH HOME LANG TOKENIZERS_PARALLELISM AWS_DEFAULT_REGION AWS_PROFILE GOOGLE_APPLICATION_CREDENTIALS KEYBOARD "
    "PWD OLDPWD XAUTHORITY SSH_ASKPASS GIT_ASKPASS GIT_AUTHOR_NAME AUTHOR MAX_TOKENS MAX_TOKEN_LENGTH OS_AUTH_URL "
    "OS_AUTH_TYPE BYPASS SASROOT MONKEY MODULEPATH "
    "AWS_SHARED_CREDENTIALS_FILE SSH_AUTH_SOCK COMPASS_HOME CLEARML_CONFIG_FILE CLEARML_AGENT_EXTRA PASSENGER_ROOT"
)
OF_ANOTHER_JOB = (
    "SLURM_CPU_BIND SLURM_JOB_ID SLURM_CLUSTERS SLURM_TIME_FORMAT SLURM_CONFIG SBATCH_EXPORT SQUEUE_FORMAT "
    "SACCT_FORMAT SCANCEL_STATE SALLOC_QOS PMIX_RANK PMI_RANK XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS"
)


@pytest.mark.parametrize("name", SECRET.split())
def test_credentials_do_not_travel(name: str) -> None:
    assert is_secret(name)
    assert scrubbed({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", HARMLESS.split())
def test_what_is_not_a_credential_stays(name: str) -> None:
    assert scrubbed({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("name", OF_ANOTHER_JOB.split())
def test_variables_of_another_job_or_session_do_not_travel(name: str) -> None:
    assert scrubbed({name: "x", "SLURM_CONF": "/etc/slurm.conf"}) == {"SLURM_CONF": "/etc/slurm.conf"}


def test_queries_print_times_that_need_no_time_zone_and_jobs_do_not_see_that() -> None:
    environ = {"TZ": "Europe/Berlin", "SLURM_TIME_FORMAT": "relative"}
    assert for_queries(environ)["SLURM_TIME_FORMAT"] == "%s"
    assert for_queries(environ)["TZ"] == "UTC"
    assert scrubbed(environ) == {"TZ": "Europe/Berlin"}


def test_gpus_are_those_that_we_may_use() -> None:
    assert gpu_inventory.names(None, {"CUDA_VISIBLE_DEVICES": "2, 5"}) == ("2", "5")
    assert gpu_inventory.names(1, {"CUDA_VISIBLE_DEVICES": "2,5"}) == ("2",)
    assert gpu_inventory.names(None, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert gpu_inventory.names(3, {}) == ("0", "1", "2")
    assert gpu_inventory.names(0, {}) == ()
    assert all(name.isdigit() for name in gpu_inventory.names(None, {}))


@pytest.mark.parametrize(
    "name",
    [
        "CLEARML_API_HOST",
        "TRAINS_API_HOST",
        "CLEARML_WORKER_ID",
        "CLEARML_AGENT__HPC__MAX_JOBS",
        "CLEARML_DOCKER_IMAGE",
        "HPC_AGENT_SITE_CONFIG",
    ],
)
def test_settings_travel_in_the_jobs_configuration_only(name: str) -> None:
    """There flags have had their say; a variable would beat them in the job."""
    assert scrubbed({name: "x"}) == {}


@pytest.mark.parametrize(
    "value",
    [
        "http://user:hunter2@proxy:3128",
        "https://ghp_0123456789abcdef@github.com/lab/x",
        "https://token@pypi.lab/simple https://pypi.org/simple",
        "http://user:pa/ss@proxy",
        "http://user:p@ss@proxy/",
        "postgresql://lab:hunter2@db/x",
        "redis://:hunter2@cache:6379/0",
        "git+https://token@github.com/lab/x",
        "Server=db;User=lab;Pwd=hunter2;",
        "host=db password=hunter2",
        "-Djavax.net.ssl.keyStorePassword=hunter2 -Xmx1g",
        "hf_0123456789abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nx",
        '{"user": "lab", "password": "hunter2"}',
        '{"auths": {"registry.lab": {"auth": "aHVudGVyMg=="}}}',
        "Authorization: Basic aHVudGVyMg==",
        "'http.extraheader=Authorization: Bearer hunter2'",
        "Bearer hunter2",
        "machine git.lab login lab password hunter2",
        "lab:hunter2@smtp.lab:587",
        "https://b.blob.lab/x?se=1&sig=hunter2",
        "SharedAccessSignature=sv=1&sig=hunter2",
        "https://b.s3/x?X-Amz-Signature=hunter2",
        "https://hooks.slack.com/services/T0/B0/hunter2",
        "123456789:AAhunter2hunter2hunter2hunter2hunter2",
        "sk_live_hunter2hunter2",
        "AIzahunter2hunter2hunter2hunter2hunter2",
        "SG.hunter2hunter2.hunter2hunter2",
    ],
)
def test_a_value_that_is_a_credential_does_not_travel_whatever_its_name(value: str) -> None:
    assert scrubbed({"ANYTHING": value}) == {}


@pytest.mark.parametrize(
    "value",
    [
        "http://proxy:3128",
        "http://proxy:3128/",
        "ssh://git@host/x.git",
        "git@github.com:lab/x.git",
        "postgres://user@host/db",
        "https://host/package@1.0",
        "http://host:80/a@b",
        "/usr/bin:/bin",
        "localhost,127.0.0.1,.lab",
        "user@host",
        "*.tar=01;31:*.key=00;90:*.sig=00;90",
        "lab/image:1.0@sha256:0123abcd",
        "Basic training",
        "the token expires",
        "--tokenizer: fast",
    ],
)
def test_a_value_that_is_none_stays(value: str) -> None:
    assert scrubbed({"ANYTHING": value}) == {"ANYTHING": value}


def test_a_shell_function_stays_whatever_its_code_says() -> None:
    function = {"BASH_FUNC_module%%": "() {  token=$(next); echo password=x; }"}
    assert scrubbed(function) == function


def test_proxies_and_indexes_with_a_password_reach_the_job_in_its_file(tmp_path: Path) -> None:
    daemons = {
        "HTTPS_PROXY": "http://user:hunter2@proxy:3128",
        "http_proxy": "http://proxy:3128",
        "PIP_EXTRA_INDEX_URL": "https://token@pypi.lab/simple",
        "DATABASE_URL": "postgresql://lab:hunter2@db/x",
    }
    conf = tmp_path / "clearml.conf"
    conf.write_text("hpc.job_environment { HF_TOKEN: abc }")
    configuration = load(conf, daemons)
    shown = {row.key: row.value for row in rows(configuration)}
    assert shown["hpc.job_environment.HTTPS_PROXY"] == shown["hpc.job_environment.HF_TOKEN"] == HIDDEN
    path = share_job_config(configuration, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path, {}).settings.hpc.job_environment == {
        "HF_TOKEN": "abc",
        "HTTPS_PROXY": daemons["HTTPS_PROXY"],
        "PIP_EXTRA_INDEX_URL": daemons["PIP_EXTRA_INDEX_URL"],
    }
    assert scrubbed(daemons) == {"http_proxy": "http://proxy:3128"}


def test_execute_exports_what_is_meant_for_jobs_and_the_daemon_does_not(tmp_path: Path) -> None:
    conf = tmp_path / "job.conf"
    conf.write_text("hpc.job_environment { HTTPS_PROXY: 'http://user:hunter2@proxy' }".replace("'", '"'))
    program = (
        "import os, sys; from pathlib import Path; from hpc_agent.cli.shared_options import Shared; "
        "shared = Shared(Path(sys.argv[1]), False); shared.apply(shared.configuration(), in_job=sys.argv[2] == 'job'); "
        "print(os.environ.get('HTTPS_PROXY'))"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for where, seen in (("job", "http://user:hunter2@proxy"), ("daemon", "None")):
        argv = [sys.executable, "-c", program, str(conf), where]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == seen
