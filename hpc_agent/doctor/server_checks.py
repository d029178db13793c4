"""Checks of the ClearML server: does it answer, does it know us, does its clock agree, does it have the queues?"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.doctor.check import Check, CheckResult, Once, SkippedError, failed, ok, skipped, warning
from hpc_agent.errors import AuthError, ConfigError, HpcAgentError, InputError, ServerUnreachableError
from hpc_agent.redact import without_credentials
from hpc_agent.retry import ONCE

SUBJECT = "Server"
_TIMEOUTS = (8.0, 15.0)
_CLOCK_OFF_S = 60.0
"""As ``schedulers.base.CLOCK_SKEW``: beyond it, events are out of order, and a job may be taken for an older one."""
_CLOCK_NEAR_S = 5.0
_NEW_KEYS = (
    "make new keys on the server's page (Settings, Workspace), then put them into api.credentials: hpc-agent init"
)
_CLOCK_REMEDY = "chronyc tracking     # on both machines; its administrator sets the wrong one: sudo chronyc makestep"


class ServerChecks:
    """One login serves all of them."""

    def __init__(self, api: ApiSettings, queues: Sequence[str], clock: Clock) -> None:
        self._api = api
        self._queues = queues
        self._clock = clock
        self._client = Once(lambda: Client(api, clock=clock, budget=ONCE, timeouts=_TIMEOUTS))
        self._logged_in = Once(self._log_in)

    def all(self, subject: str = SUBJECT, *, queues: bool = True) -> list[Check]:
        where = shlex.quote(f"{without_credentials(self._api.api_server)}/debug.ping")
        checks = [
            Check(subject, "server", self._reachable, f"curl -v {where}"),
            Check(subject, "credentials", self._credentials, _NEW_KEYS),
            Check(subject, "clock", self._in_step, _CLOCK_REMEDY),
        ]
        if queues and self._queues:
            checks += [Check(subject, f"queue {name}", partial(self._queue, name)) for name in self._queues]
        elif queues:
            checks.append(Check(subject, "queues", _no_queues))
        return checks

    def queue_id(self, name: str) -> str:
        """Id of a queue; empty where the server does not tell it."""
        with contextlib.suppress(HpcAgentError):
            self._need_server()
            return self._client.get().queues.resolve(name)
        return ""

    def _log_in(self) -> float:
        """Seconds that it took."""
        before = self._clock.monotonic()
        self._client.get().session.login()
        return self._clock.monotonic() - before

    def _need_server(self) -> None:
        try:
            self._logged_in.get()
        except ServerUnreachableError as error:
            raise SkippedError("the server does not answer") from error
        except ConfigError as error:
            raise SkippedError("no login is possible: see server") from error

    def _reachable(self) -> Iterator[CheckResult]:
        where = without_credentials(self._api.api_server)
        try:
            seconds = self._logged_in.get()
        except AuthError:
            yield ok(f"{where} answers")
        except ConfigError as error:
            yield failed(str(error), "hpc-agent init     # asks for server and keys")
        except ServerUnreachableError as error:
            host = urlsplit(self._api.api_server).hostname or ""
            remedy = f"curl -v {shlex.quote(where + '/debug.ping')}"
            if host in ("localhost", "127.0.0.1", "::1"):
                remedy = "hpc-agent server     # if it is the embedded one; else start yours"
            yield failed(str(error), remedy)
        else:
            version = ".".join(map(str, self._client.get().session.server_version))
            yield ok(f"{where} answers in {seconds:.2f} s" + (f", API {version}" if version else ""))

    def _credentials(self) -> Iterator[CheckResult]:
        try:
            self._need_server()
        except AuthError as error:
            yield failed(str(error), _NEW_KEYS)
            return
        identity = self._client.get().session.claims.get("identity")
        user = identity.get("user_name") or identity.get("user") if isinstance(identity, dict) else ""
        yield ok("accepted" + (f", as {user}" if user else ""))

    def _in_step(self) -> Iterator[CheckResult]:
        # A refusal has the time all the same.
        with contextlib.suppress(AuthError):
            self._need_server()
        offset = self._client.get().session.server_ahead
        if offset is None:
            yield skipped("the server's answers have no date")
            return
        sentence = f"the server's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
        if abs(offset) >= _CLOCK_OFF_S:
            yield failed(sentence, _CLOCK_REMEDY)
        elif abs(offset) >= _CLOCK_NEAR_S:
            yield warning(sentence, _CLOCK_REMEDY)
        else:
            yield ok("in step with the server's, to the second or two")

    def _queue(self, name: str) -> Iterator[CheckResult]:
        try:
            self._need_server()
        except AuthError as error:
            raise SkippedError("the server does not accept the credentials") from error
        try:
            self._client.get().queues.resolve(name)
        except InputError as error:
            yield failed(str(error), f"hpc-agent daemon --queue {shlex.quote(name)} --create-queue")
        else:
            yield ok("is on the server")


def _no_queues() -> Iterator[CheckResult]:
    yield skipped("none is configured", "hpc-agent init --queue NAME, or name them here: --queue NAME")
