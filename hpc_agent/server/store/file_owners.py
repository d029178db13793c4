"""Uploaders of files. The files themselves are in a folder next to the database."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.server.store.connection import StoreSession


@dataclass(frozen=True)
class Uploader:
    user: str
    task: str
    """The task whose credentials were used; empty for a user's."""


def uploader(db: StoreSession, name: str) -> Uploader | None:
    row = db.row("SELECT user, task FROM files WHERE name = ?", (name,))
    return None if row is None else Uploader(*row)


def record(db: StoreSession, name: str, by: Uploader) -> None:
    db.run("INSERT OR REPLACE INTO files (name, user, task) VALUES (?, ?, ?)", (name, by.user, by.task))


def forget(db: StoreSession, name: str) -> None:
    db.run("DELETE FROM files WHERE name = ?", (name,))
