"""Real repositories to fetch from, and a store of their code."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.sources.source_store import SourceStore

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
class SourceSite:
    """``said`` collects the store's messages to the user."""

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
