"""Thread with an event loop of its own, for connections that are served while the program does other things."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_STOP_S = 5.0


class LoopThread:
    """Runs coroutines between its begin and its end, which cancels what still runs. A context manager."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(_STOP_S)
        except TimeoutError:
            return  # a file server that stalls keeps a thread of the loop; this one does not wait for it
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and return its result, or raise its error."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run it until it ends or is cancelled, or until this ends."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def closed(server: asyncio.Server) -> None:
    """Have a server take no more connections."""
    server.close()
