"""What the environment of scheduler commands, and so of jobs, is freed of."""

from __future__ import annotations

import pytest

from hpc_agent.redact import is_secret
from hpc_agent.schedulers import gpus
from hpc_agent.schedulers.environment import for_queries, scrubbed

SECRET = (
    "CLEARML_API_SECRET_KEY CLEARML_API_ACCESS_KEY CLEARML_AUTH_TOKEN CLEARML_AGENT_GIT_PASS HF_TOKEN GITHUB_PAT "
    "WANDB_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_STORAGE_KEY DB_PASSWORD PGPASSWORD "
    "AZURE_STORAGE_CONNECTION_STRING GIT_PASSWORD MY_CREDENTIALS SMTP_PASS github_token "
    "OPENAI_APIKEY NPM_AUTHTOKEN"
)
HARMLESS = (
    "PATH HOME LANG TOKENIZERS_PARALLELISM AWS_DEFAULT_REGION AWS_PROFILE GOOGLE_APPLICATION_CREDENTIALS KEYBOARD "
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
def test_what_is_no_credential_stays(name: str) -> None:
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
    assert gpus.names(None, {"CUDA_VISIBLE_DEVICES": "2, 5"}) == ("2", "5")
    assert gpus.names(1, {"CUDA_VISIBLE_DEVICES": "2,5"}) == ("2",)
    assert gpus.names(None, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert gpus.names(3, {}) == ("0", "1", "2")
    assert gpus.names(0, {}) == ()
    assert all(name.isdigit() for name in gpus.names(None, {}))


@pytest.mark.parametrize(
    "name",
    [
        "CLEARML_API_HOST",
        "TRAINS_API_HOST",
        "CLEARML_WORKER_ID",
        "CLEARML_AGENT__HPC__MAX_JOBS",
        "CLEARML_DOCKER_IMAGE",
    ],
)
def test_settings_travel_in_the_jobs_configuration_only(name: str) -> None:
    """There flags have had their say; a variable would beat them in the job."""
    assert scrubbed({name: "x"}) == {}
