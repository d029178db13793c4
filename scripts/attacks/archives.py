"""Archives in the shared cache: what is unpacked stays in its folder, and is what was staged."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from attacks.case import Case
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import node_cache
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.envs.shared_cache import Manifest, SharedCache
from hpc_agent.errors import HpcAgentError, ProcessError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOOR = "archives"

_KEY = EnvKey("0" * 32)
_EVIL = b"EVIL\n"
Member = tuple[tarfile.TarInfo, bytes]


def _file(name: str, data: bytes = _EVIL, mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def _special(name: str, kind: bytes, target: str = "", mode: int = 0o755) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info, b""


def _link(name: str, target: str) -> Member:
    return _special(name, tarfile.SYMTYPE, target)


def _hard(name: str, target: str) -> Member:
    return _special(name, tarfile.LNKTYPE, target)


def _write(path: Path, members: Iterable[Member], folder: Path) -> str:
    """An archive of these members as the product writes them; returns its checksum."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            info.name = info.name.replace("{folder}", str(folder))
            info.linkname = info.linkname.replace("{folder}", str(folder))
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(zstd.compress(plain.getvalue()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unpacked(folder: Path, members: tuple[Member, ...], without_tar: bool) -> str:
    """Unpack hostile members under a right checksum; what of it is outside of the folder, or changed there."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched\n")
    (outside / "file").chmod(0o644)
    packed = folder / "env.tar.zst"
    digest = _write(packed, members, folder)
    target = folder / "envs" / _KEY
    target.parent.mkdir()
    path = os.environ["PATH"]
    if without_tar:
        os.environ["PATH"] = "/nonexistent"
    try:
        node_cache.unpack_to(packed, target, digest)
    except (ArchiveError, ProcessError, OSError, tarfile.TarError):
        pass
    finally:
        os.environ["PATH"] = path
    return _outside(folder, outside, target)


def _outside(folder: Path, outside: Path, target: Path) -> str:
    if (outside / "file").read_text() != "untouched\n" or (outside / "file").stat().st_mode & 0o777 != 0o644:
        return "a file outside was changed"
    if (outside / "file").stat().st_nlink > 1:
        return "a file outside was linked"
    if sorted(path.name for path in outside.iterdir()) != ["file"]:
        return "a file was made outside"
    known = {"outside", "envs", "env.tar.zst"}
    if others := [path.name for path in folder.iterdir() if path.name not in known]:
        return f"{others} was made outside"
    if others := [path.name for path in target.parent.iterdir() if path != target]:
        return f"{others} is left next to it"
    return ""


def _manifest(size: int, digest: str) -> Manifest:
    return Manifest(
        key=_KEY,
        packages=(),
        parts={},
        executable=os.path.realpath(shutil.which("python3") or "/usr/bin/python3"),
        version="3",
        libc="",
        size=size,
        sha256=digest,
        files=1,
        unpacked=1,
        built_at=datetime.now(timezone.utc),
        built_by="eve",
        seconds=0,
    )


def _published(folder: Path, exchange: Callable[[Path, Manifest], Manifest], staged: bool = False) -> str:
    """Publish an environment, let another user change it, and use it; whether the changed one is used."""
    shared = SharedCache(folder / "cache")
    place = shared.envs / _KEY
    place.mkdir(parents=True)
    digest = _write(shared.archive(_KEY), [_file("good", b"good\n")], folder)
    manifest = _manifest(shared.archive(_KEY).stat().st_size, digest)
    shared.write_manifest(place, manifest)
    shared.write_manifest(place, exchange(shared.archive(_KEY), manifest))
    store = EnvStore(folder / "cache", folder / "scratch", PackageSettings(), SYSTEM)
    try:
        env = store.use(_KEY, lambda _: None, sha256=digest if staged else "")
    except HpcAgentError:
        return ""
    found = sorted(path.name for path in env.root.iterdir())
    return "" if found == ["good"] else f"{found} is used"


def _exchanged(path: Path, manifest: Manifest) -> Manifest:
    """Another archive of the same length, or with its length in the manifest."""
    _write(path, [_file("evil")], path.parent)
    return replace(manifest, size=path.stat().st_size)


def _exchanged_with_sum(path: Path, manifest: Manifest) -> Manifest:
    digest = _write(path, [_file("evil")], path.parent)
    return replace(manifest, size=path.stat().st_size, sha256=digest)


def _without_sum(path: Path, manifest: Manifest) -> Manifest:
    return replace(_exchanged(path, manifest), sha256="")


def _appended(path: Path, manifest: Manifest) -> Manifest:
    """A second frame behind the first, which some readers go on with."""
    good = path.read_bytes()
    _write(path, [_file("evil")], path.parent)
    path.write_bytes(good + path.read_bytes())
    return replace(manifest, size=path.stat().st_size)


def _prepended(path: Path, manifest: Manifest) -> Manifest:
    good = path.read_bytes()
    _write(path, [_file("evil")], path.parent)
    path.write_bytes(path.read_bytes() + good)
    return replace(manifest, size=path.stat().st_size)


def _cut(path: Path, manifest: Manifest) -> Manifest:
    path.write_bytes(path.read_bytes()[:-5])
    return replace(manifest, size=path.stat().st_size)


def _flipped(path: Path, manifest: Manifest) -> Manifest:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return manifest


def _linked(path: Path, manifest: Manifest) -> Manifest:
    evil = path.with_name("evil")
    _write(evil, [_file("evil")], path.parent)
    path.unlink()
    path.symlink_to(evil)
    return replace(manifest, size=evil.stat().st_size)


def _other_key(path: Path, manifest: Manifest) -> Manifest:
    return replace(_exchanged(path, manifest), key=EnvKey("../../evil"))


def _repaired(folder: Path) -> str:
    """A node that lost a file of an environment, and an archive that was exchanged meanwhile."""
    shared = SharedCache(folder / "cache")
    (shared.envs / _KEY).mkdir(parents=True)
    digest = _write(shared.archive(_KEY), [_file("good", b"good\n")], folder)
    manifest = _manifest(shared.archive(_KEY).stat().st_size, digest)
    cache = node_cache.NodeCache(folder / "node")
    cache.obtain(manifest, shared.archive(_KEY), lambda _: None)
    exchanged = _exchanged(shared.archive(_KEY), manifest)
    try:
        root, _ = cache.obtain(exchanged, shared.archive(_KEY), lambda _: None) or (folder, False)
    except ArchiveError:
        root = folder / "node" / "envs" / _KEY
    return "the exchanged file is there" if (root / "evil").exists() else ""


def _bomb(folder: Path) -> str:
    """Much that was packed small, under the checksum of another."""
    packed = folder / "env.tar.zst"
    _write(packed, [_file("zeros", bytes(50_000_000))], folder)
    (folder / "envs").mkdir()
    try:
        node_cache.unpack_to(packed, folder / "envs" / _KEY, "0" * 64)
    except ArchiveError:
        left = sum(path.stat().st_size for path in (folder / "envs").rglob("*"))
        return f"{left} bytes are left" if left > 1_000_000 else ""
    return "it was unpacked"


def _record(folder: Path, text: str) -> str:
    """A manifest that is none."""
    shared = SharedCache(folder / "cache")
    (shared.envs / _KEY).mkdir(parents=True)
    _write(shared.archive(_KEY), [_file("evil")], folder)
    (shared.envs / _KEY / "manifest.json").write_text(text)
    try:
        env = EnvStore(folder / "cache", folder / "scratch", PackageSettings(), SYSTEM).use(_KEY, lambda _: None)
    except HpcAgentError:
        return ""
    return f"{env.root} is used"


_UP = (
    "../EVIL",
    "../../EVIL",
    "../../../EVIL",
    "a/../../EVIL",
    "./../EVIL",
    "a/b/../../../EVIL",
    "..",
    "../outside/file",
)
_ABSOLUTE = (
    "{folder}/EVIL",
    "{folder}/outside/file",
    "//{folder}/EVIL",
    "/../{folder}/EVIL",
    "/./{folder}/outside/EVIL",
)
_TARGETS = ("{folder}/outside", "../../outside", "../../../../../../../../../..{folder}/outside", "./../../outside")
_HOSTILE: dict[str, tuple[Member, ...]] = {
    **{f"a file {name}": (_file(name),) for name in (*_UP, *_ABSOLUTE)},
    **{f"a folder {name}": (_special(name, tarfile.DIRTYPE, mode=0o777),) for name in (*_UP[:4], *_ABSOLUTE[:2])},
    **{f"through a link to {target}": (_link("l", target), _file("l/EVIL")) for target in _TARGETS},
    **{f"over a file behind a link to {target}": (_link("l", target), _file("l/file")) for target in _TARGETS},
    **{f"over a link to {target}/file": (_link("l", f"{target}/file"), _file("l")) for target in _TARGETS},
    **{f"a hard link to {target}/file": (_hard("h", f"{target}/file"), _file("h")) for target in _TARGETS},
    "through two links": (_link("a", "."), _link("a/b", "{folder}/outside"), _file("b/EVIL"), _file("a/b/EVIL")),
    "a hard link to a link": (_link("l", "{folder}/outside/file"), _hard("h", "l"), _file("h")),
    "a folder over a link": (
        _link("l", "{folder}/outside"),
        _special("l", tarfile.DIRTYPE, mode=0o777),
        _file("l/EVIL"),
    ),
    "the mode of a file behind a link": (
        _link("l", "{folder}/outside/file"),
        _special("l", tarfile.DIRTYPE, mode=0o777),
    ),
    "a link by the name of the folder": (_link(".", "{folder}/outside"), _file("EVIL")),
    "a device": (_special("d", tarfile.CHRTYPE), _special("b", tarfile.BLKTYPE)),
    "a pipe": (_special("p", tarfile.FIFOTYPE),),
    "a name with a line break": (_file("a\n../EVIL"), _file("a\n/../../EVIL")),
    "options as names": (
        _file("--directory={folder}/outside"),
        _file("-C{folder}/outside"),
        _file("--to-command=touch"),
    ),
}
_RECORDS = (
    "",
    "{}",
    "[]",
    "null",
    '{"key": "' + "0" * 32 + '"}',
    "\0",
    "{" * 10_000,
    json.dumps({"key": "../x", "size": -1}),
)

CASES: tuple[Case, ...] = (
    *(
        Case(f"{name}, by {how}", partial(_unpacked, members=members, without_tar=how == "Python"))
        for name, members in _HOSTILE.items()
        for how in ("tar", "Python")
    ),
    *(
        Case(f"{change.__name__.strip('_').replace('_', ' ')}", partial(_published, exchange=change))
        for change in (_exchanged, _without_sum, _appended, _prepended, _cut, _flipped, _linked, _other_key)
    ),
    Case("exchanged with its sum since it was staged", partial(_published, exchange=_exchanged_with_sum, staged=True)),
    Case("exchanged before a node repairs it", _repaired),
    Case("a bomb under another's sum", _bomb),
    *(Case(f"a manifest {text[:30]!r}", partial(_record, text=text)) for text in _RECORDS),
)
