"""What the settings of a queue mean for decisions about its tasks."""

from __future__ import annotations

from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.snapshot import AttemptPolicy

_PATIENCE_S = 60.0


def rules(hpc: HpcSettings, queue: str) -> AttemptPolicy:
    """``queue`` by name. A site that calls jobs lost sooner is less patient with all else too."""
    settings = hpc.queue(queue)
    lost_after = hpc.lost_after
    return AttemptPolicy(
        look_up_seconds=min(_PATIENCE_S, lost_after),
        requeue_after=min(_PATIENCE_S, lost_after),
        lost_after=lost_after,
        stop_grace=hpc.term_grace + 40,
        requeue_on_time_limit=settings.on_time_limit == "requeue",
        max_restarts=settings.max_restarts,
    )
