"""Rate limit of a scheduler's commands: a token bucket, so that one user's programs do not load a whole site."""

from __future__ import annotations

import threading

from hpc_agent.clock import Clock


class TokenBucket:
    """``rate`` tokens a second are added, up to ``burst``; a command takes one. Safe to share between threads."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        """``rate`` 0: no limit."""
        self._rate = rate
        self._burst = max(burst, 1)
        self._clock = clock
        self._tokens = float(self._burst)
        self._at = clock.monotonic()
        self._lock = threading.Lock()

    def available(self) -> int | None:
        """Commands that need not wait now; None: no limit."""
        if not self._rate:
            return None
        with self._lock:
            self._refill()
            return max(int(self._tokens), 0)

    def take(self) -> None:
        """Take a token, waiting for it where there is none; those who wait do so in the order in which they came."""
        if not self._rate:
            return
        with self._lock:
            self._refill()
            self._tokens -= 1
            wait = -self._tokens / self._rate
        if wait > 0:
            self._clock.sleep(wait)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst)
        self._at = now
