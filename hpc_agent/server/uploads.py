"""The folder of uploaded files. No name that a client sends leads out of it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hpc_agent.file_records import ensure_directory, fsync_directory
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.quota import Quota, UploadLimits, UploadStream
from hpc_agent.wire.error_kinds import INTERNAL_ERROR, STORAGE_FULL, ErrorKind

NO_SUCH_FILE = ErrorKind(404, 0, "There is no such file")
_LONGEST_HEADER = 16 * 1024
_MOST_FILES = 1000


class Uploads:
    """``files/`` holds what was uploaded, ``incoming/`` what is still coming, on the same file system."""

    def __init__(self, folder: Path, limits: UploadLimits) -> None:
        self._files = ensure_directory(folder / "files", mode=0o700).resolve()
        self._incoming = ensure_directory(folder / "incoming", mode=0o700)
        # Left by a server that was killed in the middle of an upload; its client will send it again.
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self.quota = Quota(self._files, limits)

    def locate(self, name: str) -> Path:
        """Where the file called ``name`` (parts between slashes, decoded) is or would be.

        Raises:
            ApiFault: 400/12, the name leads out of the folder or cannot be a file's name.
        """
        parts = name.strip("/").split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > 255 for part in parts):
            raise invalid("this cannot be a file's name", path=name[:200])
        path = self._files.joinpath(*parts)
        try:
            # Links are followed only inside of the folder; only the user can have made one.
            if path.resolve().is_relative_to(self._files):
                return path
        except (OSError, RuntimeError) as error:
            raise invalid(f"this cannot be a file's name ({error})", path=name[:200]) from None
        raise invalid("this path leads out of the folder", path=name[:200])

    def existing(self, name: str) -> Path:
        """
        Raises:
            ApiFault: 404, or 400/12 as in ``locate``.
        """
        path = self.locate(name)
        if not path.is_file():
            raise ApiFault(NO_SUCH_FILE, path=name[:200])
        return path

    def delete(self, name: str) -> None:
        """Remove the file and the folders that are empty without it.

        Raises:
            ApiFault: 404, or 400/12 as in ``locate``.
        """
        path = self.existing(name)
        size = path.stat().st_size
        path.unlink()
        self.quota.release(size)
        for folder in path.parents:
            if folder == self._files:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def incoming(self) -> Path:
        """A name for a file that is on its way."""
        return self._incoming / secrets.token_hex(16)

    def publish(self, temporary: Path, name: str, incoming: UploadStream) -> None:
        """Give a complete file its name, replacing an older one.

        Raises:
            ApiFault: 400/12 as in ``locate``, or a part of the name is a file already.
        """
        path = self.locate(name)
        try:
            ensure_directory(path.parent, mode=0o700)
            replaced = path.stat().st_size if path.is_file() else 0
            temporary.rename(path)
        except OSError as error:
            in_the_way = self._file_for_a_folder(name)
            reason = f"{in_the_way[:200]} is a file, not a folder" if in_the_way else error.strerror
            raise invalid(f"the file cannot be stored ({reason})", path=name[:200]) from None
        incoming.keep(replaced)
        fsync_directory(path.parent)

    def _file_for_a_folder(self, name: str) -> str:
        """The part of ``name`` that would be a folder and is a file; empty when there is none."""
        parts = name.split("/")
        leading = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return next((part for part in leading if self._files.joinpath(part).is_file()), "")


class Storing(Protocol):
    """Permission of one client to store files."""

    def check(self, name: str) -> None:
        """
        Raises:
            ApiFault: this client may not store a file under this name.
        """

    def storing(self, name: str) -> AbstractContextManager[None]:
        """Around the moment in which the file gets its name: checked again, for it may have come since, or the client's
        key have gone.

        Raises:
            ApiFault: as for ``check``.
        """


class Receiver:
    """Takes a multipart body piece by piece and stores each part under its field name; memory stays small.

    Use as a context manager: what is not complete at the end is removed.
    """

    def __init__(self, uploads: Uploads, content_type: str, access: Storing) -> None:
        """
        Raises:
            ApiFault: 400/12, the content type is not multipart with a boundary.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise invalid("an upload is multipart/form-data with a boundary")
        self._uploads = uploads
        self._access = access
        self._size = ExitStack()
        self._incoming: UploadStream | None = None
        self._header_name = b""
        self._header_value = b""
        self._name = ""
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        self.stored: list[str] = []
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise invalid(f"the upload cannot be read ({error})") from None

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._size.close()

    def write(self, data: bytes) -> None:
        """
        Raises:
            ApiFault: 400/12, not a multipart body, or a part with an impossible name.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise invalid(f"the upload is not well formed ({error})") from None
        except OSError as error:
            kind = STORAGE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else INTERNAL_ERROR
            raise ApiFault(kind, f"the file cannot be stored ({error.strerror})") from error

    def finish(self) -> list[str]:
        """The names stored, once the whole body was written.

        Raises:
            ApiFault: 400/12, the body ended too early, or held no file.
        """
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise invalid(f"the upload is not complete ({error})") from None
        if self._file is not None or not self.stored:
            raise invalid("the upload holds no complete file")
        return self.stored

    def _begin(self) -> None:
        self._name = ""
        self._header_name, self._header_value = b"", b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._bounded(self._header_name)

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._bounded(self._header_value)

    def _bounded(self, header: bytes) -> None:
        if len(header) > _LONGEST_HEADER:
            raise invalid("a header of the upload is too long")

    def _header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._name = _decoded(options.get(b"name", b"")).strip("/")
        self._header_name, self._header_value = b"", b""

    def _open(self) -> None:
        if len(self.stored) >= _MOST_FILES:
            raise invalid(f"an upload may have {_MOST_FILES} files")
        self._uploads.locate(self._name)
        self._access.check(self._name)
        self._incoming = self._size.enter_context(self._uploads.quota.incoming())
        self._path = self._uploads.incoming()
        self._file = self._path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        assert self._incoming is not None
        self._incoming.grow(end - start)
        self._file.write(memoryview(data)[start:end])

    def _end(self) -> None:
        assert self._file is not None
        assert self._path is not None
        assert self._incoming is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        with self._access.storing(self._name):
            self._uploads.publish(self._path, self._name, self._incoming)
        self._size.close()
        self._path = None
        self.stored.append(self._name)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise invalid("a file's name must be UTF-8") from None
