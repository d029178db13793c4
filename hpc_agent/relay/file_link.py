"""Link through files on the shared file system, for nodes that reach not even the login node.

A connection is a folder that the node makes. In it are ``target``; ``taken``, made by the daemon that opens the
connection; ``answer``; and numbered pieces of what each side sends: ``up.<n>``, ``down.<n>``. An empty piece is the
end. Each file is written under another name and renamed, read once, and removed by its reader. Names are looked for by
listing the folder, which NFS answers truly at once (docs/internals/performance.md#nfs-visibility).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from hpc_agent.clock import SYSTEM
from hpc_agent.logs import EventLog
from hpc_agent.relay.relay_folder import RelayFolder
from hpc_agent.relay.stream import ByteStream, LinkError, pump
from hpc_agent.relay.target import RelayTarget, parse_target

log = EventLog("relay")

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
"""Between two looks for the next piece; longer while nothing comes."""
LOOK_S = 0.1
"""Between two looks of a daemon for new connections."""
ANSWER_S = 60.0
"""A daemon has taken a connection by then, or none runs."""
STALE_S = 3600.0
"""A folder that nothing was written to for so long is of a node or a daemon that died."""
AHEAD = 16
"""At each so many pieces the sender waits until those before them are read: there are twice as many at most."""
STALLED_S = 600.0
"""An end that has read nothing for so long has died."""

Open = Callable[[RelayTarget], Awaitable[ByteStream]]


class FileStream:
    """``ByteStream`` through a connection's folder. ``sends``: what its own pieces are called."""

    def __init__(self, folder: Path, *, sends: str, receives: str, owns: bool) -> None:
        """``owns``: the folder is removed with the stream."""
        self._folder = folder
        self._sends = sends
        self._receives = receives
        self._owns = owns
        self._sent = 0
        self._received = 0
        self._ended = False

    async def read(self) -> bytes:
        if self._ended:
            return b""
        name = f"{self._receives}.{self._received}"
        data = await _wait_for(self._folder, name)
        self._received += 1
        self._ended = not data
        return data

    async def write(self, data: bytes) -> None:
        if self._sent >= AHEAD and self._sent % AHEAD == 0:
            try:
                await asyncio.wait_for(_until(lambda: self._is_read(self._sent - AHEAD)), STALLED_S)
            except asyncio.TimeoutError as error:
                raise ConnectionError("the other end of the relay's connection reads no more") from error
        await self._put(data)

    async def _put(self, data: bytes) -> None:
        await asyncio.to_thread(_put, self._folder, f"{self._sends}.{self._sent}", data)
        self._sent += 1

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            await self._put(b"")
        if self._owns:
            # The other end may not have read the last piece yet, unless it closed too: then it reads no more.
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(_until(lambda: self._is_read(self._sent - 1) or self._is_closed()), ANSWER_S)
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _is_read(self, piece: int) -> bool:
        return f"{self._sends}.{piece}" not in _names(self._folder)

    def _is_closed(self) -> bool:
        """Whether the other end has closed; its last piece is empty, and may come after others that are never read."""
        pieces = [name for name in _names(self._folder) if name.startswith(f"{self._receives}.")]
        return self._ended or any((self._folder / name).stat().st_size == 0 for name in pieces)


async def connect(folder: RelayFolder, target: RelayTarget) -> ByteStream:
    """The node's end.

    Raises:
        LinkError: no daemon took the connection, or it cannot be had.
    """
    path = folder.connections / secrets.token_hex(8)
    try:
        await asyncio.to_thread(_begin, path, target)
        answer = await asyncio.wait_for(_wait_for(path, "answer"), ANSWER_S)
    except asyncio.TimeoutError as error:
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        raise LinkError("no daemon relays connections through files; is it running?") from error
    except OSError as error:
        raise LinkError(f"the folder of the relay, {folder.connections}, cannot be used: {error.strerror}") from error
    word, _, why = answer.decode().partition(" ")
    if word != "OK":
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        raise LinkError(why, refused=word == "NO")
    return FileStream(path, sends="up", receives="down", owns=False)


class FileRelay:
    """The daemon's end: takes the connections that nodes begin. ``open_target`` raises LinkError."""

    def __init__(self, folder: RelayFolder, open_target: Open) -> None:
        self._folder = folder.connections
        self._open = open_target
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()
        self._swept_at = float("-inf")

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                for path in await asyncio.to_thread(self._new):
                    task = asyncio.create_task(self._serve(path))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            except OSError as error:
                log.warning("relay.folder_unreadable", folder=self._folder, error=error)
            await asyncio.sleep(LOOK_S)

    def _new(self) -> list[Path]:
        """Connections that are ours from now on."""
        names = {name for name in _names(self._folder) if not name.startswith(".")}
        self._seen &= names
        found = []
        for name in sorted(names - self._seen):
            self._seen.add(name)
            path = self._folder / name
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                # Of several daemons one makes it.
                (path / "taken").mkdir()
                found.append(path)
        if SYSTEM.monotonic() - self._swept_at > STALE_S:
            self._swept_at = SYSTEM.monotonic()
            _sweep(self._folder)
        return found

    async def _serve(self, path: Path) -> None:
        try:
            name = (await asyncio.wait_for(_wait_for(path, "target"), ANSWER_S)).decode()
            target = parse_target(name)
            if target is None:
                raise LinkError(f"{name} is not host:port", refused=True)
            outside = await self._open(target)
        except LinkError as error:
            word = "NO" if error.refused else "LATER"
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_put, path, "answer", f"{word} {error}".encode())
            return
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            log.debug("relay.connection_failed", error=error)
            return
        try:
            await asyncio.to_thread(_put, path, "answer", b"OK")
        except OSError:
            await outside.close()
            return
        await pump(FileStream(path, sends="down", receives="up", owns=True), outside)


def _begin(path: Path, target: RelayTarget) -> None:
    """The folder gets its name when all is in it."""
    draft = path.with_name(f".{path.name}")
    draft.mkdir(mode=0o700)
    _put(draft, "target", str(target).encode())
    draft.rename(path)


def _put(folder: Path, name: str, data: bytes) -> None:
    draft = folder / f".{name}"
    draft.write_bytes(data)
    draft.rename(folder / name)


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _take(folder: Path, name: str) -> bytes | None:
    if name not in _names(folder):
        return None
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    return data


async def _wait_for(folder: Path, name: str) -> bytes:
    """The content of a file once it is there.

    Raises:
        OSError: the folder was removed: the other end has closed the connection.
    """
    pause = FIRST_PAUSE_S
    while (data := await asyncio.to_thread(_take, folder, name)) is None:
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST_PAUSE_S)
    return data


async def _until(is_so: Callable[[], bool]) -> None:
    """Until ``is_so``, which looks at files, is true."""
    pause = FIRST_PAUSE_S
    while not await asyncio.to_thread(is_so):
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, LONGEST_PAUSE_S)


def _sweep(folder: Path) -> None:
    now = SYSTEM.now().timestamp()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)
