"""Preview of a task's job script, as the daemon would submit it now. Nothing is written and nothing is submitted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.glue_jobs import glue_facts, own_resources
from hpc_agent.daemon.job_launch import JobLaunchConfig, JobPlace
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.daemon.options import gpu_range
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError
from hpc_agent.inspection.resource_origins import ResourceOrigin, resource_origins
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.submission.render import Renderer

_SHARED_CONFIG = re.compile(r"job\.[0-9a-f]{12}\.conf")


class ScriptPreview(msgspec.Struct, frozen=True):
    script: str
    origins: tuple[ResourceOrigin, ...]
    directory: RunDirectory
    """Of the attempt; it may not exist yet."""
    queue_name: str


class ScriptPreviewer:
    """``own``: the settings as configured; ``settings``: as the daemon's flags change them."""

    def __init__(
        self,
        client: Client,
        own: AllSettings,
        settings: AllSettings,
        launch: JobLaunchConfig,
        renderer: Renderer,
        clock: Clock,
    ) -> None:
        self._client = client
        self._own = own
        self._settings = settings
        self._launch = launch
        self._renderer = renderer
        self._clock = clock

    def preview(self, task: Task, attempt: Attempt, chosen: Queue) -> ScriptPreview:
        """
        Raises:
            ResourceError: the task asks for what its queue does not allow.
            TemplateError: the template is missing, broken, or cannot hold what the task brings.
        """
        hpc, queue_name = self._settings.hpc, chosen.name
        queue = hpc.queue(queue_name)
        is_glue = self._renderer.is_glue_template(queue.template)
        runs = RunsFolder(hpc.runs)
        policy = queue.policy(queue_name, hpc.resources)
        resources = own_resources(queue, policy, task) if is_glue else policy.resources(task.properties)
        gpus = gpu_range(self._launch.options, queue_name, resources.gpus, task.properties).least
        avoided = BadNodes(runs.nodes, self._clock).avoided()
        exclude = ",".join([*filter(None, [resources.exclude]), *avoided])
        resources = msgspec.structs.replace(resources, gpus=gpus, exclude=exclude)
        place = JobPlace(queue_name, runs.of(attempt))
        staged = self._launch.options.standalone or hpc.envs.build_on in ("login", "job")
        context = self._launch.context(task, attempt, queue, resources, place, staged=staged)
        if is_glue:
            context = replace(
                context, facts=glue_facts(self._client, task, chosen, self._settings, self._launch.naming)
            )
        # The requests of a template in the glue's form are in its own text.
        origins = (
            ()
            if is_glue
            else resource_origins(
                resources,
                task.properties,
                self._own.hpc.queue(queue_name),
                self._own.hpc.resources,
                queue_name,
                changed=self._changed(queue_name),
                avoided=bool(avoided),
            )
        )
        return ScriptPreview(
            self._renderer.render(queue.template, context), tuple(origins), place.directory, queue_name
        )

    def _changed(self, queue: str) -> frozenset[str]:
        """What the daemon's flags set: they know GPUs, and take a limit of the site away."""
        own, used = self._own.hpc, self._settings.hpc
        names = set()
        if own.queue(queue).resources.num_gpus != used.queue(queue).resources.num_gpus:
            names.add("num_gpus")
        if own.resources.time_limit != used.resources.time_limit and used.queue(queue).resources.time_limit is None:
            names.add("time_limit")
        return frozenset(names)


def difference(preview: ScriptPreview) -> Iterator[str]:
    """Lines of a unified diff from the script that was submitted to the one that would be submitted now.

    The name of a configuration that jobs share comes from its content, and is not compared.

    Raises:
        InputError: none was submitted for this attempt, or its script cannot be read.
    """
    file = preview.directory.script
    try:
        before = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"no job of this task was submitted from here: there is no {file}") from None
    except OSError as error:
        raise InputError(f"the script that was submitted cannot be read: {file}: {error.strerror}") from error
    shared = _SHARED_CONFIG.search(before)
    now = _SHARED_CONFIG.sub(shared[0], preview.script) if shared else preview.script
    yield from difflib.unified_diff(
        before.splitlines(), now.splitlines(), f"submitted: {file}", "as it would be submitted now", lineterm=""
    )
