"""Key pairs: whose they are, and which task's. Of a secret only its hash is kept."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from hpc_agent.server.store.connection import StoreSession


@dataclass(frozen=True)
class Credential:
    access_key: str
    secret_hash: str
    user: str
    task: str
    """The task that it was made for and ends with; empty for a user's key pair."""
    label: str
    created: str

    def proves(self, secret: str) -> bool:
        return hmac.compare_digest(self.secret_hash, hash_of(secret))


def hash_of(secret: str) -> str:
    """Secrets are long and random, so that one round of a plain hash keeps them."""
    return hashlib.sha256(secret.encode()).hexdigest()


_COLUMNS = "access_key, secret_hash, user, task, label, created"


def get(db: StoreSession, access_key: str) -> Credential | None:
    row = db.row(f"SELECT {_COLUMNS} FROM credentials WHERE access_key = ?", (access_key,))
    return None if row is None else Credential(*row)


def add(db: StoreSession, credential: Credential) -> None:
    """Add it, or replace the one of the same access key."""
    values = (
        credential.access_key,
        credential.secret_hash,
        credential.user,
        credential.task,
        credential.label,
        credential.created,
    )
    db.run(f"INSERT OR REPLACE INTO credentials ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)


def of_user(db: StoreSession, user: str) -> list[Credential]:
    """A user's key pairs, the oldest first; not those of tasks."""
    rows = db.rows(
        f"SELECT {_COLUMNS} FROM credentials WHERE user = ? AND task = '' ORDER BY created, access_key", (user,)
    )
    return [Credential(*row) for row in rows]


def of_label(db: StoreSession, label: str) -> list[Credential]:
    return [Credential(*row) for row in db.rows(f"SELECT {_COLUMNS} FROM credentials WHERE label = ?", (label,))]


def remove(db: StoreSession, access_key: str) -> int:
    return db.run("DELETE FROM credentials WHERE access_key = ?", (access_key,))


def remove_of_user(db: StoreSession, user: str) -> int:
    """All key pairs that act for the user, those of tasks too."""
    return db.run("DELETE FROM credentials WHERE user = ?", (user,))


def remove_of_task(db: StoreSession, task: str) -> int:
    return db.run("DELETE FROM credentials WHERE task = ?", (task,)) if task else 0


def end_with_task(db: StoreSession, task: str, time: str) -> None:
    """The task is deleted: from now on its credentials count as made at ``time``."""
    db.run("UPDATE credentials SET created = ? WHERE task = ? AND task != ''", (time, task))


def remove_ended(db: StoreSession, final: list[str], before: str) -> int:
    """Those of tasks that were deleted, or reached one of the ``final`` statuses, before a time."""
    marks = ", ".join("?" * len(final))
    return db.run(
        "DELETE FROM credentials WHERE task != '' AND created < ? AND NOT EXISTS (SELECT 1 FROM tasks"
        f" WHERE tasks.id = credentials.task AND NOT (tasks.status IN ({marks}) AND tasks.status_changed < ?))",
        (before, *final, before),
    )
