"""PyTorch and Lightning for the tasks of tests, on the CPU: Debian 12's, 200 MB, where PyPI's takes gigabytes.

Fetched at the first call and kept in the cache of scripts/debian_packages.py (``checkpoint-torch``), for all who test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capabilities import missing
from debian_packages import PackagesError, cache_dir, locked, unpack

PYTHON = (3, 11)
"""The one that Debian 12 has built its PyTorch for."""
PACKAGES = (
    *("numpy==1.26.4", "pytorch-lightning==2.2.5", "torchmetrics==1.4.3", "lightning-utilities==0.11.9"),
    *("fsspec==2024.9.0", "tqdm==4.67.1", "packaging==24.2", "PyYAML==6.0.2", "typing_extensions==4.12.2"),
    "setuptools==70.3.0",
)
"""What Lightning needs, of versions that go with PyTorch 1.13."""
ACCELERATE = ("accelerate==0.20.3", "psutil==6.0.0")
"""Hugging Face Accelerate of the time of PyTorch 1.13 (later ones do not start its torchrun), and what it needs."""
_MODULES = ("torch", "torchgen", "functorch")
_OF_THE_MACHINE = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|stdc\+\+|gcc_s)\.so.*)")
_READY = "ready-2"
"""Another name whenever what is made changes."""
_VERSION = "1.13.1"


@dataclass(frozen=True)
class TorchSite:
    """A folder with both; nothing of it is installed."""

    dir: Path

    @property
    def python_path(self) -> Path:
        """For ``agent.extra_python_path``."""
        return self.dir / "site"

    @property
    def environment(self) -> Mapping[str, str]:
        """For the section ``environment`` of clearml.conf."""
        return {"LD_LIBRARY_PATH": str(self.dir / "lib")}


def torch_site() -> TorchSite:
    """The folder, made at the first call; ends the running test where it cannot be had."""
    if sys.version_info[:2] != PYTHON:
        missing("torch", f"Debian 12's PyTorch is for Python {PYTHON[0]}.{PYTHON[1]}")
    folder = cache_dir() / "checkpoint-torch"
    with locked(folder):
        if not (folder / _READY).exists():
            try:
                _make(folder)
            except (PackagesError, OSError, subprocess.CalledProcessError) as error:
                missing("torch", f"PyTorch could not be fetched: {error}")
    return TorchSite(folder)


def accelerate_path() -> Path:
    """A folder with Accelerate, for ``agent.extra_python_path`` next to PyTorch; made at the first call."""
    folder = cache_dir() / "accelerate-for-torch"
    with locked(folder):
        if not (folder / _READY).exists():
            shutil.rmtree(folder / "site", ignore_errors=True)
            try:
                _install(ACCELERATE, folder / "site")
            except (OSError, subprocess.CalledProcessError) as error:
                missing("torch", f"Accelerate could not be fetched: {error}")
            # It asks for the version of torch, of which the other folder has the modules only.
            metadata = folder / "site" / f"torch-{_VERSION}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {_VERSION}\n", encoding="utf-8")
            (folder / _READY).write_text(f"{ACCELERATE[0]}\n", encoding="utf-8")
    return folder / "site"


def _install(packages: Sequence[str], folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder))
    subprocess.run([*pip, *packages], check=True, capture_output=True, timeout=300)


def _make(folder: Path) -> None:
    for name in ("site", "lib"):
        shutil.rmtree(folder / name, ignore_errors=True)
    unpack("bookworm", ("python3-torch",), folder)
    files = folder / "files"
    _install(PACKAGES, folder / "site")
    for name in _MODULES:
        shutil.copytree(
            files / "usr/lib/python3/dist-packages" / name,
            folder / "site" / name,
            ignore=_unwanted,
        )
    (folder / "lib").mkdir()
    for library in _needed(files):
        shutil.copy(library, folder / "lib" / library.name)
    _repair(folder / "site")
    _check(folder)
    shutil.rmtree(files)
    (folder / _READY).write_text(f"torch {_VERSION}\n", encoding="utf-8")


def _repair(site: Path) -> None:
    """What Debian's PyTorch does not do in its own Python 3.11: that wants a factory for such a default, and does not
    iterate over the zero of a flag, without which torchrun does not start."""
    distributed = site / "torch" / "distributed"
    for name, old, new in (
        (
            "_shard/sharded_tensor/metadata.py",
            "field(default=TensorProperties())",
            "field(default_factory=TensorProperties)",
        ),
        ("elastic/multiprocessing/api.py", "for s in Std:", "for s in (Std.NONE, *Std):"),
    ):
        path = distributed / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def _check(folder: Path) -> None:
    site = TorchSite(folder)
    environ = {**os.environ, **site.environment, "PYTHONPATH": str(site.python_path)}
    imports = "import torch.distributed._shard.sharded_tensor, pytorch_lightning"
    subprocess.run([sys.executable, "-c", imports], env=environ, check=True, capture_output=True)


def _unwanted(folder: str, names: list[str]) -> list[str]:
    """Headers, and links to what other packages would bring."""
    return [name for name in names if name == "include" or not (Path(folder) / name).exists()]


def _needed(files: Path) -> Iterator[Path]:
    """The libraries that PyTorch loads, but for those of which a process can have one version only."""
    folders = {path.parent for path in files.glob("**/*.so*") if "python3" not in path.parts}
    search = ":".join(map(str, sorted(folders)))
    programs = [str(path) for path in files.glob("usr/lib/python3/dist-packages/torch/_C.*.so")]
    listed = subprocess.run(
        ["ldd", *programs],
        env={"LD_LIBRARY_PATH": search, "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=True,
    )
    for name, path in re.findall(r"^\s*(\S+) => (/\S+)", listed.stdout, re.MULTILINE):
        if path.startswith(str(files)) and not _OF_THE_MACHINE.fullmatch(name):
            yield Path(path).parent / name
