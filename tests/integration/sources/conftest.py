"""Real repositories to fetch from, by path and over HTTP with a password."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import GitSettings
from hpc_agent.sources.store import SourceStore

AUTHOR = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]


@dataclass
class Repository:
    """A repository that a user works in and pushes nowhere: tasks fetch straight from it."""

    path: Path

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *arguments: str) -> str:
        argv = ["git", *AUTHOR, *arguments]
        return subprocess.run(argv, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str], message: str = "change") -> str:
        """Write files and commit them; returns the commit."""
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


@dataclass
class World:
    """``said`` collects what the store told the user."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def repository(self, name: str, files: dict[str, str] | None = None) -> Repository:
        repository = Repository(self.folder / "remotes" / name)
        repository.path.mkdir(parents=True)
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
        if files:
            repository.commit(files)
        return repository

    def store(self, git: GitSettings | None = None) -> SourceStore:
        return SourceStore(self.folder / "cache", git or GitSettings(), SYSTEM)

    def say(self, line: str) -> None:
        self.said.append(line)

    @property
    def mirrors(self) -> Path:
        return self.folder / "cache" / "vcs"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@dataclass
class HttpRemote:
    """git over HTTP for the repositories of a folder; ``password`` is asked for, ``asked`` counts the refusals."""

    url: str
    user: str = "researcher"
    password: str = "pa55 w@rd:/"
    asked: int = 0
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def http_remote(world: World) -> Iterator[HttpRemote]:
    """git's own http-backend behind a small server that wants a password."""
    remote = HttpRemote("")
    root = world.folder / "remotes"
    root.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            remote.requests.append(self.path)
            wanted = "Basic " + base64.b64encode(f"{remote.user}:{remote.password}".encode()).decode()
            if self.headers.get("Authorization") != wanted:
                remote.asked += 1
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            environ = {
                "PATH": "/usr/bin:/bin",
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "CONTENT_LENGTH": str(len(body)),
                "REMOTE_USER": remote.user,
            }
            answer = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=True)
            head, _, content = answer.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    remote.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield remote
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
