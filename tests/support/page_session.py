"""A browser's session with the embedded server's page, without a browser: its cookie and its forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType

import requests
from waiting import HANG_S


class PageSession:
    """Logged in with a key pair, as a person does it."""

    def __init__(self, url: str, access_key: str, secret_key: str) -> None:
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Accept"] = "text/html,*/*"
        answer = self.http.post(
            f"{url}/login",
            data={"access_key": access_key, "secret_key": secret_key, "next": "/projects"},
            allow_redirects=False,
            timeout=HANG_S,
        )
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/projects"
        self.form_token = re.findall(r'name="form_token" value="(\w+)"', self.get("/projects").text)[0]

    def __enter__(self) -> PageSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.http.get(self.url + path, headers=headers, timeout=HANG_S, allow_redirects=False)

    def post(
        self, path: str, form: Mapping[str, str | Sequence[str]], token: str | None = None, **headers: str
    ) -> requests.Response:
        """``token`` replaces the session's form token; headers are named with ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["X-Form-Token"] = self.form_token if token is None else token
        return self.http.post(self.url + path, data=dict(form), headers=sent, timeout=HANG_S, allow_redirects=False)
