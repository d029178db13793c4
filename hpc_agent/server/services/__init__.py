"""Services of the API: one file per service, several where one has many actions. A new one is a file and a line
here."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.server.action import Endpoint
from hpc_agent.server.services import (
    auth,
    events_metrics,
    events_read,
    events_samples,
    events_write,
    models,
    models_change,
    projects,
    projects_change,
    projects_queries,
    projects_stats,
    queue_order,
    queues,
    reports,
    statistics,
    tasks,
    tasks_content,
    tasks_delete,
    tasks_many,
    tasks_status,
    tasks_write,
    users,
    workers,
)

_SERVICES = (
    *auth.services,
    *users.services,
    queues.service,
    queue_order.service,
    *statistics.services,
    workers.service,
    tasks.service,
    tasks_write.service,
    tasks_status.service,
    tasks_content.service,
    tasks_delete.service,
    tasks_many.service,
    projects.service,
    projects_change.service,
    *projects_queries.services,
    projects_stats.service,
    models.service,
    models_change.service,
    *reports.services,
    events_write.service,
    events_read.service,
    events_metrics.service,
    events_samples.service,
)

ENDPOINTS: Mapping[str, Endpoint] = {
    name: endpoint for service in _SERVICES for name, endpoint in service.endpoints.items()
}
