"""Every variable that ClearML's agent reads: whether we do, and why not. docs/environment-variables.md is made of it,
and ``hpc-agent config`` names those that are set for nothing."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.config.names import (
    AZURE,
    AZURE_KEY,
    CARRIED,
    ENVIRONMENT,
    FOREIGN,
    JOB_ENVIRONMENT,
    PREFIXES,
    SWITCHES,
)

BY_CODE: Mapping[str, str] = {
    "CLEARML_CONFIG_FILE": "The clearml.conf to read, and only that; a daemon's jobs get theirs by it.",
    "HPC_AGENT_SITE_CONFIG": "The site's file, in place of /etc/hpc-agent.conf; `/dev/null` for none.",
    "CLEARML_AGENT_PROPAGATE_EXITCODE": "Always so: `execute` ends with the task's exit code.",
    "CLEARML_AGENT_FORCE_SYSTEM_SITE_PACKAGES": "Always so where an image has a Python: tasks see its packages.",
    "CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV": "Always so: no value of `-e` is printed.",
    "CLEARML_NO_DEFAULT_SERVER": "Always so: without a server there is an error, never a public demo server.",
    "CLEARML_TASK_ID": "Set for the task's process: the SDK then takes part in the task instead of making one.",
    "CLEARML_LOG_LEVEL": "Set for the task's process, from `--log-level`.",
    "CLEARML_LOG_TASK_TO_BACKEND": "Set to 0 for the task's process: its console is ours to send.",
    "CLEARML_MULTI_NODE_SINGLE_TASK": "Runs a task on all nodes of its step; the ranks get 2 where unset.",
    "CLEARML_AGENT_SERVICE_TASK": "Set to 1 for tasks of `--services-mode`.",
    "CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON": "Set for a custom build script: the task, as JSON.",
    "CLEARML_CUSTOM_BUILD_OUTPUT": "Set for a custom build script: the file it writes its choice to.",
    "CLEARML_TASK_SCRIPT_ENTRY": "Set for a custom build script: the task's entry point.",
    "CLEARML_TASK_WORKING_DIR": "Set for a custom build script: the task's working folder.",
    "CLEARML_GIT_ROOT": "Set for a custom build script: where the repository is.",
    "CLEARML_VENV_PATH": "Set for a custom build script: a folder of this run for an environment of its own.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that a daemon without Slurm hands out, unless `--gpus` says so; set for tasks.",
    "NVIDIA_VISIBLE_DEVICES": "As CUDA_VISIBLE_DEVICES, where that is not set.",
    "CLEARML_AGENT__<section>__<key>": "Sets any key of clearml.conf: `CLEARML_AGENT__hpc__max_jobs=5`.",
}
"""Read, or set for other programs, by the code itself; ``names`` has the variables that set a key."""

_CUDA = "Package indexes decide, not a version: name that of your CUDA in `agent.package_manager.extra_index_url`."
_CACHE = "The cache has another layout: `hpc.root`, `hpc.cache_dir` and `hpc.scratch_dir` say where things lie."
_GLUE = "Belongs to the Kubernetes glue."
_BOOTSTRAP = "There is no bootstrap: `uv` comes with the package."
_VERBOSE = "`hpc-agent --debug` logs every step."
_GIT = "Give the token as `CLEARML_AGENT_GIT_PASS`, which git's own way of asking gets."

NOT_HONOURED: Mapping[str, str] = {
    "CLEARML_CONFIG_PATH": "One file is enough: it may `include` others.",
    "CLEARML_CUDA_VERSION": _CUDA,
    "CLEARML_CUDNN_VERSION": _CUDA,
    "CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE": _CUDA,
    "CLEARML_AGENT_EXEC_USER": "Jobs run as who submits them; Slurm owns that question.",
    "CLEARML_AGENT_K8S_HOST_MOUNT": _GLUE,
    "CLEARML_AGENT_DOCKER_HOST_MOUNT": "The agent runs outside of containers: paths are the machine's own.",
    "CLEARML_K8S_GLUE_KIND": _GLUE,
    "CLEARML_K8S_GLUE_START_AGENT_SCRIPT_PATH": _GLUE,
    "CLEARML_AGENT_VENV_CACHE_PATH": _CACHE,
    "CLEARML_AGENT_TEMP_STDOUT_FILE_DIR": "The console goes to the run directory, `hpc.runs_dir`, and is kept.",
    "CLEARML_AGENT_DISABLE_SSH_MOUNT": "Nothing of ssh is in containers: the code is fetched outside.",
    "CLEARML_APT_INSTALL": "Nothing is installed in containers but what the task's own setup script installs.",
    "CLEARML_AGENT_DOCKER_AGENT_REPO": "No agent is installed in containers: it stays outside.",
    "CLEARML_AGENT_CHILD_AGENTS_COUNT_CMD": "The scheduler counts the running tasks of `--services-mode`.",
    "CLEARML_AGENT_SERVICES_DOCKER_RESTART": "Slurm requeues jobs; a container alone is not started again.",
    "CLEARML_AGENT_STANDALONE_CONFIG_BC": "Concerns the reference's own pip pins.",
    "CLEARML_AGENT_GIT_CLONE_VERBOSE": _VERBOSE,
    "CLEARML_AGENT_DEBUG_INFO": _VERBOSE,
    "CLEARML_AGENT_DEBUG_GET_NEXT_TASK": _VERBOSE,
    "CLEARML_AGENT_CONFIG_VERBOSE": "`hpc-agent config` shows what was read from where.",
    "CLEARML_API_VERBOSE": _VERBOSE,
    "CLEARML_AGENT_URLLIB3_CONNECT_LEVEL": _VERBOSE,
    "CLEARML_AGENT_GPU_FRACTIONS": "A feature of the paid edition; Slurm shares GPUs by MIG or shards.",
    "CLEARML_AGENT_CRASH_ON_EXCEPTION": "A pass that fails is logged, and the next begins from what is true then.",
    "CLEARML_AGENT_STATUS_REPORT_FREQ_SEC": "Every 30 s, as by default; usage is sampled as often.",
    "CLEARML_AGENT_ABORT_CALLBACK_CMD": "An abort is SIGTERM, SIGINT where the SDK keeps SIGTERM from a program, and "
    "SIGKILL after `hpc.term_grace` seconds.",
    "CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT": "See CLEARML_AGENT_ABORT_CALLBACK_CMD.",
    "CLEARML_BOOTSTRAP_UV_EXEC": _BOOTSTRAP,
    "CLEARML_BOOTSTRAP_CACHE_DIR": _BOOTSTRAP,
    "CLEARML_BOOTSTRAP_DIR": _BOOTSTRAP,
    "CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME": "See `agent.translate_ssh` and `agent.force_git_ssh_protocol`.",
    "CLEARML_AGENT_GIT_USE_AZURE_PAT": _GIT,
    "CLEARML_AGENT_GIT_USE_MS_ENTRA_TOKEN": _GIT,
    "CLEARML_AGENT_FORCE_HOST_MACHINE_IP": "The server sees where a worker calls from.",
    "CLEARML_AGENT_DISABLE_VAULT_SUPPORT": "Vaults are a feature of the paid edition, and not asked for.",
    "CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE": "Every kind of call has a budget of its own for being tried again.",
    "CLEARML_API_DEFAULT_REQ_METHOD": "Calls are POST, which every server takes.",
    "CLEARML_AGENT_FORCE_MAX_API_VERSION": "One API version is asked for that all servers in use know.",
    "CLEARML_AGENT_USE_POWERSHELL": "Linux only.",
    "CLEARML_AGENT_ALG_ENV": "Old names with TRAINS_ are read as well as the new ones.",
    "CLEARML_CONDA_ENV_PACKAGE": "Environments of conda are built from lists (`agent.package_manager.type` = conda).",
    "CLEARML_USE_CONDA_BASE_ENV": "`CLEARML_AGENT_SKIP_PIP_VENV_INSTALL` takes any interpreter, conda's too.",
    "RANK": "One job is one task; who starts several processes in it gives each its rank.",
    "SLURM_PROCID": "As RANK: with `--require-queue` one process of a step runs the task, the others leave with 0.",
}


def honoured() -> dict[str, str]:
    """Variable → what it does, in the order of the page."""
    found = {f"CLEARML_{suffix}": f"Sets `{key}`." for suffix, key in ENVIRONMENT.items()}
    found |= {f"CLEARML_{suffix}": f"If true, sets `{key}` to `{value}`." for suffix, (key, value) in SWITCHES.items()}
    found |= {
        variable: f"Sets `{key}`, which reaches jobs in their configuration." for variable, key in FOREIGN.items()
    }
    carried = f"With a password in it, reaches jobs by `{JOB_ENVIRONMENT}` in their file, not by the scheduler."
    found |= dict.fromkeys(CARRIED, carried)
    found |= dict.fromkeys(AZURE, f"The two together make an entry of `{AZURE_KEY}`.")
    return {**found, **BY_CODE}


def why_not(variable: str) -> str:
    """Why a variable that is set does nothing; empty for one that has an effect, or is not known here."""
    for prefix in PREFIXES:
        if variable.startswith(prefix):
            variable = f"CLEARML_{variable.removeprefix(prefix)}"
    return NOT_HONOURED.get(variable, "") if variable.startswith("CLEARML_") else ""
