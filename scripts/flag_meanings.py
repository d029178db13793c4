"""Meaning of each flag here, in a sentence; docs/flags.md is made of it. A pair is: with Slurm, and without."""

from __future__ import annotations

Meaning = str | tuple[str, str]

_DOCKER = (
    "Tasks run in containers (`hpc.container.runtime`, docker or podman if none is named); IMAGE and its arguments are "
    "for tasks that name no image, without them `agent.default_docker` is."
)
_GIT_USER = (
    "User for HTTPS git remotes, as `agent.git_user`; git gets it by its own way of asking, never in an address."
)
_GIT_PASS = (
    "Password or token for HTTPS git remotes of the host `agent.git_host`, as `agent.git_pass`; a job reads it from a "
    "private file."
)

DAEMON: dict[str, Meaning] = {
    "--queue": "The queues, by name or id, the first with the highest priority; without it the server's default queue.",
    "--create-queue": "Makes a queue that is not there.",
    "--order-fairness": "A task of each queue in turn, not the first queue's before all others.",
    "--polling-interval": "Seconds between two looks at the queues, also fractions of one; the default is 5.",
    "--foreground": "The log goes to the terminal, not to `<hpc.root>/daemons/<worker>.log`.",
    "--detached": "The daemon goes into the background; the command returns when it serves, or says why it does not.",
    "--once": "One pass, which waits for its environment builds: for cron, scrontab and tests.",
    "--stop": "Stops the daemons with these worker ids; without any, the first by id of those on this machine that "
    "were started with the other flags given. Jobs go on. 1 if one was not found.",
    "--status": "Prints the daemons of this machine, their queues, when they serve them and what the server forces; 0.",
    "--services-mode": (
        "Long CPU jobs, N at once or any number: no GPUs, no time limit but the partition's own.",
        "Many tasks at once, N or any number, each a worker of its own on the server's list, without GPUs.",
    ),
    "--dynamic-gpus": (
        "`--queue two=2`: each job of the queue asks for so many GPUs; of a range `1-4` for the smaller number, and "
        "its tasks may ask for up to the larger one (`num_gpus`).",
        "`--queue two=2 any=1-4`: each task gets so many of the free GPUs, of a range as many as are free; a queue "
        "whose next task does not fit lets others by.",
    ),
    "--uptime": (
        "When jobs are submitted: `'17-20 TUE'`, hours and days as lists and ranges; what runs goes on.",
        "When tasks are started: `'17-20 TUE'`, hours and days as lists and ranges; what runs goes on.",
    ),
    "--downtime": "When none is; not together with `--uptime`. Queue tags `force_workers:on` and `:off` and the "
    "worker's runtime property `force` on the server decide before either.",
    "--child-report-tags": "Tags of the status reports of the workers that run the tasks.",
    "--use-owner-token": "Each task calls the server as its owner; refused at the start where the server gives an "
    "administrator no such tokens. The token reaches the job in a private file.",
    "--standalone-mode": (
        "The daemon stages nothing from the network: what a task needs and the shared cache lacks is refused by name. "
        "Jobs use no network in any case, unless they build for themselves (`hpc.envs.build_on`).",
        "The daemon stages nothing from the network: what a task needs and the cache lacks is refused by name.",
    ),
    "--template-files": (
        "Templates of the job scripts, the n-th for the n-th queue or one for all, in the form of ClearML's Slurm glue "
        "(`docs/slurm-glue.md`) or Jinja's.",
        "Refused: no job has a script.",
    ),
    "--singularity-mode": (
        "Tasks run in the container that the template's command before `${CLEARML_AGENT_EXECUTE}` starts.",
        "Without effect.",
    ),
    "--srun-delegation": ("Tasks run in the container that the template's function `srun` starts.", "Without effect."),
    "--force-current-version": "Always so: the agent stays outside of containers, in this version.",
    "--docker": (f"{_DOCKER} It goes into the job's `execute` command line.", _DOCKER),
    "--gpus": (
        "So many GPUs for each job as are named, Slurm says which; `all` leaves it to configuration and task.",
        "The GPUs that tasks share: 0 or 0,1 or 0-3 or all. A task gets all of them, its part where "
        "`hpc.local.max_jobs` lets several run, or what it asks for (`num_gpus`).",
    ),
    "--cpu-only": ("Jobs ask for no GPUs and see none.", "Tasks see no GPUs."),
    "-O": "Tasks run with optimized byte-code, twice without docstrings.",
    "--git-user": _GIT_USER,
    "--git-pass": _GIT_PASS,
    "--log-level": "The SDK's log level in tasks (`CLEARML_LOG_LEVEL`).",
    "--help": "Shows the help.",
}

EXECUTE: dict[str, Meaning] = {
    "--id": "The task, by id or by its exact name.",
    "--log-file": "The console is appended to this file too, which is kept.",
    "--disable-monitoring": "The console goes to standard output only; status and abort stay with the server.",
    "--full-monitoring": "Always so: the set-up, the task and the usage of the machine are all sent.",
    "--require-queue": "Runs the task only if it is queued and this process wins it. All others leave it alone with "
    "exit code 66, those in a daemon's jobs with 0.",
    "--standalone-mode": "No package index, no git remote, no registry: all comes from the shared cache, and what is "
    "missing is named.",
    "--clone": "Clones the task and runs the clone.",
    "--container-launch": "Runs the task in the container that the job's script starts; templates in the form of "
    "ClearML's Slurm glue write it.",
    "--docker": "The task runs in a container or not at all; IMAGE and its arguments are for a task that names none.",
    "-O": "Runs the task with optimized byte-code, twice without docstrings.",
    "--git-user": _GIT_USER,
    "--git-pass": "Password or token for HTTPS git remotes of the host `agent.git_host`, as `agent.git_pass`.",
    "--log-level": "The SDK's log level in the task (`CLEARML_LOG_LEVEL`).",
    "--gpus": "The GPUs that the task sees: 0 or 0,1 or 0-3 or all; else those that Slurm or the variables leave it.",
    "--cpu-only": "The task sees no GPUs.",
    "--help": "Shows the help.",
}

BUILD: dict[str, Meaning] = {
    "--id": "The task, by id or by its exact name; it is read and stays as it is.",
    "--target": "The folder to make, which can be moved and runs without the network; with `--docker` the image's "
    "name, or a file `x.sif` for Apptainer.",
    "--install-globally": "Packages go into the Python interpreter itself, which the environment sees; so in images.",
    "--docker": "Makes an image instead of a folder; IMAGE is for a task that names none.",
    "--force-docker": "Takes the image of `--docker` or of the configuration, whatever the task names.",
    "--python-version": "The Python of the environment, whatever the task asks for.",
    "--entry-point": "With `--docker`: what the image does when it starts, run the task (`reuse_task`, or `reuse`) or "
    "a clone of it (`clone_task`); else it starts a shell.",
    "-O": "What is built runs with optimized byte-code.",
    "--git-user": _GIT_USER,
    "--git-pass": "Password or token for HTTPS git remotes of the host `agent.git_host`, as `agent.git_pass`; not left "
    "in what is built.",
    "--log-level": "The SDK's log level in what is built.",
    "--gpus": "The GPUs that are seen while an image is built, and by what is built.",
    "--cpu-only": "None are.",
    "--help": "Shows the help.",
}

CONFIG: dict[str, Meaning] = {
    "--defaults": "Includes the defaults of all settings that this program reads.",
    "--json": "Prints one JSON object: key → value and origin.",
    "--help": "Shows the help.",
}

LIST: dict[str, Meaning] = {
    "--json": "Prints the server's own answer.",
    "--help": "Shows the help.",
}

MEANINGS: dict[str, dict[str, Meaning]] = {
    "daemon": DAEMON,
    "execute": EXECUTE,
    "build": BUILD,
    "config": CONFIG,
    "list": LIST,
}
