"""One conversation with a ClearML API server: login, token, envelope, retries.

See docs/internals/clearml-protocol.md#login.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import requests
import urllib3
from urllib3.exceptions import InsecureRequestWarning, MaxRetryError, NewConnectionError, ReadTimeoutError

from hpc_agent import __version__
from hpc_agent.api.answer import LARGEST_BYTES, TooLargeError, body_of, encoded, object_in, whole
from hpc_agent.api.transport import BoundedAdapter
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.settings import ApiSettings
from hpc_agent.errors import ApiError, AuthError, ConfigError, NotFoundError, ServerUnreachableError
from hpc_agent.redact import Secret, without_credentials
from hpc_agent.request_counts import COUNTS
from hpc_agent.retry import ROUTINE, Budget, retry
from hpc_agent.wire.error_kinds import BODY_TOO_LARGE

API_VERSION = "2.14"
"""Asked for in every call: old enough for every server in use, new enough for all that we send."""

REFRESH_BEFORE_S = 600
"""A token is renewed when less of its life is left, or when half of a shorter life is over."""

_TEMPORARY = frozenset({429, 500, 502, 503, 504, 509})
_NOT_FOUND = frozenset({101, 201, 401, 701})
_WRONG_SERVER = "is api.api_server the API server (port 8008, or api.…) and not the web page?"
PATIENCE = (10.0, 60.0)  # connect, read
_LONGEST_WORDS = 4000
_END_OF_TIME = 1e12


class ApiSession:
    """Calls endpoints by name. Safe to share between threads."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        clock: Clock = SYSTEM,
        budget: Budget = ROUTINE,
        patience: tuple[float, float] = PATIENCE,
    ) -> None:
        """``budget`` holds for calls that name none; ``patience``: seconds for a connection, and for a piece of an
        answer, which as a whole may take five times as long.

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
        self._patience = patience
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

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
        version: str = API_VERSION,
    ) -> dict[str, Any]:
        """Call ``service.action`` and return the answer's ``data``.

        ``repeatable`` says that doing it twice is as good as once; other calls are tried again only where the
        request certainly did not arrive.

        Raises:
            ApiError: the server refused (NotFoundError, AuthError where that is why).
            ServerUnreachableError: no usable answer within the budget.
        """
        body = encoded(payload or {})
        return self._call(endpoint, body, "application/json", budget or self._budget, repeatable, version)

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        """As ``call`` with a body of one JSON object a line (``events.add_batch``), which is not repeatable."""
        body = b"\n".join(encoded(item) for item in items)
        return self._call(endpoint, body, "application/json-lines", budget, False, API_VERSION)

    def login(self) -> None:
        """Get a token now, so that wrong credentials show at the start.

        Raises:
            AuthError, ServerUnreachableError: as for ``call``.
        """
        retry(lambda: self._login(""), self._budget, self._clock)

    def token_of(self, user: str, seconds: int) -> tuple[Secret, Mapping[str, Any]]:
        """A token of another user, valid for so many seconds where the server allows it, and what it says of itself.

        Raises:
            ApiError: we are no administrator, there is no such user, or the server does not do this.
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
        """What our own token says of us and of the server."""
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
                timeout=PATIENCE,
                verify=self.settings.verify_certificate,
                allow_redirects=False,
                stream=True,
            )
            said = body_of(response)
        except (requests.RequestException, TooLargeError) as error:
            raise ServerUnreachableError(
                f"the file server at {without_credentials(server)} took no file: {_cause(error)}; "
                "check api.files_server"
            ) from error
        if response.status_code != 200:
            raise ApiError("the upload", response.status_code, 0, said[:200].decode("utf-8", "replace").strip())

    @property
    def server_version(self) -> tuple[int, ...]:
        """The newest API version that the server speaks (``(2, 31)``), as its token says; empty when it says none."""
        self._current_token()
        return self._server_version

    def _call(
        self, endpoint: str, body: bytes, content_type: str, budget: Budget, repeatable: bool, version: str
    ) -> dict[str, Any]:
        path = f"v{version}/{endpoint}"

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
                raise ConfigError(f"{settings.api_server} knows no login; {_WRONG_SERVER}") from error
            token = data.get("token")
            if not isinstance(token, str):
                raise ConfigError(f"{settings.api_server} answered the login without a token; {_WRONG_SERVER}")
            self._token = token
            claims = _claims(token)
            self._renew_at = _renew_at(claims, self._clock.now().timestamp())
            self._server_version = version_tuple(str(claims.get("api_version") or ""))

    def _credentials(self) -> str:
        """The header that logs us in."""
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
                timeout=self._patience,
                # The session's own setting is weaker than REQUESTS_CA_BUNDLE.
                verify=self.settings.verify_certificate,
                allow_redirects=False,
                stream=True,
            )
            answer = body_of(response)
        except TooLargeError as error:
            raise ServerUnreachableError(
                f"the answer of {where} to {endpoint} is larger than {LARGEST_BYTES >> 20} MiB and was not read; is it "
                "the API server?"
            ) from error
        except requests.exceptions.SSLError as error:
            raise ConfigError(
                f"the certificate of {where} was not accepted ({_cause(error)}); "
                "set api.verify_certificate to your CA bundle"
            ) from error
        except (requests.ConnectTimeout, requests.ConnectionError) as error:
            if _is_slow(error):
                raise ServerUnreachableError(
                    f"the ClearML server at {where} began to answer {endpoint} and did not come to an end in time; "
                    "check what stands between it and us"
                ) from error
            raise ServerUnreachableError(
                f"the ClearML server at {where} cannot be reached for {endpoint}: {_cause(error)}; "
                "check api.api_server and the network",
                uncertain=not _never_connected(error),
            ) from error
        except requests.RequestException as error:
            raise ServerUnreachableError(
                f"the ClearML server at {where} gave no answer to {endpoint}: {_cause(error)}"
            ) from error
        return _data(response, answer, endpoint, where)


def _data(response: requests.Response, body: bytes, endpoint: str, where: str) -> dict[str, Any]:
    """The ``data`` of a good answer; everything else is an error."""
    meta, data = _envelope(body)
    if response.status_code == BODY_TOO_LARGE.code:
        # Mostly a proxy's own page: whoever says so has read no more of it.
        raise ApiError(
            endpoint, response.status_code, 0, "the request is too large for it or for what stands before it"
        )
    if meta is None or response.status_code in _TEMPORARY:
        said = _words(meta) if meta else "something that is not ClearML's envelope"
        raise ServerUnreachableError(
            f"the ClearML server at {where} answered {endpoint} with HTTP {response.status_code}: {said}; "
            "is it the API server, and up?",
            # Too many requests: this one was turned away.
            uncertain=response.status_code != 429,
            retry_after=_retry_after(response),
        )
    if response.status_code == 200:
        return data
    code, subcode = response.status_code, whole(meta.get("result_subcode"))
    kind = AuthError if code in (401, 403) else NotFoundError if code == 400 and subcode in _NOT_FOUND else ApiError
    message = _words(meta)
    if kind is AuthError:
        message += f"; check the access key and secret for {where}"
    raise kind(endpoint, code, subcode, message)


def _envelope(body: bytes) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    answer = object_in(body)
    if answer is None or not isinstance(answer.get("meta"), dict):
        return None, {}
    data = answer.get("data")
    return answer["meta"], data if isinstance(data, dict) else {}


def _words(meta: Mapping[str, Any]) -> str:
    """The server's own, as part of a sentence of ours."""
    return str(meta.get("result_msg") or "no reason given")[:_LONGEST_WORDS]


def _retry_after(response: requests.Response) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), 300.0) if math.isfinite(seconds) else 0.0


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _never_connected(error: requests.RequestException) -> bool:
    """Whether the request cannot have reached a server: no connection was made for it."""
    reason = error.args[0] if error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


def _is_slow(error: requests.RequestException) -> bool:
    """Whether the body of an answer did not come in time."""
    return bool(error.args) and isinstance(error.args[0], ReadTimeoutError)


def _cause(error: BaseException) -> str:
    """The innermost reason, without urllib3's wrapping."""
    text = str(error)
    for mark in ("[Errno", "Read timed out", "Remote end closed", "Name or service"):
        if mark in text:
            found = text[text.index(mark) :].rstrip(")'\"")
            return found.split("] ", 1)[-1] if mark == "[Errno" else found
    return text.split(": ", 1)[-1] if len(text) > 200 else text


def _claims(token: str) -> dict[str, Any]:
    """What a token says of itself; nothing for one that is no JWT."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _renew_at(claims: Mapping[str, Any], now: float) -> float:
    """When a token that was given out now is to be renewed, by our own clock, which may differ from the server's."""
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
