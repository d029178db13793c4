"""HTTP session with a ClearML API server: login, token, retries.

See docs/internals/clearml-protocol.md#login.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from urllib3.exceptions import InsecureRequestWarning

from hpc_agent import __version__
from hpc_agent.api.answer import TooLargeError, body_of, cause_of, data_of, encoded, no_answer
from hpc_agent.api.transport import BoundedAdapter
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.errors import ApiError, AuthError, ConfigError, HpcAgentError, ServerUnreachableError
from hpc_agent.redact import Secret, without_credentials
from hpc_agent.request_counts import COUNTS
from hpc_agent.retry import ROUTINE, Budget, retry

API_VERSION = "2.14"
"""Asked for in every call: old enough for every server in use, new enough for all that we send."""

REFRESH_BEFORE_S = 600
"""A token is renewed when less of its life is left, or when half of a shorter life is over."""

_WRONG_SERVER = "is api.api_server the API server (port 8008, or api.…) and not the web page?"
TIMEOUTS = (10.0, 60.0)  # connect, read
_END_OF_TIME = 1e12


def login_of(access_key: str, token: Secret) -> Secret:
    """Value of ``api.login_token``; empty where there is no key or no token."""
    return Secret(f"{access_key}:{token.reveal()}") if access_key and len(token) else Secret("")


class ApiSession:
    """Calls endpoints by name. Safe to share between threads."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        clock: Clock = SYSTEM,
        budget: Budget = ROUTINE,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        """``budget``: for calls that name none; ``timeouts``: seconds for a connection, and for a piece of an answer,
        which as a whole may take five times as long.

        Raises:
            ConfigError: no server or no credentials are configured.
        """
        if not settings.api_server:
            raise ConfigError(
                "no ClearML server is configured: put api.api_server into ~/clearml.conf (clearml-init writes one), "
                "or start the embedded one with `hpc-agent server`"
            )
        if not (settings.access_key and len(settings.secret_key)) and not len(settings.auth_token):
            raise ConfigError(
                f"there are no credentials for {settings.api_server}: put api.credentials into ~/clearml.conf "
                "or set CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY"
            )
        self.settings = settings
        self._clock = clock
        self._budget = budget
        self._timeouts = timeouts
        self._http = requests.Session()
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, BoundedAdapter())
        # ~/.netrc would replace our Authorization header.
        self._http.auth = _no_auth
        if settings.verify_certificate is False:
            urllib3.disable_warnings(InsecureRequestWarning)  # one line on stderr for each call
        self._token = ""
        self._renew_at = 0.0
        self._server_version: tuple[int, ...] = ()
        self._lock = threading.Lock()
        self._resume(settings.login_token.reveal())
        self.closes_connections = False
        """The server closed the connection of its last answer: calls at the same time cost no more connections then."""
        self.server_ahead: float | None = None
        """Seconds by which the server's clock was ahead of ours at its last answer, to a second or two; None: no answer
        had a date."""

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        """Call ``service.action`` and return the answer's ``data``.

        ``repeatable``: calling twice has the effect of calling once; other calls are tried again only if the request
        certainly did not arrive.

        Raises:
            ApiError: the server refused (NotFoundError, AuthError where that is why).
            ServerUnreachableError: no usable answer within the budget.
        """
        body = encoded(payload or {})
        return self._call(endpoint, body, "application/json", budget or self._budget, repeatable)

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        """As ``call`` with a body of one JSON object a line (``events.add_batch``), which is not repeatable."""
        body = b"\n".join(encoded(item) for item in items)
        return self._call(endpoint, body, "application/json-lines", budget, repeatable=False)

    def login(self) -> None:
        """Get a token now, so that wrong credentials show at the start.

        Raises:
            AuthError, ServerUnreachableError: as for ``call``.
        """
        retry(lambda: self._login(""), self._budget, self._clock)

    def begin_login(self) -> None:
        """Log in from a thread, for which the first call waits; it meets the error if there is one."""

        def log_in() -> None:
            with contextlib.suppress(HpcAgentError):
                self._login("")

        threading.Thread(target=log_in, name="login", daemon=True).start()

    @property
    def current_login(self) -> Secret:
        """Our login, for ``api.login_token`` of another program that has the same keys.

        Raises:
            AuthError, ServerUnreachableError: as for ``call``.
        """
        return login_of(self.settings.access_key, Secret(self._current_token()))

    def token_of(self, user: str, seconds: int) -> tuple[Secret, Mapping[str, Any]]:
        """A token of another user, valid for so many seconds if the server allows it, and its claims.

        Raises:
            ApiError: the caller is not an administrator, the user does not exist, or the server does not support this.
            ServerUnreachableError: no usable answer.
        """
        body = json.dumps({"expiration_sec": seconds}).encode()
        headers = {"X-Clearml-Impersonate-As": user}

        def ask() -> dict[str, Any]:
            return self._send("auth.login", "auth.login", body, "application/json", self._credentials(), headers)

        token = str(retry(ask, self._budget, self._clock).get("token") or "")
        return Secret(token), _claims(token)

    @property
    def claims(self) -> Mapping[str, Any]:
        """Claims of our own token: our role, and what the server can do."""
        return _claims(self._current_token())

    def post_file(self, body: io.RawIOBase, content_type: str) -> None:
        """Post a multipart form to the file server, which keeps the login of the API server.

        Raises:
            ApiError: it was refused.
            ServerUnreachableError: no usable answer.
        """
        server = self.settings.files_server
        headers = {"Authorization": f"Bearer {self._current_token()}", "Content-Type": content_type}
        try:
            response = self._http.post(
                server,
                data=body,
                headers=headers,
                timeout=TIMEOUTS,
                verify=self.settings.verify_certificate,
                allow_redirects=False,
                stream=True,
            )
            answer = body_of(response)
        except (requests.RequestException, TooLargeError) as error:
            raise ServerUnreachableError(
                f"the file server at {without_credentials(server)} took no file: {cause_of(error)}; "
                "check api.files_server"
            ) from error
        if response.status_code != 200:
            raise ApiError("the upload", response.status_code, 0, answer[:200].decode("utf-8", "replace").strip())

    @property
    def server_version(self) -> tuple[int, ...]:
        """Newest API version of the server (``(2, 31)``), from its token; empty if that names none."""
        self._current_token()
        return self._server_version

    def _call(self, endpoint: str, body: bytes, content_type: str, budget: Budget, repeatable: bool) -> dict[str, Any]:
        path = f"v{API_VERSION}/{endpoint}"

        def once() -> dict[str, Any]:
            token = self._current_token()
            try:
                return self._send(path, endpoint, body, content_type, f"Bearer {token}")
            except AuthError as error:
                if error.code != 401:
                    raise
                self._login(token)
                return self._send(path, endpoint, body, content_type, f"Bearer {self._token}")

        def once_or_uncertain() -> dict[str, Any]:
            try:
                return once()
            except ServerUnreachableError as error:
                if error.uncertain and not repeatable:
                    error.retryable = False
                raise

        return retry(once_or_uncertain, budget, self._clock)

    def _resume(self, login: str) -> None:
        """Go on with an earlier login of the same keys; where the server does not take its token, log in."""
        key, _, token = login.partition(":")
        if token and key == self.settings.access_key:
            self._use(token)

    def _use(self, token: str) -> None:
        self._token = token
        claims = _claims(token)
        self._renew_at = _renew_at(claims, self._clock.now().timestamp())
        self._server_version = version_tuple(str(claims.get("api_version") or ""))

    def _current_token(self) -> str:
        with self._lock:
            token, renew_at = self._token, self._renew_at
        if not token or self._clock.now().timestamp() > renew_at:
            self._login(token)
        return self._token

    def _login(self, seen: str) -> None:
        """Replace the token ``seen``, unless another thread already did."""
        with self._lock:
            if self._token != seen:
                return
            settings = self.settings
            try:
                data = self._send("auth.login", "auth.login", b"{}", "application/json", self._credentials())
            except ServerUnreachableError as error:
                error.uncertain = False  # a login changes nothing
                raise
            except ApiError as error:
                if error.code != 404:
                    raise
                raise ConfigError(f"{settings.api_server} has no login endpoint; {_WRONG_SERVER}") from error
            token = data.get("token")
            if not isinstance(token, str):
                raise ConfigError(f"{settings.api_server} answered the login without a token; {_WRONG_SERVER}")
            self._use(token)

    def _credentials(self) -> str:
        """``Authorization`` header of the login."""
        settings = self.settings
        if not settings.access_key:
            return f"Bearer {settings.auth_token.reveal()}"
        pair = f"{settings.access_key}:{settings.secret_key.reveal()}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _send(
        self,
        path: str,
        endpoint: str,
        body: bytes,
        content_type: str,
        authorization: str,
        headers: Mapping[str, str] = {},
    ) -> dict[str, Any]:
        server = self.settings.api_server
        where = without_credentials(server)
        COUNTS.add("server", endpoint)
        asked = self._clock.now().timestamp()
        try:
            response = self._http.post(
                f"{server}/{path}",
                data=body,
                headers={
                    "Content-Type": content_type,
                    "Authorization": authorization,
                    "X-ClearML-Worker": socket.gethostname(),
                    "X-ClearML-Client": f"hpc-agent-{__version__}",
                    **headers,
                },
                timeout=self._timeouts,
                # The session's own setting is weaker than REQUESTS_CA_BUNDLE.
                verify=self.settings.verify_certificate,
                allow_redirects=False,
                stream=True,
            )
            answer = body_of(response)
        except (TooLargeError, requests.RequestException) as error:
            raise no_answer(error, endpoint, where) from error
        self.closes_connections = response.headers.get("Connection", "").lower() == "close"
        self._note_date(response.headers.get("Date", ""), asked)
        return data_of(response, answer, endpoint, where)

    def _note_date(self, text: str, asked: float) -> None:
        """``asked``: when the request was sent, as seconds since the epoch."""
        between = (asked + self._clock.now().timestamp()) / 2
        with contextlib.suppress(ValueError, OverflowError):
            # The header leaves out the parts of a second.
            self.server_ahead = parsedate_to_datetime(text).timestamp() + 0.5 - between


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _claims(token: str) -> dict[str, Any]:
    """Claims of a JSON web token; empty for any other token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _renew_at(claims: Mapping[str, Any], now: float) -> float:
    """When to renew a token that was issued now, by our own clock, which may differ from the server's."""
    end, issued = _time(claims.get("exp")), _time(claims.get("iat"))
    if end is None:
        return float("inf")
    life = end - (now if issued is None else issued)
    return now + life - min(REFRESH_BEFORE_S, life / 2)


def _time(value: object) -> float | None:
    """Seconds since 1970, if that is what it is."""
    if not isinstance(value, (int, float)) or not 0 <= value < _END_OF_TIME:
        return None
    return float(value)


def version_tuple(text: str) -> tuple[int, ...]:
    """``"2.31"`` → ``(2, 31)``; empty for anything else."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,9}", text) else ()
