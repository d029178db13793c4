"""A plain HTTP client for the embedded server: what is tested is on the wire, not in a client library."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a server's URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None, url
    return parts.hostname, parts.port


@dataclass(frozen=True)
class Answered:
    """An answer of the API: HTTP status, the envelope's meta and data."""

    status: int
    meta: dict[str, Any]
    data: dict[str, Any]

    @property
    def code(self) -> str:
        """``400/701``"""
        return f"{self.meta['result_code']}/{self.meta['result_subcode']}"


class Api:
    """Calls actions with a token. ``api("tasks.create", name=…)`` asserts success and returns the data."""

    def __init__(self, url: str, conf: Path) -> None:
        self.url = url
        text = conf.read_text(encoding="utf-8")
        self.access = re.findall(r'access_key" = "(.*)"', text)[0]
        self.secret = re.findall(r'secret_key" = "(.*)"', text)[0]
        self.http = requests.Session()
        self.http.trust_env = False
        answer = self.http.get(f"{url}/auth.login", headers={"Authorization": self.basic(self.access, self.secret)})
        self.token = answer.json()["data"]["token"]
        self.headers = {"Authorization": f"Bearer {self.token}"}

    @staticmethod
    def basic(access: str, secret: str) -> str:
        return "Basic " + base64.b64encode(f"{access}:{secret}".encode()).decode()

    def __call__(self, action: str, **fields: Any) -> dict[str, Any]:
        answer = self.ask(action, fields)
        assert answer.status == 200, answer.meta
        return answer.data

    def ask(self, action: str, fields: Any = None, method: str = "POST") -> Answered:
        """As the call, without the assertion. ``fields`` is any JSON, or bytes for the body as it is."""
        data, json = (fields, None) if isinstance(fields, bytes) else (None, fields)
        url = f"{self.url}/{action}"
        return self.parsed(self.http.request(method, url, headers=self.headers, timeout=30, data=data, json=json))

    def raw(self, path: str, method: str = "GET", **options: Any) -> requests.Response:
        """Any request, with the token unless ``headers`` say otherwise."""
        return self.http.request(method, self.url + path, timeout=30, **{"headers": self.headers, **options})

    @staticmethod
    def parsed(answer: requests.Response) -> Answered:
        envelope = answer.json()
        assert envelope["meta"]["result_code"] == answer.status_code
        return Answered(answer.status_code, envelope["meta"], envelope["data"])

    def task(self, name: str = "a task", **fields: Any) -> str:
        """A new draft's id."""
        return str(self("tasks.create", name=name, type="training", **fields)["id"])

    def status(self, task: str) -> str:
        return str(self("tasks.get_by_id", task=task)["task"]["status"])
