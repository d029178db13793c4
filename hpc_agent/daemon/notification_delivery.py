"""Delivery of notifications by webhook, command and mail, in threads of its own: nothing else waits for it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import threading
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.webhook import post_json
from hpc_agent.clock import Clock
from hpc_agent.config.notify_settings import NotifySettings, TargetSettings
from hpc_agent.domain.notification import Notification
from hpc_agent.errors import HpcAgentError, NotFoundError, ProcessError
from hpc_agent.logs import EventLog
from hpc_agent.process import programs
from hpc_agent.redact import without_secrets
from hpc_agent.retry import ONCE
from hpc_agent.schedulers.job_environment import scrubbed

log = EventLog("notify")

_THREADS = 4
_MOST_WAITING = 1000
"""In each thread; beyond that they are dropped: a target has been hanging for long."""
_COMMAND_S = 30.0
_TRIES = 3
_PAUSE_S = 5.0
_SENDMAIL = ("/usr/sbin/sendmail", "/usr/lib/sendmail")
"""Where it is, if not on PATH: people's PATH often lacks sbin."""


class NotificationDelivery:
    """Delivery service; ``send`` returns at once, whatever becomes of the notification."""

    def __init__(self, client: Client, settings: NotifySettings, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._queues: list[queue.Queue[Notification]] = [queue.Queue(_MOST_WAITING) for _ in range(_THREADS)]
        """One for each thread. A task's notifications share one, so that they keep their order."""
        self._begun: set[int] = set()
        self._unfinished = 0
        self._all_done = threading.Condition()

    def send(self, notification: Notification) -> None:
        number = hash(notification.task) % _THREADS
        waiting = self._queues[number]
        try:
            waiting.put_nowait(notification)
        except queue.Full:
            log.error("notification.dropped", task=notification.task, notification=notification.event.value)
            return
        with self._all_done:
            self._unfinished += 1
        if number not in self._begun:
            self._begun.add(number)
            threading.Thread(target=self._deliver_all, args=(waiting,), name="notify", daemon=True).start()

    def finish(self, seconds: float) -> None:
        """Wait for what was sent, for so long at most."""
        with self._all_done:
            if not self._all_done.wait_for(lambda: not self._unfinished, seconds):
                log.warning("notification.unfinished", notifications=self._unfinished, seconds=seconds)

    def _deliver_all(self, waiting: queue.Queue[Notification]) -> None:
        while True:
            notification = waiting.get()
            try:
                self._deliver(notification)
            except Exception as error:  # noqa: BLE001 - the next one may go through
                log.error("notification.failed", task=notification.task, error=error, trace=True)
            with self._all_done:
                self._unfinished -= 1
                self._all_done.notify_all()

    def _deliver(self, notification: Notification) -> None:
        target: TargetSettings = getattr(self._settings, notification.event.setting)
        complete = self._completed(msgspec.structs.replace(notification, reason=without_secrets(notification.reason)))
        body = json.dumps(complete.body()).encode()
        if target.webhook:
            self._try(complete, "webhook", lambda: post_json(target.webhook, body))
        if target.command:
            self._try(complete, "command", lambda: _run(target.command, body))
        if target.mail:
            self._try(complete, "mail", lambda: _mail(target.mail, complete))

    def _completed(self, notification: Notification) -> Notification:
        """With its name, project and page, as far as the server answers."""
        try:
            task = self._client.tasks.get(notification.task, budget=ONCE)
            url = self._client.task_page(task.id, task.project)
        except NotFoundError:
            return notification
        except HpcAgentError as error:
            log.warning("notification.without_name", task=notification.task, error=error)
            return notification
        return msgspec.structs.replace(notification, name=task.name, project=task.project, url=url)

    def _try(self, notification: Notification, way: str, deliver: Callable[[], None]) -> None:
        keys = {"task": notification.task, "notification": notification.event.value, "way": way}
        for number in range(1, _TRIES + 1):
            try:
                deliver()
            except HpcAgentError as error:
                log.warning("notification.not_delivered", **keys, attempt=number, error=error)
            else:
                log.info("notification.delivered", **keys)
                return
            if number < _TRIES:
                self._clock.sleep(_PAUSE_S * number)


def _run(command: tuple[str, ...], body: bytes) -> None:
    """
    Raises:
        ProcessError: it could not be started, failed, or did not end in time.
    """
    answer = programs.run(command, timeout=_COMMAND_S, env=scrubbed(os.environ), input=body.decode())
    if not answer.ok:
        raise ProcessError(f"{command[0]} ended with exit code {answer.returncode}: {answer.last_words[-300:]}")


def _mail(address: str, notification: Notification) -> None:
    """
    Raises:
        ProcessError: there is no sendmail, or it refused the mail.
    """
    program = shutil.which("sendmail") or next((path for path in _SENDMAIL if Path(path).exists()), None)
    if program is None:
        raise ProcessError("there is no sendmail on this machine: use a webhook or a command instead of mail")
    message = EmailMessage()
    message["To"] = address
    message["Subject"] = " ".join(f"[hpc-agent] {notification.text}".split())[:200]
    lines = [f"{name}: {value}" for name, value in notification.body().items() if value and name != "text"]
    message.set_content(f"{notification.text}\n\n" + "\n".join(lines) + "\n")
    # -i: a line with a dot alone does not end the mail.
    answer = programs.run([program, "-i", "-t"], timeout=_COMMAND_S, input=message.as_string())
    if not answer.ok:
        raise ProcessError(f"sendmail ended with exit code {answer.returncode}: {answer.last_words[-300:]}")
