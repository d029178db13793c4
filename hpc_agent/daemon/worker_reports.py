"""Reports of the daemon itself to the server's list of workers; nothing depends on them."""

from __future__ import annotations

import threading

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.telemetry.usage import GpuReader, UsageReader

log = EventLog("daemon")

REPORT_INTERVAL_S = 30.0


class WorkerReports:
    def __init__(self, client: Client, options: LoopOptions, clock: Clock) -> None:
        self._client = client
        self._options = options
        self._clock = clock

    def start(self, ended: threading.Event) -> None:
        """Report from a thread of its own until ``ended`` is set."""
        threading.Thread(target=self._run, args=(ended,), name="heartbeat", daemon=True).start()

    def _run(self, ended: threading.Event) -> None:
        usage = UsageReader(self._clock, GpuReader(self._options.gpus))
        options = self._options
        registered = False
        while not ended.is_set():
            try:
                if not registered:
                    self._client.workers.register(options.worker, options.queues, options.tags)
                    registered = True
                self._client.workers.report(
                    options.worker, queues=options.queues, stats=usage.read(), tags=options.tags
                )
            except HpcAgentError as error:
                log.debug("daemon.report_failed", error=error)
            self._clock.wait(ended, REPORT_INTERVAL_S)

    def unregister(self) -> None:
        try:
            self._client.workers.unregister(self._options.worker)
        except HpcAgentError as error:
            log.debug("daemon.unregister_failed", error=error)
