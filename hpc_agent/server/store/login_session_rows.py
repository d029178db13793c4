"""Sessions of the web page. The database has a hash of each cookie, so that a copy of it opens no session."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.key_store import hash_of


@dataclass(frozen=True)
class SessionRow:
    """``access_key``: the key pair that was typed at the login; ``expires``: ISO 8601, UTC."""

    access_key: str
    user: str
    expires: str


def add(db: StoreSession, cookie: str, session: SessionRow) -> None:
    db.run(
        "INSERT INTO sessions (cookie_hash, access_key, user, expires) VALUES (?, ?, ?, ?)",
        (hash_of(cookie), session.access_key, session.user, session.expires),
    )


def get(db: StoreSession, cookie: str) -> SessionRow | None:
    row = db.row("SELECT access_key, user, expires FROM sessions WHERE cookie_hash = ?", (hash_of(cookie),))
    return None if row is None else SessionRow(*row)


def remove(db: StoreSession, cookie: str) -> int:
    return db.run("DELETE FROM sessions WHERE cookie_hash = ?", (hash_of(cookie),))


def remove_expired(db: StoreSession, now: str) -> int:
    return db.run("DELETE FROM sessions WHERE expires <= ?", (now,))
