"""Errors of a ClearML server by their numbers, shared by the client and the embedded server.

See docs/internals/clearml-protocol.md#error-codes.
"""

from __future__ import annotations

import msgspec

from hpc_agent.errors import ApiError


class ErrorKind(msgspec.Struct, frozen=True):
    """``code`` is the HTTP status, ``subcode`` ClearML's own number, ``text`` the start of the message."""

    code: int
    subcode: int
    text: str

    @property
    def numbers(self) -> tuple[int, int]:
        return self.code, self.subcode

    def matches(self, error: ApiError) -> bool:
        """Whether a server's refusal is of this kind."""
        return (error.code, error.subcode) == self.numbers

    def error(self, endpoint: str, message: str) -> ApiError:
        """An error of this kind, as if the server had refused."""
        return ApiError(endpoint, self.code, self.subcode, message)


IMPERSONATION_ERROR = ErrorKind(400, 6, "Impersonation error")
MISSING_FIELDS = ErrorKind(400, 11, "Missing required fields")
VALIDATION_ERROR = ErrorKind(400, 12, "Validation error")
UNKNOWN_FIELDS = ErrorKind(400, 14, "Invalid fields (fields not defined for object)")
FIELDS_VALUE_ERROR = ErrorKind(400, 16, "Invalid value for fields")
INVALID_TASK_ID = ErrorKind(400, 101, "Invalid task id")
INVALID_TASK_STATUS = ErrorKind(400, 110, "Invalid task status")
TASK_CANNOT_BE_DELETED = ErrorKind(400, 123, "Task cannot be deleted")
EVENTS_NOT_ADDED = ErrorKind(400, 131, "Events not added")
NOT_A_REPORT = ErrorKind(400, 150, "The task is not a report")
CANNOT_REMOVE_ALL_RUNS = ErrorKind(400, 160, "At least one run of the pipeline must be left")
INVALID_MODEL_ID = ErrorKind(400, 201, "Invalid model id")
MODEL_IN_USE = ErrorKind(400, 205, "Model is in use")
MODEL_IS_READY = ErrorKind(400, 203, "Model is ready")
MODEL_CREATING_TASK_EXISTS = ErrorKind(400, 206, "The task that created the model exists")
INVALID_USER_ID = ErrorKind(400, 301, "Invalid user id")
INVALID_PROJECT_ID = ErrorKind(400, 401, "Invalid project id")
PROJECT_HAS_TASKS = ErrorKind(400, 402, "Project has tasks")
PROJECT_HAS_MODELS = ErrorKind(400, 405, "Project has models")
PROJECT_HAS_DATASETS = ErrorKind(400, 406, "Project has datasets")
INVALID_PROJECT_NAME = ErrorKind(400, 407, "Invalid project name")
PROJECT_LOCATION = ErrorKind(400, 408, "Cannot update project location")
PROJECT_HAS_PIPELINES = ErrorKind(400, 413, "Project has pipelines with runs")
INVALID_QUEUE_ID = ErrorKind(400, 701, "Invalid queue id")
QUEUE_NOT_EMPTY = ErrorKind(400, 702, "Queue is not empty")
TASK_NOT_IN_QUEUE = ErrorKind(400, 703, "Invalid queue id or task not in queue")
TASK_ALREADY_QUEUED = ErrorKind(400, 706, "Task already queued")
NO_DEFAULT_QUEUE = ErrorKind(400, 707, "No default queue was found")
MULTIPLE_DEFAULT_QUEUES = ErrorKind(400, 708, "Multiple default queues found")
DATA_VALIDATION_ERROR = ErrorKind(400, 800, "Data validation error")
NAME_TAKEN = ErrorKind(400, 801, "Value combination already exists (unique field already contains this value)")
INVALID_WORKER_ID = ErrorKind(400, 1001, "Invalid worker id")
WORKER_STATS_NOT_FOUND = ErrorKind(400, 1005, "Worker stats not found")

BAD_AUTH_TYPE = ErrorKind(401, 10, "Unauthorized (bad authentication header type)")
NO_CREDENTIALS = ErrorKind(401, 20, "Unauthorized (missing credentials)")
BAD_CREDENTIALS = ErrorKind(401, 21, "Unauthorized (malformed credentials)")
INVALID_CREDENTIALS = ErrorKind(401, 22, "Unauthorized (invalid credentials)")
INVALID_TOKEN = ErrorKind(401, 30, "Unauthorized (invalid token)")

NO_PERMISSION = ErrorKind(403, 20, "Forbidden (no permission for the role)")

UNKNOWN_ACTION = ErrorKind(404, 0, "Unable to find endpoint")
BODY_TOO_LARGE = ErrorKind(413, 0, "Request body too large")
FILE_TOO_LARGE = ErrorKind(413, 0, "The file is too large")
COMPRESSED_BODY = ErrorKind(415, 0, "Content-Encoding is not supported")
INTERNAL_ERROR = ErrorKind(500, 0, "General data error")
STORAGE_FULL = ErrorKind(507, 0, "The server has no room for the file")
