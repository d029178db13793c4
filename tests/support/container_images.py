"""Two small images made of this machine's own files, without a registry, and a podman to run them.

``bare`` has a shell and a few tools; ``python`` has this interpreter under /usr/local too, with a package that only
the image has. Made once (about 10 s) and kept in ~/.cache/hpc-agent-tests.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import uv
from capabilities import missing
from shared_cache import cache, made_once, write_whole

PROGRAMS = (
    *("bash", "dash", "sh", "env", "cat", "ls", "sleep", "id", "rm", "mkdir", "cp", "mv", "ln", "chmod", "touch"),
    *("dirname", "realpath", "find", "grep", "test", "true", "tar", "git"),
)
LEFT_OUT = (*("test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__", "config-*", "*.a"),)
ONLY_IN_IMAGE = {"onlyinimage": "1.5"}

CONTAINERS_CONF = """
[containers]
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
{runtime}
"""
STORAGE_CONF = '[storage]\ndriver = "{driver}"\ngraphroot = "{root}/storage"\nrunroot = "{root}/run"\n'


def tree(kind: str) -> Path:
    """The root folder of an image; it may not be changed."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:12]
    return made_once(f"{kind}-{recipe}", lambda folder: _make_tree(kind, folder))


def _make_tree(kind: str, root: Path) -> None:
    _base(root)
    if kind == "python":
        _python(root)
    subprocess.run(["ldconfig", "-r", root], check=True)


def _base(root: Path) -> None:
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "dev", "proc", "sys", "tmp", "etc", "root", "run", "var/tmp"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for name in ("hosts", "resolv.conf", "ld.so.conf"):
        (root / "etc" / name).touch()
    for name in PROGRAMS:
        if found := shutil.which(name, path="/usr/bin:/bin"):
            shutil.copy(found, root / "usr/bin" / name)
            _libraries(root, Path(found))
    # What every distribution has; uv, which an image gets mounted, wants no more.
    _libraries(root, Path(uv.find_uv_bin()))


def _python(root: Path) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    prefix = Path(sys.base_prefix)
    library = root / "usr/local/lib" / version
    shutil.copytree(prefix / "lib" / version, library, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (root / "usr/local/bin").mkdir(parents=True)
    shutil.copy(prefix / "bin" / version, root / "usr/local/bin" / version)
    (root / "usr/local/bin/python3").symlink_to(version)
    for path in [prefix / "bin" / version, *(prefix / "lib" / version / "lib-dynload").glob("*.so")]:
        _libraries(root, path)
    packages = library / "site-packages"
    for name, number in ONLY_IN_IMAGE.items():
        info = packages / f"{name}-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        (packages / f"{name}.py").write_text(f"VERSION = {number!r}\n")


def _libraries(root: Path, program: Path) -> None:
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout.splitlines():
        source = next((Path(word) for word in line.split() if word.startswith("/")), None)
        if source is not None:
            # The loader's own path is written into every program; everything else is found by ldconfig's cache.
            target = root / (f"usr/lib64/{source.name}" if source.name.startswith("ld-") else f"usr/lib/{source.name}")
            if not target.exists():
                shutil.copy(source, target)


@dataclass(frozen=True)
class Podman:
    """``env`` turns any podman to a store of the tests' own."""

    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, check: bool = True) -> str:
        argv = ["podman", *arguments]
        answer = subprocess.run(
            argv, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=120, check=False
        )
        if check and answer.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {answer.stderr}")
        return answer.stdout

    def image(self, kind: str) -> str:
        """The name of an image that is there."""
        folder = tree(kind)
        name = f"localhost/hpc-agent-test-{kind}:{folder.name.rpartition('-')[2]}"
        if not self.run("images", "--quiet", name).strip():
            tar = ["tar", "--create", f"--directory={folder}", "."]
            with subprocess.Popen(tar, stdout=subprocess.PIPE) as packing:
                argv = ["podman", "import", "--quiet", "-", name]
                subprocess.run(
                    argv,
                    stdin=packing.stdout,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **self.env},
                    check=True,
                    timeout=120,
                )
        return name

    def containers(self) -> list[str]:
        return self.run("ps", "--all", "--format", "{{.Names}}").split()


def podman() -> Podman:
    """A podman that works here; tests without one are skipped with what it says."""
    if shutil.which("podman") is None:
        missing("podman", "podman is not installed")
    root = cache() / "podman"
    root.mkdir(exist_ok=True)
    runtime = 'runtime = "runc"' if shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin") else ""
    write_whole(root / "containers.conf", CONTAINERS_CONF.format(runtime=runtime))
    driver = "overlay" if os.getuid() == 0 else "vfs"
    write_whole(root / "storage.conf", STORAGE_CONF.format(driver=driver, root=root))
    # Neither the user's own containers nor any registry.
    found = Podman(
        {"CONTAINERS_CONF": str(root / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(root / "storage.conf")}
    )
    try:
        found.run("run", "--rm", found.image("bare"), "true")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        missing("podman", f"podman does not run containers here: {error}")
    return found


def charliecloud(kind: str, folder: Path) -> Path:
    """An image folder of a test's own for ch-run; tests without one are skipped with what it says."""
    if shutil.which("ch-run") is None:
        missing("charliecloud", "ch-run is not installed")
    # Hard links: the content is shared, mount points are the test's own.
    target = folder / kind
    subprocess.run(["cp", "--archive", "--link", tree(kind), target], check=True)
    answer = subprocess.run(
        ["ch-run", str(target), "--", "true"],
        env={**os.environ, "USER": "root"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        missing("charliecloud", f"ch-run does not run containers here: {answer.stderr}")
    return target
