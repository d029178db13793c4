"""Places for work that waits or computes, shared out so that no user has them all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """``total`` places, of which one user has at most ``per_user`` at a time; a user without a name is one user."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Enter once there is a place for ``user``."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_free(user))
            self._taken[user] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[user] -= 1
                self._changed.notify_all()

    def _is_free(self, user: str) -> bool:
        return self._taken.total() < self._total and self._taken[user] < self._per_user
