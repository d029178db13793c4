"""Targets of notifications about tasks: the block ``notify`` of the section ``hpc``. None are set by default."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from hpc_agent.config.types import Interval, SettingsGroup
from hpc_agent.errors import ResourceError
from hpc_agent.redact import Secret


class TargetSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.notify.<event>``: where the event goes; each of them that is set gets it."""

    webhook: Annotated[Secret, Meta(description="URL that gets the event as JSON in a POST request.")] = Secret("")
    command: Annotated[
        tuple[str, ...], Meta(description="Program and arguments; it gets the event as JSON on its stdin.")
    ] = ()
    mail: Annotated[str, Meta(description="Address that gets a mail, by the site's `sendmail`.")] = ""

    def __post_init__(self) -> None:
        if self.webhook and not re.match(r"https?://[^/\s]", self.webhook.reveal()):
            raise ResourceError("webhook is not a URL, expected one that starts with https:// or http://")
        if self.command and not self.command[0].strip():
            raise ResourceError('command begins with an empty word, expected a program such as ["notify-send"]')
        if self.mail and not re.fullmatch(r"[^\s@,;<>]+(@[^\s@,;<>]+)?", self.mail):
            raise ResourceError(f'mail is "{self.mail}", expected one address such as anna@example.org')

    @property
    def is_set(self) -> bool:
        return bool(self.webhook or self.command or self.mail)


class NotifySettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.notify``: events of tasks that the daemon tells of."""

    started: Annotated[TargetSettings, Meta(description="A task's process is being started.")] = TargetSettings()
    completed: Annotated[TargetSettings, Meta(description="A task has completed.")] = TargetSettings()
    failed: Annotated[TargetSettings, Meta(description="A task has failed.")] = TargetSettings()
    stopped: Annotated[TargetSettings, Meta(description="A task was aborted or cancelled while it ran.")] = (
        TargetSettings()
    )
    waiting: Annotated[
        TargetSettings, Meta(description="A task has waited in its queue for longer than `waiting_after`.")
    ] = TargetSettings()
    waiting_after: Annotated[Interval, Meta(description="Seconds in its queue after which a task waits too long.")] = (
        6 * 3600
    )
