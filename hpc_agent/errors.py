"""Tree of errors; each message has what was tried, what came back and what to do.

HpcAgentError
├── ConfigError            a setting, flag or file is wrong: correct it and start again
├── InputError             what a user asked for cannot be done as asked
│   ├── UnknownTaskError   … because no task has that id or name
│   └── UnknownQueueError  … because no queue has that id or name
├── NotQueuedError         ``execute --require-queue`` ran nothing: the task is not, or no longer, queued
├── ApiError               the ClearML server answered with an error
│   ├── AuthError          … because of the credentials
│   └── NotFoundError      … because the object does not exist
├── ServerUnreachableError no usable answer came from the ClearML server: trying again may help
├── SchedulerUnavailableError  the scheduler gave no information (never a verdict on a job)
├── TemplateError          an sbatch template cannot be rendered
├── ResourceError          a task asks for what its queue does not allow
├── UserMapError           a task's user has no Linux user on this cluster
├── SourceError            the task's code cannot be brought to the node
├── EnvironmentBuildError  the task's Python environment cannot be built or found
│   └── NodesLostError     … because the agents of the task's nodes ended first
├── ContainerError         the task's container cannot be run as asked
│   └── ContainerUnavailableError  … for nothing on this machine runs containers
└── ProcessError           a program of ours could not be run
"""

from __future__ import annotations


class HpcAgentError(Exception):
    """Anything this package raises on purpose. ``str()`` of it is one sentence for the user at the terminal."""

    retryable = False
    """Whether the same call may succeed later without a change."""


class ConfigError(HpcAgentError):
    """A setting, flag or configuration file is wrong."""


class InputError(HpcAgentError):
    """Invalid input: what the command line asks for cannot be done."""


class UnknownTaskError(InputError):
    """No task has the id or name that a person gave."""


class UnknownQueueError(InputError):
    """No queue has the id or name that a person gave."""


class NotQueuedError(HpcAgentError):
    """A task that had to be queued is not, or another agent took it off its queue first. Nothing was run."""


class ApiError(HpcAgentError):
    """The ClearML server refused a call.

    ``code`` is the HTTP status (400), ``subcode`` ClearML's own number (701), ``endpoint`` e.g. ``queues.get_by_id``.
    """

    def __init__(self, endpoint: str, code: int, subcode: int, message: str) -> None:
        super().__init__(f"{endpoint} was refused by the ClearML server: {message} ({code}/{subcode})")
        self.endpoint = endpoint
        self.code = code
        self.subcode = subcode


class AuthError(ApiError):
    """The credentials were not accepted."""


class NotFoundError(ApiError):
    """The task, queue or project does not exist, or is not visible to this account."""


class ServerUnreachableError(HpcAgentError):
    """No usable answer came from the ClearML server within the budget of the call.

    ``uncertain``: the request may have been carried out anyway (its answer was lost).
    ``retry_after``: seconds that the server asked for.
    """

    retryable = True

    def __init__(self, message: str, *, uncertain: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.uncertain = uncertain
        self.retry_after = retry_after


class SchedulerUnavailableError(HpcAgentError):
    """The scheduler gave no information. Says nothing about any job."""

    retryable = True


class TemplateError(HpcAgentError):
    """An sbatch template is missing, broken, or names a variable that does not exist."""


class UserMapError(HpcAgentError):
    """``hpc.user_map`` has no Linux user for a task."""


class ResourceError(HpcAgentError):
    """A task asks for resources that its queue does not allow."""


class SourceError(HpcAgentError):
    """The code of a task cannot be brought to the node."""


class EnvironmentBuildError(HpcAgentError):
    """The Python environment of a task cannot be built, or is not in the cache where it must be."""


class NodesLostError(EnvironmentBuildError):
    """The agents of a task's nodes ended before their nodes were ready: the scheduler could not start one of them."""


class ContainerError(HpcAgentError):
    """The image of a task cannot be had, or its container's arguments are not allowed."""


class ContainerUnavailableError(ContainerError):
    """The program that runs containers is not on this machine, or does not work."""


class ProcessError(HpcAgentError):
    """A program could not be started, failed, or did not end in time."""

    exit_code: int | None = None
    """Of a program that ended by itself, where its output was read or its input written."""
