"""ClearML's task statuses and which may follow which (docs/internals/clearml-protocol.md#status-transitions)."""

from __future__ import annotations

from enum import Enum


class TaskStatus(str, Enum):
    CREATED = "created"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    STOPPED = "stopped"
    PUBLISHED = "published"
    PUBLISHING = "publishing"
    CLOSED = "closed"
    FAILED = "failed"
    COMPLETED = "completed"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether nothing of ours runs or waits for a task in this status."""
        return self in _FINAL


_S = TaskStatus
_FINAL = frozenset({_S.STOPPED, _S.PUBLISHED, _S.PUBLISHING, _S.CLOSED, _S.FAILED, _S.COMPLETED})

_ALLOWED: dict[TaskStatus, frozenset[TaskStatus]] = {
    _S.CREATED: frozenset({_S.QUEUED, _S.IN_PROGRESS}),
    _S.QUEUED: frozenset({_S.CREATED, _S.IN_PROGRESS, _S.STOPPED}),
    _S.IN_PROGRESS: frozenset({_S.STOPPED, _S.FAILED, _S.CREATED, _S.COMPLETED}),
    _S.STOPPED: frozenset(
        {_S.CLOSED, _S.CREATED, _S.FAILED, _S.QUEUED, _S.IN_PROGRESS, _S.PUBLISHED, _S.PUBLISHING, _S.COMPLETED}
    ),
    _S.COMPLETED: frozenset({_S.PUBLISHED, _S.IN_PROGRESS, _S.CREATED}),
    _S.FAILED: frozenset({_S.CREATED, _S.STOPPED, _S.PUBLISHED, _S.QUEUED}),
    _S.CLOSED: frozenset({_S.CREATED, _S.PUBLISHED, _S.PUBLISHING, _S.STOPPED, _S.FAILED}),
    _S.PUBLISHING: frozenset({_S.PUBLISHED}),
    _S.PUBLISHED: frozenset(),
    _S.UNKNOWN: frozenset(),
}


def may_follow(old: TaskStatus, new: TaskStatus) -> bool:
    """Whether the server allows ``old`` → ``new`` without ``force``. Staying is always allowed."""
    return old is new or new in _ALLOWED[old]
