"""The file server: one upload. A file is never held in memory as a whole.

See docs/internals/clearml-protocol.md#file-server.
"""

from __future__ import annotations

import io
import secrets
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from hpc_agent.api.session import ApiSession


class FilesApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def url(self, path: str) -> str:
        """Where a file that is stored under ``path`` (``project/task.id/artifacts/…``) is read."""
        return f"{self._session.settings.files_server}/{quote(path)}"

    def upload(self, file: Path, path: str) -> str:
        """Store ``file`` under ``path``; returns its URL.

        Raises:
            ApiError, ServerUnreachableError: it was not stored.
        """
        boundary = secrets.token_hex(16)
        name = path.replace("\\", "\\\\").replace('"', "%22")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        with file.open("rb") as content:
            body = _Form(head.encode(), content, f"\r\n--{boundary}--\r\n".encode())
            self._session.post_file(body, f"multipart/form-data; boundary={boundary}")
        return self.url(path)


class _Form(io.RawIOBase):
    """Head, file and end of a form, read one after the other; the length goes into Content-Length."""

    def __init__(self, head: bytes, content: BinaryIO, end: bytes) -> None:
        self._length = len(head) + content.seek(0, io.SEEK_END) + len(end)
        content.seek(0)
        self._parts: list[BinaryIO] = [io.BytesIO(head), content, io.BytesIO(end)]

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while self._parts:
            if data := self._parts[0].read(size):
                return data
            del self._parts[0]
        return b""
