"""What goes wrong on clusters: killed builders, cut archives, full disks, cleaned scratch folders, other users."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from capabilities import missing
from env_site import EnvSite, PythonRunner, SmallDisk
from waiting import empty, wait_until

from hpc_agent.access import user_name
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive, build_steps, node_cache
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.envs.materialize import UsableEnv
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.file_records import remove_tree

VERSIONS = "import alpha, beta; print(alpha.VERSION, beta.VERSION)"
STAGE = "store.stage(request('beta'), say)"
USE = "print(store.use(EnvKey(sys.argv[1]), say).access)"


def works(env: UsableEnv) -> bool:
    ran = subprocess.run([env.python, "-c", VERSIONS], capture_output=True, text=True)
    return ran.stdout == "1.0 1.0\n"


def whole(site: EnvSite, key: str) -> bool:
    """Whether a published environment is complete: archive, checksum, manifest."""
    store = site.store()
    manifest = store._shared.manifest(EnvKey(key))
    return manifest is not None and archive.sha256_of(site.cache / "envs" / key / "env.tar.zst") == manifest.sha256


def kill_after(child: subprocess.Popen[str], seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        # The builder alone: its installers run in sessions of their own and outlive it for a moment.
        os.kill(child.pid, signal.SIGKILL)
    child.communicate()


def test_builder_killed_at_any_moment_leaves_nothing_wrong(site: EnvSite, run_python: PythonRunner) -> None:
    began = SYSTEM.monotonic()
    run_python(STAGE).communicate()
    lasts = SYSTEM.monotonic() - began
    moments = 16
    for number in range(moments):
        # Out of the way, not removed: installers of the builder before may still write there.
        site.cache.rename(site.folder / f"cache-{number}")
        child = run_python(STAGE)
        kill_after(child, lasts * (number + 1) / moments)
        # Whatever can be seen is complete …
        for published in site.published:
            assert whole(site, published)
        # … and the next one neither waits for the dead nor trips over what they left.
        key = site.store().stage(site.request("beta"), site.say).key
        assert not [line for line in site.said if line.startswith("Waiting for another process")]
        assert whole(site, key)
    # What the dead left on the local disk goes with the next builder; what an installer that outlived its builder made
    # again after that goes an hour later.
    build = site.scratch / f"hpc-agent-{os.getuid()}" / "build"

    def left() -> list[Path]:
        for entry in build.iterdir():
            with suppress(FileNotFoundError):
                os.utime(entry, times=(0, 0))
        with build_steps.private_build_folder(build):
            """A new one clears away what the dead left."""
        return list(build.iterdir())

    wait_until("what the dead left to go", left, empty)
    assert works(site.store().use(key, site.say))


def test_job_killed_while_unpacking_leaves_nothing_wrong(site: EnvSite, run_python: PythonRunner) -> None:
    site.wheels.add("alpha", files={f"alpha/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(40)})
    key = site.store().stage(site.request("beta"), site.say).key
    began = SYSTEM.monotonic()
    assert run_python(USE, key).communicate()[0].endswith("unpacked\n")
    lasts = SYSTEM.monotonic() - began
    moments = 12
    for number in range(moments):
        remove_tree(site.scratch)
        kill_after(run_python(USE, key), lasts * (number + 1) / moments)
        env = site.store().use(key, site.say)
        assert works(env)
        assert node_cache.missing_files(env.root) == []
        # tar lives on for a moment when its reader is killed; what it still writes is not where jobs look.
        assert env.root.name == key


@pytest.mark.parametrize("length", [0, 100, 0.5, 0.99])
def test_truncated_archive_is_reported_and_built_again(site: EnvSite, length: float) -> None:
    request = site.request("beta")
    key = site.store().stage(request, site.say).key
    path = site.cache / "envs" / key / "env.tar.zst"
    os.truncate(path, length if isinstance(length, int) else int(path.stat().st_size * length))
    with pytest.raises(EnvironmentBuildError, match=r"`hpc-agent cache warm"):
        site.store().use(key, site.say)
    assert site.store().stage(request, site.say).built
    assert works(site.store().use(key, site.say))


def test_damaged_archive_of_the_right_length_is_never_unpacked_wrongly(site: EnvSite) -> None:
    request = site.request("beta")
    key = site.store().stage(request, site.say).key
    path = site.cache / "envs" / key / "env.tar.zst"
    good = path.read_bytes()
    for place in [n / 12 for n in range(12)]:
        position = 8 + int(place * (len(good) - 8))
        path.chmod(0o644)
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x40]) + good[position + 1 :])
        with pytest.raises(EnvironmentBuildError, match="is damaged"):
            site.store().use(key, site.say)
        assert not (site.scratch / f"hpc-agent-{os.getuid()}" / "envs" / key).exists()
        assert site.store().stage(request, site.say).built
        assert path.read_bytes() != b""
        good = path.read_bytes()
        remove_tree(site.scratch)


def test_environment_with_unreadable_manifest_is_built_again(site: EnvSite) -> None:
    request = site.request("beta")
    key = site.store().stage(request, site.say).key
    (site.cache / "envs" / key / "manifest.json").write_text('{"key": "half')
    with pytest.raises(EnvironmentBuildError, match="is not in the cache"):
        site.store().use(key, site.say)
    assert site.store().stage(request, site.say).built


def test_corrupt_record_of_a_request_is_replaced(site: EnvSite) -> None:
    request = site.request("beta")
    key = site.store().stage(request, site.say).key
    [record] = (site.cache / "requests").glob("*.json")
    record.write_text("{")
    staged = site.store().stage(request, site.say)
    assert (staged.key, staged.built) == (key, False)


def test_full_shared_folder_is_reported_and_the_next_try_succeeds(site: EnvSite, run_python: PythonRunner) -> None:
    """The archive meets the limit on the size of files; nothing else here is as large."""
    site.wheels.add("alpha", files={f"alpha/data{n}.bin": random.Random(n).randbytes(100_000) for n in range(30)})
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
    catch = "try:\n    store.stage(request('beta'), say)\nexcept HpcAgentError as error:\n    print('ERROR', error)\n"
    said, _ = run_python(limited + catch).communicate()
    assert "ERROR the environment cannot be stored in" in said
    assert "make room with `hpc-agent cache prune`" in said
    assert site.published == []
    assert list((site.cache / "envs").iterdir()) == []
    assert site.store().stage(site.request("beta"), site.say).built


@pytest.mark.namespaces
def test_full_build_folder_is_reported(site: EnvSite, run_python: PythonRunner, small_disk: SmallDisk) -> None:
    site.wheels.add("alpha", files={f"alpha/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(20)})
    catch = "try:\n    store.stage(request('beta'), say)\nexcept HpcAgentError as error:\n    print('ERROR', error)\n"
    said, _ = run_python(catch, prefix=small_disk(site.scratch, 4)).communicate()
    assert "ERROR" in said
    assert "No space left" in said
    assert site.published == []
    assert site.store().stage(site.request("beta"), site.say).built


@pytest.mark.namespaces
def test_node_without_room_runs_in_place(site: EnvSite, run_python: PythonRunner, small_disk: SmallDisk) -> None:
    site.wheels.add("alpha", files={f"alpha/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(20)})
    key = site.store().stage(site.request("beta"), site.say).key
    for _ in range(2):
        said, _ = run_python(USE, key, prefix=small_disk(site.scratch, 4)).communicate()
        assert said.endswith("in place\n"), said
    env = site.store(scratch=Path("/proc/nowhere")).use(key, site.say)
    assert env.access == "in place"
    assert works(env)
    assert [p.name for p in (site.cache / "unpacked").iterdir()] == [key]


def test_twenty_nodes_without_space_unpack_one_copy_in_place(site: EnvSite) -> None:
    key = site.store().stage(site.request("beta"), site.say).key
    used: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: used.append(site.store(scratch=Path("/proc/nowhere")).use(key, site.say).access)
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used == ["in place"] * 20
    assert sum("this node has too little free space" in line for line in site.said) == 1


@pytest.mark.namespaces
def test_full_disk_while_unpacking_leaves_no_partial_environment(
    site: EnvSite, run_python: PythonRunner, small_disk: SmallDisk
) -> None:
    """A disk that had room when asked: a sparse estimate, or another job that writes at the same time."""
    site.wheels.add("alpha", files={f"alpha/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(20)})
    key = site.store().stage(site.request("beta"), site.say).key
    lie = "import shutil, collections\nfrom hpc_agent.envs import node_cache\nnode_cache._RESERVED_BYTES = -(1 << 30)\n"
    listing = "import os\nprint(sorted(os.listdir(store._scratch / f'hpc-agent-{os.getuid()}' / 'envs')))\n"
    said, _ = run_python(lie + USE + "\n" + listing, key, prefix=small_disk(site.scratch, 4)).communicate()
    assert "cannot be unpacked to" in said
    assert "in place" in said
    assert said.endswith("[]\n"), said


@pytest.mark.namespaces
def test_unused_environments_make_room_for_new_ones(
    site: EnvSite, run_python: PythonRunner, small_disk: SmallDisk
) -> None:
    keys = []
    for name in ("gamma", "delta"):
        site.wheels.add(name, files={f"{name}/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(20)})
        keys.append(site.store().stage(site.request(name), site.say).key)
    # One process after the other on one small disk of 64 MB in reserve and 12 more.
    both = "import subprocess\nsubprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]], check=True)\n"
    both += "print(store.use(EnvKey(sys.argv[3]), say).access)\n"
    program = run_python.prelude + USE
    said, _ = run_python(both, program, *keys, prefix=small_disk(site.scratch, 64 + 12)).communicate()
    assert f"Removed environment {keys[0]} from this node to make room" in said
    assert said.count("unpacked\n") == 2, said


@pytest.mark.namespaces
def test_environment_in_use_is_not_removed_for_another(
    site: EnvSite, run_python: PythonRunner, small_disk: SmallDisk
) -> None:
    keys = []
    for name in ("gamma", "delta"):
        site.wheels.add(name, files={f"{name}/data{n}.bin": random.Random(n).randbytes(400_000) for n in range(20)})
        keys.append(site.store().stage(site.request(name), site.say).key)
    both = "for key in sys.argv[1:]:\n    print(store.use(EnvKey(key), say).access)\n"
    said, _ = run_python(both, *keys, prefix=small_disk(site.scratch, 64 + 12)).communicate()
    assert "unpacked\n" in said
    assert said.endswith("in place\n"), said


VICTIMS = ["beta/__init__.py", ".hpc-agent/folders.json", ".hpc-agent/files.json", "bin/python", "pyvenv.cfg"]


@pytest.mark.parametrize("victim", [*VICTIMS, "all of .hpc-agent", "every module", "everything"])
def test_scratch_that_was_cleaned_up_is_repaired(site: EnvSite, victim: str) -> None:
    """A cleaner of /tmp takes what looks old: single files, a folder, or all of it."""
    key = site.store().stage(site.request("beta"), site.say).key
    root = site.store().use(key, site.say).root
    for path in [root, *root.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    if victim == "everything":
        remove_tree(site.scratch)
    elif victim == "all of .hpc-agent":
        shutil.rmtree(root / ".hpc-agent")
    elif victim == "every module":
        for path in root.rglob("*.py"):
            path.unlink()
    else:
        [found] = [path for path in root.rglob("*") if path.as_posix().endswith(victim)]
        found.unlink()
    env = site.store().use(key, site.say)
    assert works(env)
    assert node_cache.missing_files(env.root) == []
    assert node_cache.is_untouched(env.root)
    assert site.store().use(key, site.say).access == "ready"


def test_truncated_file_is_repaired_once_its_folder_is_checked(site: EnvSite) -> None:
    key = site.store().stage(site.request("beta"), site.say).key
    root = site.store().use(key, site.say).root
    [module] = root.glob("lib/python*/site-packages/beta")
    module.chmod(0o755)
    (module / "__init__.py").chmod(0o644)
    (module / "__init__.py").write_text("")
    (module / "new").touch()
    env = site.store().use(key, site.say)
    assert works(env)


def test_scratch_folder_of_another_user_is_not_used(site: EnvSite) -> None:
    key = site.store().stage(site.request("beta"), site.say).key
    shared_tmp = site.folder / "tmp"
    taken = shared_tmp / f"hpc-agent-{os.getuid()}"
    taken.mkdir(parents=True)
    taken.chmod(0o777)
    env = site.store(scratch=shared_tmp).use(key, site.say)
    assert env.access == "in place"
    assert list(taken.iterdir()) == []


@pytest.fixture
def public_site(site: EnvSite) -> Iterator[Path]:
    """A cache outside of pytest's private folders, and an interpreter that all users may run."""
    if os.getuid() != 0:
        missing("root", "only root can be two users")
    python = next((path for path in ("/usr/bin/python3",) if Path(path).exists()), None)
    if python is None:
        missing("root", "there is no /usr/bin/python3, an interpreter that another user may run")
    folder = Path(tempfile.mkdtemp(prefix="hpc-agent-test-"))
    site.packages = PackageSettings(python_binary=python)
    try:
        yield folder
    finally:
        remove_tree(folder)


def as_other_user(code: Callable[[], str], uid: int = 65534) -> str:
    """Run ``code`` in a child that has given up root; returns what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            result = code()
        except Exception as error:  # noqa: BLE001 (reported to the parent)
            result = f"{type(error).__name__}: {error}"
        os.write(writer, str(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.root
def test_a_user_whose_name_is_not_known_goes_by_the_number() -> None:
    """In a container, or while a directory service is away."""
    assert as_other_user(user_name, 61_001) == "61001"
    assert as_other_user(user_name) == "nobody"


@pytest.mark.root
def test_second_user_runs_what_the_first_has_built(site: EnvSite, public_site: Path) -> None:
    cache, scratch = public_site / "cache", public_site / "tmp"
    public_site.chmod(0o755)
    cache.mkdir()
    cache.chmod(0o755)
    scratch.mkdir()
    scratch.chmod(0o1777)
    before = os.umask(0o077)  # the first user is careful, the cache is for all
    try:
        request = site.request("beta")
        first = EnvStore(cache, scratch, site.packages, SYSTEM)
        key = first.stage(request, site.say).key
        first.use(key, site.say)
    finally:
        os.umask(before)

    def use() -> str:
        said: list[str] = []
        store = EnvStore(cache, scratch, site.packages, SYSTEM)
        assert store.find(request) == key
        env = store.use(key, said.append)
        assert store.stage(request, said.append).key == key
        ran = subprocess.run([env.python, "-c", VERSIONS], capture_output=True, text=True)
        return f"{env.access} {env.root.parent.parent.name} {ran.stdout}{ran.stderr}"

    assert as_other_user(use) == "unpacked hpc-agent-65534 1.0 1.0\n"


@pytest.mark.root
def test_second_user_without_write_access_gets_a_message(site: EnvSite, public_site: Path) -> None:
    cache, scratch = public_site / "cache", public_site / "tmp"
    public_site.chmod(0o755)
    scratch.mkdir()
    scratch.chmod(0o1777)
    cache.mkdir()
    cache.chmod(0o755)
    wheels = public_site / "wheels"
    shutil.copytree(site.wheels.folder, wheels)
    site.wheels.folder = wheels
    request = site.request("alpha")

    def stage() -> str:
        EnvStore(cache, scratch, site.packages, SYSTEM).stage(request, site.say)
        return "built"

    said = as_other_user(stage)
    assert "EnvironmentBuildError: the environment cannot be stored in" in said
    assert "Permission denied" in said


@pytest.mark.parametrize(("mode", "files"), [(0o2775, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_everything_in_the_cache_has_the_access_of_the_cache(site: EnvSite, mode: int, files: int) -> None:
    """Whatever the umask: a group's cache is the group's, a private one stays private."""
    site.cache.mkdir()
    site.cache.chmod(mode)
    before = os.umask(0o077 if mode == 0o2775 else 0)
    try:
        key = site.store().stage(site.request("alpha"), site.say).key
        site.store().use(key, site.say)
    finally:
        os.umask(before)
    found = {path.stat().st_mode & 0o7777 for path in site.cache.rglob("*") if path.is_dir()}
    assert found == {mode}
    assert {path.stat().st_mode & 0o7777 for path in site.cache.rglob("*") if path.is_file()} == {files}
