"""The folder that a conda environment is made for, written into its files, and rewritten where it is unpacked.

conda-pack does the same for environments that are moved by hand. Files of text can be given any folder; in programs and
libraries a name can only become shorter, so that environments are built in a folder with a long name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.struct_types import decodable

LENGTH = 220
"""Characters of a build folder's name. Packages have room for 255; a node's own folders are shorter."""
_RECORD = "conda-meta/hpc-agent-prefix.json"
_LARGEST_TEXT = 32 << 20

Mode = Literal["text", "binary"]


class PrefixRecord(msgspec.Struct, frozen=True):
    """``prefix``: the folder that the files were made for. ``files``: relative path → how it is written there."""

    prefix: str = ""
    files: Mapping[str, Mode] = msgspec.field(default_factory=dict)


def build_folder(work: Path) -> Path:
    """A new path below ``work`` of the length that environments are built at; its parent is made."""
    missing = LENGTH - len(str(work)) - len("//env")
    parent = work / ("p" * max(1, missing))
    parent.mkdir()
    return parent / "env"


def write_record(root: Path) -> None:
    """Note which files of a new environment name its folder."""
    prefix = str(root)
    files: dict[str, Mode] = dict.fromkeys(_binaries(root), "binary")
    files |= {path: "text" for path in _texts(root, prefix.encode()) if path not in files}
    (root / _RECORD).write_bytes(msgspec.json.encode(PrefixRecord(prefix, dict(sorted(files.items())))))


def relocate(root: Path, target: Path) -> dict[str, int]:
    """Let the files below ``root`` name ``target``, where they will be. Returns the sizes of those that can change
    theirs.

    Files that name it already, and environments of other kinds, are left as they are.

    Raises:
        EnvironmentBuildError: the name of ``target`` is too long.
        OSError: a file cannot be written.
    """
    record = _read(root)
    if record is None:
        return {}
    old, new = os.fsencode(record.prefix), os.fsencode(target)
    if len(new) > len(old) and "binary" in record.files.values():
        raise EnvironmentBuildError(
            f"the environment cannot be used at {target}: programs in it have room for {len(old)} characters, and this "
            f"has {len(new)}; set hpc.scratch_dir to a folder with a shorter name"
        )
    sizes: dict[str, int] = {}
    for path, mode in record.files.items():
        file = root / path
        if not file.is_file():
            continue
        content = file.read_bytes()
        if old in content:
            content = content.replace(old, new) if mode == "text" else replaced(content, old, new)
            write_in_place(file, content)
        if mode == "text":
            sizes[path] = len(content)
    return sizes


def write_in_place(path: Path, content: bytes) -> None:
    """Another content for a file that may be read-only; its folder keeps its time."""
    allowed = path.stat().st_mode
    path.chmod(allowed | 0o200)
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    path.chmod(allowed)


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """``content`` of the same length with ``new`` in each text that ends in a NUL, which are filled up with NULs."""

    def shorter(match: re.Match[bytes]) -> bytes:
        text = match[0].replace(old, new)
        return text + b"\0" * (len(match[0]) - len(text))

    return re.sub(re.escape(old) + rb"[^\0]*\0", shorter, content)


def _binaries(root: Path) -> Iterator[str]:
    """What conda itself has noted of files that are not text."""
    for file in sorted((root / "conda-meta").glob("*.json")):
        content = msgspec.json.decode(file.read_bytes())
        for entry in _paths(content):
            if entry.get("file_mode") == "binary" and entry.get("prefix_placeholder"):
                yield str(entry.get("_path"))


def _paths(content: Any) -> list[dict[str, Any]]:
    data = content.get("paths_data") if isinstance(content, dict) else None
    paths = data.get("paths") if isinstance(data, dict) else None
    return [entry for entry in paths if isinstance(entry, dict)] if isinstance(paths, list) else []


def _texts(root: Path, prefix: bytes, skipped: Collection[str] = (".pyc",)) -> Iterator[str]:
    """Files of text with the folder's name, those too that conda has not made (pip's programs). Byte-code
    has names in it that Python corrects by itself."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if path.suffix in skipped or path.is_symlink() or path.stat().st_size > _LARGEST_TEXT:
                continue
            content = path.read_bytes()
            if prefix in content and b"\0" not in content:
                yield str(path.relative_to(root))


def _read(root: Path) -> PrefixRecord | None:
    try:
        return msgspec.json.decode((root / _RECORD).read_bytes(), type=decodable(PrefixRecord))
    except FileNotFoundError:
        return None
