"""A running server with two members, a task and its job: what the cases of the door ``http`` attack."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

TIMEOUT = 10.0
"""Seconds after which an answer that did not come counts as a server that was stopped."""
FILE_MIB, STORAGE_MIB = 1, 4

Headers = dict[str, str]


@dataclass(frozen=True)
class Keys:
    access: str
    secret: str


class Server:
    """The server under attack, spoken to by plain HTTP."""

    def __init__(self, url: str, data: Path) -> None:
        self.url = url
        self.data = data
        self.session = requests.Session()
        self.session.trust_env = False
        conf = (data / "clearml.conf").read_text()
        self.admin_keys = Keys(*re.findall(r'_key" = "(.*)"', conf))
        self.admin = self.login(self.admin_keys)
        self.alice_keys, self.mallory_keys = self.member("alice"), self.member("mallory")
        self.alice, self.mallory = self.login(self.alice_keys), self.login(self.mallory_keys)
        self.task = self.new_task(self.alice)
        self.model = self.must("models.create", {"name": "net", "uri": "u"}, self.alice)["id"]
        self.project = self.must("projects.create", {"name": "alice's"}, self.alice)["id"]
        self.queue = self.must("queues.create", {"name": "alice's"}, self.alice)["id"]
        self.must("workers.register", {"worker": "alice's"}, self.alice)
        self.must("tasks.enqueue", {"task": self.task, "queue": self.queue}, self.alice)
        # A job of another task of hers: its credentials were stolen.
        self.stolen = self.login(self.job_keys(self.new_task(self.alice)))
        self.upload("alice/file", b"hers", self.alice)

    def send(self, method: str, path: str, headers: Headers | None = None, **options: Any) -> requests.Response:
        return self.session.request(
            method, self.url + path, headers=headers or {}, timeout=TIMEOUT, allow_redirects=False, **options
        )

    def call(self, action: str, fields: Any, headers: Headers | None = None) -> requests.Response:
        body = {"data": fields} if isinstance(fields, bytes) else {"json": fields}
        return self.send("POST", f"/{action}", headers, **body)

    def must(self, action: str, fields: Any, headers: Headers) -> dict[str, Any]:
        """A call that makes a part of this world."""
        answer = self.call(action, fields, headers)
        if answer.status_code != 200:
            raise RuntimeError(f"{action}: {answer.text[:300]}")
        return dict(answer.json()["data"])

    def login(self, keys: Keys, seconds: int | None = None) -> Headers:
        answer = self.send(
            "POST", "/auth.login", auth=(keys.access, keys.secret), json={"expiration_sec": seconds} if seconds else {}
        )
        return {"Authorization": f"Bearer {answer.json()['data']['token']}"}

    def member(self, name: str) -> Keys:
        user = self.must("auth.create_user", {"name": name}, self.admin)["id"]
        return self._keys("auth.create_credentials", {"user": user})

    def job_keys(self, task: str) -> Keys:
        return self._keys("auth.create_task_credentials", {"task": task})

    def _keys(self, action: str, fields: dict[str, str]) -> Keys:
        pair = self.must(action, fields, self.admin)["credentials"]
        return Keys(pair["access_key"], pair["secret_key"])

    def new_task(self, headers: Headers, **fields: Any) -> str:
        return str(self.must("tasks.create", {"name": "task", "type": "training", **fields}, headers)["id"])

    def upload(self, name: str, content: bytes, headers: Headers) -> requests.Response:
        return self.send("POST", "/files", headers, files={name: (name, content)})

    def connect(self) -> socket.socket:
        where = urlsplit(self.url)
        return socket.create_connection((str(where.hostname), where.port or 80), timeout=TIMEOUT)

    def is_alive(self) -> bool:
        try:
            return self.call("tasks.get_all", {"id": [self.task]}, self.admin).status_code == 200
        except requests.RequestException:
            return False

    def outside(self) -> set[Path]:
        """Every file in and next to the data folder that no upload may make."""
        return {path for path in self.data.parent.rglob("*") if self.data / "files" not in (path, *path.parents)}


@contextmanager
def running() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="attacked-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        limits = ["--max-upload-mb", str(FILE_MIB), "--max-storage-mb", str(STORAGE_MIB)]
        argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(data), *limits]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_"))}
        process = subprocess.Popen(
            argv, env={**own, "HOME": folder}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None
            server = Server(process.stdout.readline().split()[-1], data)
            yield server
            server.session.close()
        finally:
            process.kill()
            process.communicate()
