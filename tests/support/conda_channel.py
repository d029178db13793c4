"""A conda channel in a folder: real packages (.conda) that name the folder they are installed to, and a Python.

``program`` gives a command that stands for micromamba or conda: it resolves and installs with rattler, conda's own
formats throughout, and prints its answers in the form of the one or the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backports import zstd
from container_images import LEFT_OUT
from shared_cache import made_once

PLACEHOLDER = "/placehold" * 25
VERSION = ".".join(map(str, sys.version_info[:3]))
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
PROGRAM = Path(__file__).with_name("conda_standin.py")


@dataclass(frozen=True)
class CondaFile:
    """``mode``: ``text`` or ``binary`` if it has ``PLACEHOLDER`` in it."""

    content: bytes
    mode: str = ""
    executable: bool = False


@dataclass
class Channel:
    folder: Path
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.folder.as_uri()

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, CondaFile | Path],
        depends: Sequence[str] = (),
        build: str = "0",
    ) -> None:
        """A package; a ``Path`` is a file of this machine."""
        index = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "depends": list(depends),
            "subdir": "linux-64",
            "timestamp": 1700000000000,
        }
        paths = []
        for path, file in files.items():
            content = file.read_bytes() if isinstance(file, Path) else file.content
            entry = {
                "_path": path,
                "path_type": "hardlink",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_in_bytes": len(content),
            }
            if isinstance(file, CondaFile) and file.mode:
                entry |= {"file_mode": file.mode, "prefix_placeholder": PLACEHOLDER}
            paths.append(entry)
        info = {
            "info/index.json": CondaFile(json.dumps(index).encode()),
            "info/paths.json": CondaFile(json.dumps({"paths": paths, "paths_version": 1}).encode()),
            "info/files": CondaFile("".join(f"{path}\n" for path in files).encode()),
        }
        target = self.folder / "linux-64" / f"{name}-{version}-{build}.conda"
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as package:
            package.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
            package.writestr(f"info-{target.stem}.tar.zst", _packed(info))
            package.writestr(f"pkg-{target.stem}.tar.zst", _packed(files))

    def add_python(self) -> None:
        """This interpreter, whose folder it finds from its own place."""
        prefix = Path(sys.base_prefix)
        library = prefix / "lib" / f"python{MINOR}"
        left_out = shutil.ignore_patterns(*LEFT_OUT, "ensurepip", "lib2to3", "tkinter", "pydoc_data", "unittest")
        files: dict[str, CondaFile | Path] = {}
        pending = [library]
        while pending:
            folder = pending.pop()
            names = [path.name for path in folder.iterdir()]
            for name in sorted(set(names) - set(left_out(str(folder), names))):
                path = folder / name
                if path.is_dir():
                    pending.append(path)
                else:
                    files[f"lib/python{MINOR}/{path.relative_to(library)}"] = path
        files[f"lib/python{MINOR}/site-packages/README.txt"] = CondaFile(b"")
        program = (prefix / "bin" / f"python{MINOR}").read_bytes()
        files |= {f"bin/{name}": CondaFile(program, executable=True) for name in ("python", f"python{MINOR}")}
        files |= {f"lib/{path.name}": path for path in (prefix / "lib").glob("libpython*.so*") if path.is_file()}
        self.add("python", VERSION, files)

    def add_module(self, name: str, version: str, depends: Sequence[str] = ()) -> None:
        """A module with a program that starts with the environment's interpreter, a text and a binary file that name
        the environment's folder, and a script for its activation."""
        info = f"lib/python{MINOR}/site-packages/{name}-{version}.dist-info"
        script = f"#!{PLACEHOLDER}/bin/python\nimport {name}; print({name}.VERSION)\n"
        data = b"\x7fELF" + f"{PLACEHOLDER}/share/{name}".encode() + b"\0end\0"
        self.add(
            name,
            version,
            {
                f"lib/python{MINOR}/site-packages/{name}.py": CondaFile(f"VERSION = {version!r}\n".encode()),
                f"{info}/METADATA": CondaFile(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
                f"{info}/RECORD": CondaFile(b""),
                f"bin/{name}": CondaFile(script.encode(), "text", executable=True),
                f"etc/{name}.conf": CondaFile(f"home = {PLACEHOLDER}/share\n".encode(), "text"),
                f"lib/{name}.so": CondaFile(data, "binary"),
                f"etc/conda/activate.d/{name}.sh": CondaFile(
                    f'export {name.upper()}_HOME="$CONDA_PREFIX/share/{name}"\n'.encode()
                ),
            },
            ("python", *depends),
        )

    def index(self) -> None:
        from rattler.index import index_fs

        (self.folder / "noarch").mkdir(exist_ok=True)
        asyncio.run(index_fs(self.folder, write_zst=False, write_shards=False, force=True))


def _packed(files: Mapping[str, CondaFile | Path]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, file in files.items():
            content = file.read_bytes() if isinstance(file, Path) else file.content
            member = tarfile.TarInfo(path)
            member.size = len(content)
            executable = file.executable if isinstance(file, CondaFile) else file.suffix == ".so"
            member.mode = 0o755 if executable else 0o644
            tar.addfile(member, io.BytesIO(content))
    return zstd.compress(packed.getvalue(), 1)


def channel() -> Channel:
    """A channel with Python, ``alpha`` 1.0 and 2.0, and ``beta`` 1.0, which wants alpha below 2. Made once."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:12]
    return Channel(made_once(f"conda-{recipe}", _fill))


def _fill(folder: Path) -> None:
    making = Channel(folder)
    making.add_python()
    making.add_module("alpha", "1.0")
    making.add_module("alpha", "2.0")
    making.add_module("beta", "1.0", ("alpha <2",))
    making.index()


def program(folder: Path, form: str = "micromamba") -> Path:
    """The command under the name of the program whose form its answers have. ``calls`` next to it has their words."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / form
    path.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\nexec {sys.executable} {PROGRAM} {form} {folder} "$@"\n')
    path.chmod(0o755)
    return path


def calls(conda_program: Path) -> list[str]:
    path = conda_program.with_name("calls")
    return path.read_text().splitlines() if path.exists() else []


def run(*argv: str | Path) -> str:
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True).stdout
