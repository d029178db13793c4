"""Permissions of users, administrators and tasks' credentials: one row for every endpoint.

An administrator may do everything. A *user* is a member of the group whose server this is: reads all, makes new things,
and changes its own things. A *task* is the credential that a job gets in place of a user's keys: it reads what a user
reads, and changes its own task and what that task made (child tasks, models), nothing else of its owner's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Scope(Enum):
    """On what an endpoint may be called."""

    ALL = "all"
    OWN = "own"
    NONE = "none"


class OwnerKind(str, Enum):
    """Kind of object that a field of a request names."""

    TASK = "task"
    MODEL = "model"
    PROJECT = "project"
    QUEUE = "queue"
    WORKER = "worker"
    USER = "user"
    CREDENTIAL = "credential"
    EVENTS = "events"
    """The whole request is events, of tasks and models."""


@dataclass(frozen=True)
class Target:
    """An object that a call changes: what the field names, one id or a list of them."""

    kind: OwnerKind
    field: str


@dataclass(frozen=True)
class Permission:
    """``own``: with scope OWN all of these must be one's own; ``or_own``: it is enough that one of these is.

    ``delegated``: also with a token that an administrator has in the user's name.
    """

    user: Scope
    task: Scope
    own: tuple[Target, ...] = ()
    or_own: tuple[Target, ...] = ()
    delegated: bool = True


_TASK = Target(OwnerKind.TASK, "task")
_TASKS = Target(OwnerKind.TASK, "tasks")
_TASK_IDS = Target(OwnerKind.TASK, "ids")
_MODEL = Target(OwnerKind.MODEL, "model")
_MODEL_IDS = Target(OwnerKind.MODEL, "ids")
_PROJECT = Target(OwnerKind.PROJECT, "project")
_QUEUE = Target(OwnerKind.QUEUE, "queue")
_WORKER = Target(OwnerKind.WORKER, "worker")

_READ = Permission(Scope.ALL, Scope.ALL)
_CREATE = Permission(Scope.ALL, Scope.ALL)
_PERSON = Permission(Scope.ALL, Scope.NONE)
_ADMINISTRATOR = Permission(Scope.NONE, Scope.NONE)
_USER = Target(OwnerKind.USER, "user")
_OWN_KEYS = Permission(Scope.OWN, Scope.NONE, (_USER,), delegated=False)


def _own(*targets: Target) -> Permission:
    return Permission(Scope.OWN, Scope.OWN, targets)


_OWN_QUEUE = Permission(Scope.OWN, Scope.NONE, (_QUEUE,))
_QUEUED = Permission(Scope.OWN, Scope.OWN, or_own=(_TASK, _QUEUE))
"""An entry of a queue belongs to the task's owner, and to the queue's."""

PERMISSIONS: Mapping[str, Permission] = {
    "auth.login": _READ,
    "auth.create_user": _ADMINISTRATOR,
    "auth.create_credentials": _OWN_KEYS,
    "auth.get_credentials": _OWN_KEYS,
    "auth.edit_credentials": replace(_OWN_KEYS, own=(Target(OwnerKind.CREDENTIAL, "access_key"),)),
    "auth.edit_user": _ADMINISTRATOR,
    "auth.revoke_credentials": replace(_OWN_KEYS, own=(_USER, Target(OwnerKind.CREDENTIAL, "access_key"))),
    "auth.create_task_credentials": Permission(Scope.OWN, Scope.NONE, (_TASK,)),
    "auth.create_task_credentials_many": Permission(Scope.OWN, Scope.NONE, (_TASK_IDS,)),
    "users.get_all": _READ,
    "users.get_all_ex": _READ,
    "users.get_by_id": _READ,
    "users.get_current_user": _READ,
    "users.get_preferences": _READ,
    "users.set_preferences": _PERSON,
    "users.update": replace(_OWN_KEYS, delegated=True),
    "login.supported_modes": _READ,
    "users.get_vaults": _READ,
    "server.info": _READ,
    "server.config": _READ,
    "queues.get_all": _READ,
    "queues.get_all_ex": _READ,
    "queues.get_by_id": _READ,
    "queues.get_default": _READ,
    "queues.get_num_entries": _READ,
    "queues.peek_task": _READ,
    "queues.create": _PERSON,
    "queues.update": _OWN_QUEUE,
    "queues.delete": _OWN_QUEUE,
    "queues.add_or_update_metadata": _OWN_QUEUE,
    "queues.delete_metadata": _OWN_QUEUE,
    "queues.clear_queue": _OWN_QUEUE,
    "queues.get_next_task": _OWN_QUEUE,
    "queues.add_task": _own(_TASK),
    "queues.remove_task": _QUEUED,
    "queues.move_task_forward": _OWN_QUEUE,
    "queues.move_task_backward": _QUEUED,
    "queues.move_task_to_front": _QUEUED,
    "queues.move_task_to_back": _QUEUED,
    "workers.register": _own(_WORKER),
    "workers.unregister": _own(_WORKER),
    "workers.status_report": _own(_WORKER, _TASK),
    "workers.get_all": _READ,
    "workers.get_count": _READ,
    "workers.get_stats": _READ,
    "workers.get_metric_keys": _READ,
    "workers.get_activity_report": _READ,
    "queues.get_queue_metrics": _READ,
    "workers.get_runtime_properties": _READ,
    "workers.set_runtime_properties": _own(_WORKER),
    "tasks.get_by_id": _READ,
    "tasks.get_all": _READ,
    "tasks.get_all_ex": _READ,
    "tasks.get_by_id_ex": _READ,
    "tasks.get_types": _READ,
    "tasks.validate": _READ,
    "tasks.get_hyper_params": _READ,
    "tasks.get_configurations": _READ,
    "tasks.get_configuration_names": _READ,
    "tasks.create": _CREATE,
    "tasks.clone": _CREATE,
    "tasks.edit": _own(_TASK),
    "tasks.update": _own(_TASK),
    "tasks.set_requirements": _own(_TASK),
    "tasks.delete": _own(_TASK),
    "tasks.delete_many": _own(_TASK_IDS),
    "tasks.reset_many": _own(_TASK_IDS),
    "tasks.enqueue_many": _own(_TASK_IDS),
    "tasks.dequeue_many": _own(_TASK_IDS),
    "tasks.stop_many": _own(_TASK_IDS),
    "tasks.publish_many": _own(_TASK_IDS),
    "tasks.move": _own(_TASK_IDS),
    "tasks.update_tags": _own(_TASK_IDS),
    "tasks.edit_runtime": _own(_TASK),
    "tasks.archive": _own(_TASKS),
    "tasks.archive_many": _own(_TASK_IDS),
    "tasks.unarchive_many": _own(_TASK_IDS),
    "tasks.ping": _own(_TASK),
    "tasks.started": _own(_TASK),
    "tasks.completed": _own(_TASK),
    "tasks.failed": _own(_TASK),
    "tasks.stopped": _own(_TASK),
    "tasks.close": _own(_TASK),
    "tasks.publish": _own(_TASK),
    "tasks.stop": _own(_TASK),
    "tasks.enqueue": _own(_TASK),
    "tasks.dequeue": _own(_TASK),
    "tasks.reset": _own(_TASK),
    "tasks.edit_hyper_params": _own(_TASK),
    "tasks.delete_hyper_params": _own(_TASK),
    "tasks.edit_configuration": _own(_TASK),
    "tasks.delete_configuration": _own(_TASK),
    "tasks.add_or_update_artifacts": _own(_TASK),
    "tasks.delete_artifacts": _own(_TASK),
    "tasks.add_or_update_model": _own(_TASK),
    "tasks.delete_models": _own(_TASK),
    "projects.get_all": _READ,
    "projects.get_all_ex": _READ,
    "projects.get_by_id": _READ,
    "projects.create": _CREATE,
    "projects.update": _own(_PROJECT),
    "projects.move": _own(_PROJECT),
    "projects.merge": _own(_PROJECT, Target(OwnerKind.PROJECT, "destination_project")),
    "projects.validate_delete": _READ,
    "projects.get_task_tags": _READ,
    "projects.get_model_tags": _READ,
    "projects.get_project_tags": _READ,
    "projects.get_hyper_parameters": _READ,
    "projects.get_hyperparam_values": _READ,
    "projects.get_model_metadata_keys": _READ,
    "projects.get_model_metadata_values": _READ,
    "projects.get_unique_metric_variants": _READ,
    "projects.get_task_parents": _READ,
    "projects.get_user_names": _READ,
    "organization.get_tags": _READ,
    "organization.get_user_companies": _READ,
    "organization.get_entities_count": _READ,
    "projects.delete": _own(_PROJECT),
    "models.get_all": _READ,
    "models.get_all_ex": _READ,
    "models.get_by_id_ex": _READ,
    "models.get_by_task_id": _READ,
    "models.get_frameworks": _READ,
    "models.get_by_id": _READ,
    "models.create": _own(_TASK),
    "models.edit": _own(_MODEL, _TASK),
    "models.update": _own(_MODEL, _TASK),
    "models.update_for_task": _own(_TASK, Target(OwnerKind.MODEL, "override_model_id")),
    "models.set_ready": _own(_MODEL),
    "models.publish_many": _own(_MODEL_IDS),
    "models.delete_many": _own(_MODEL_IDS),
    "models.move": _own(_MODEL_IDS),
    "models.add_or_update_metadata": _own(_MODEL),
    "models.delete_metadata": _own(_MODEL),
    "models.delete": _own(_MODEL),
    "models.archive_many": _own(_MODEL_IDS),
    "models.unarchive_many": _own(_MODEL_IDS),
    "reports.get_all_ex": _READ,
    "reports.get_tags": _READ,
    "reports.get_task_data": _READ,
    "reports.create": _CREATE,
    "reports.update": _own(_TASK),
    "reports.publish": _own(_TASK),
    "reports.archive": _own(_TASK),
    "reports.unarchive": _own(_TASK),
    "reports.move": _own(_TASK),
    "reports.delete": _own(_TASK),
    "pipelines.start_pipeline": _CREATE,
    "pipelines.delete_runs": _own(_TASK_IDS),
    "events.add": _own(Target(OwnerKind.EVENTS, "")),
    "events.add_batch": _own(Target(OwnerKind.EVENTS, "")),
    "events.get_task_log": _READ,
    "events.get_task_events": _READ,
    "events.scalar_metrics_iter_histogram": _READ,
    "events.get_task_single_value_metrics": _READ,
    "events.get_task_plots": _READ,
    "events.debug_images": _READ,
    "events.plots": _READ,
    "events.get_task_metrics": _READ,
    "events.get_multi_task_metrics": _READ,
    "events.get_multi_task_plots": _READ,
    "events.get_scalar_metric_data": _READ,
    "events.get_scalar_metrics_and_variants": _READ,
    "events.get_vector_metrics_and_variants": _READ,
    "events.get_task_latest_scalar_values": _READ,
    "events.multi_task_scalar_metrics_iter_histogram": _READ,
    "events.scalar_metrics_iter_raw": _READ,
    "events.vector_metrics_iter_histogram": _READ,
    "events.get_debug_image_sample": _READ,
    "events.next_debug_image_sample": _READ,
    "events.get_plot_sample": _READ,
    "events.next_plot_sample": _READ,
    "events.clear_scroll": _READ,
    "events.clear_task_log": _own(_TASK),
    "events.delete_for_task": _own(_TASK),
    "events.delete_for_model": _own(_MODEL),
}
"""Every endpoint has its row; one without is refused to all but administrators."""
