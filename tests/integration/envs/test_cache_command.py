"""``hpc-agent cache`` as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from clearml_server import ClearmlServer
from env_site import EnvSite, PythonRunner

from hpc_agent.cache_uses import UseRecords, removable
from hpc_agent.clock import SYSTEM
from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.images import Images
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs.cache_upkeep import CacheEntry
from hpc_agent.envs.shared_cache import Manifest
from hpc_agent.file_records import write_record
from hpc_agent.sources.layout import Origin, StagedSource
from hpc_agent.staging import StagedTask

IN_PLACE = "store._scratch = Path('/proc/nowhere')\nprint(store.use(EnvKey(sys.argv[1]), say).access, flush=True)\n"
NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)

USES_IMAGE = """
from hpc_agent.clock import SYSTEM
from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.images import Images
Images(Apptainer("apptainer"), Path(sys.argv[1]), SYSTEM).record_use("lab/used:1")
print("used", flush=True)
sys.stdin.read()
"""

CacheCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache_command(site: EnvSite) -> CacheCommand:
    """Run ``hpc-agent cache …`` on the site's cache."""
    conf = site.folder / "clearml.conf"
    conf.write_text(
        f'hpc {{ root = "{site.folder / "root"}", cache_dir = "{site.cache}", scratch_dir = "{site.scratch}" }}\n'
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML_", "TRAINS_"))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "hpc_agent", "--config-file", str(conf), "cache", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, env=environ)

    return run


def age(site: EnvSite, key: str, **span: float) -> None:
    """Make an environment look long unused."""
    then = (SYSTEM.now() - timedelta(**span)).timestamp()
    os.utime(site.cache / "uses" / key, (then, then))
    manifest = site.cache / "envs" / key / "manifest.json"
    record = json.loads(manifest.read_text())
    record["built_at"] = datetime.fromtimestamp(then, timezone.utc).isoformat()
    manifest.write_text(json.dumps(record))


def test_list_shows_the_environments(site: EnvSite, cache_command: CacheCommand) -> None:
    assert "No environments yet" in cache_command("list").stdout
    key = site.store().stage(site.request("beta"), site.say).key
    assert "not used yet" in cache_command("list").stdout
    for _ in range(3):
        site.store().use(key, site.say)
    said = cache_command("list").stdout
    assert key in said
    assert "3 uses, last just now" in said
    assert "alpha==1.0, beta==1.0" in said
    assert "1 environments" in said
    [entry] = json.loads(cache_command("list", "--json").stdout)
    assert (entry["key"], entry["uses"], entry["packages"]) == (key, 3, ["alpha==1.0", "beta==1.0"])


def test_warm_builds_what_a_requirements_file_asks_for(site: EnvSite, cache_command: CacheCommand) -> None:
    folder = site.folder / "project"
    (folder / "more").mkdir(parents=True)
    file = folder / "requirements.txt"
    file.write_text(f"--no-index\n--find-links {site.wheels.folder}\n-r more/base.txt\n")
    (folder / "more" / "base.txt").write_text("beta\n-r other.txt\n")
    (folder / "more" / "other.txt").write_text("alpha\n")
    warmed = cache_command("warm", "-r", str(file))
    assert warmed.returncode == 0, warmed.stderr
    assert f"environment {site.published[0]} with 2 packages" in warmed.stdout
    assert "Building environment" in warmed.stderr
    # Nothing left to do the second time.
    assert "Building" not in cache_command("warm", "-r", str(file)).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["warm"], "nothing to stage"),
        (["prune"], "Give --max-size or --older-than"),
        (["prune", "--max-size", "much"], "'much' cannot be read: write it as 200G"),
        (["prune", "--older-than", "30"], "'30' cannot be read: write it as 30d"),
        (["warm", "-r", "/nowhere.txt"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(cache_command: CacheCommand, arguments: list[str], words: str) -> None:
    answer = cache_command(*arguments)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_local_code_cannot_be_warmed_without_its_commit(site: EnvSite, cache_command: CacheCommand) -> None:
    file = site.folder / "requirements.txt"
    file.write_text("-e .\n")
    assert "stage a task of that repository with --id" in cache_command("warm", "-r", str(file)).stderr


def test_verify_reads_every_byte(site: EnvSite, cache_command: CacheCommand) -> None:
    good = site.store().stage(site.request("alpha"), site.say).key
    bad = site.store().stage(site.request("beta"), site.say).key
    assert cache_command("verify").returncode == 0
    archive = site.cache / "envs" / bad / "env.tar.zst"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    answer = cache_command("verify")
    assert answer.returncode == 1
    assert f"Environment {bad}: its archive is damaged" in answer.stdout
    assert good not in answer.stdout
    cache_command("verify", "--remove")
    assert site.published == [good]
    assert site.store().stage(site.request("beta"), site.say).built


def test_prune_removes_what_is_old_and_nothing_else(
    site: EnvSite, cache_command: CacheCommand, run_python: PythonRunner
) -> None:
    old = site.store().stage(site.request("alpha"), site.say).key
    new = site.store().stage(site.request("beta"), site.say).key
    assert run_python(IN_PLACE, old).communicate()[0].endswith("in place\n")
    age(site, old, days=40)
    assert old in cache_command("prune", "--older-than", "30d", "--dry-run").stdout
    assert {old, new} == set(site.published)
    answer = cache_command("prune", "--older-than", "30d")
    assert "1 environments" in answer.stdout
    assert site.published == [new]
    assert list((site.cache / "unpacked").iterdir()) == []
    assert len(list((site.cache / "requests").iterdir())) == 1
    # A job that comes now gets an error, and the next staging builds it again.
    assert site.store().stage(site.request("alpha"), site.say).built


def test_prune_leaves_what_a_waiting_job_has_staged(site: EnvSite, cache_command: CacheCommand) -> None:
    key = site.store().stage(site.request("alpha"), site.say).key
    age(site, key, days=40)
    attempt = site.folder / "root" / "runs" / "0123456789abcdef" / "01234567"
    attempt.mkdir(parents=True)
    write_record(attempt / "stage.json", StagedTask(StagedSource(Origin.SCRIPT), key))
    cache_command("prune", "--max-size", "0")
    assert site.published == [key]
    (attempt / "settled.json").write_text("{}")
    cache_command("prune", "--max-size", "0")
    assert site.published == []


def test_prune_leaves_what_a_job_runs_in_place(
    site: EnvSite, cache_command: CacheCommand, run_python: PythonRunner
) -> None:
    key = site.store().stage(site.request("alpha"), site.say).key
    job = run_python(IN_PLACE + "sys.stdin.read()\n", key, stdin=subprocess.PIPE)
    assert job.stdout is not None
    while "in place\n" not in (line := job.stdout.readline()):
        assert line
    age(site, key, days=40)
    cache_command("prune", "--max-size", "0")
    assert site.published == [key]
    job.communicate("")
    cache_command("prune", "--max-size", "0")
    assert site.published == []


def entry(key: str, size: int, **unused: float) -> CacheEntry:
    manifest = Manifest(EnvKey(key), (), {}, "", "", "", size, "", 0, 0, NOW, "", 0)
    return CacheEntry(manifest, size, 0, NOW - timedelta(**unused))


@pytest.mark.parametrize(
    ("limits", "kept", "gone"),
    [
        ({"max_size": 100}, set(), []),
        ({"max_size": 60}, set(), ["a"]),
        ({"max_size": 0}, set(), ["a", "b", "c"]),
        ({"max_size": 0}, {"b"}, ["a", "c"]),
        ({"older_than": timedelta(days=3)}, set(), ["a"]),
        ({"older_than": timedelta(days=3), "max_size": 35}, set(), ["a", "b"]),
        ({"older_than": timedelta(days=30)}, set(), []),
    ],
)
def test_longest_unused_goes_first_and_the_last_hour_stays(
    limits: dict[str, Any], kept: set[EnvKey], gone: list[str]
) -> None:
    found = [entry("c", 20, hours=2), entry("a", 40, days=5), entry("new", 10, minutes=59), entry("b", 30, days=1)]
    assert [e.name for e in removable(found, NOW, kept, **limits)] == gone


def test_dead_jobs_are_forgotten(tmp_path: Path) -> None:
    for name, old in (("aa/host-1", 0), ("bb/host-2", 3600)):
        owner = tmp_path / ".now" / name / "owner"
        owner.parent.mkdir(parents=True)
        owner.touch()
        then = SYSTEM.now().timestamp() - old
        os.utime(owner, (then, then))
    assert UseRecords(tmp_path).held(SYSTEM) == {"aa"}
    assert [path.name for path in tmp_path.glob(".now/*/*")] == ["host-1"]


def images(site: EnvSite) -> Images:
    (site.folder / "root").mkdir(exist_ok=True)
    return Images(Apptainer(str(site.folder / "apptainer")), site.folder / "root" / "images", SYSTEM)


@pytest.fixture
def apptainer(site: EnvSite) -> None:
    """One that pulls: its last word but one is the file to make."""
    program = site.folder / "apptainer"
    program.write_text('#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done; head -c 5000 /dev/zero >"$1"\n')
    program.chmod(0o755)


def test_images_fetched_for_tasks_are_listed_and_pruned(
    site: EnvSite, cache_command: CacheCommand, apptainer: None
) -> None:
    found = images(site)
    folder = site.folder / "root" / "images"
    for name in ("lab/old:1", "lab/new:1"):
        found.stage(name, site.say, share=True)
    (folder / "of+site.sif").write_bytes(b"x")
    (folder / ".01234567.killed+1.sif").write_bytes(b"x")
    long_ago = (SYSTEM.now() - timedelta(days=40)).timestamp()
    for path in (folder / ".uses" / "lab%old+1.sif", folder / ".01234567.killed+1.sif"):
        os.utime(path, (long_ago, long_ago))
    said = cache_command("list").stdout
    assert "lab%new+1.sif      5 kB  not used yet" in said
    assert "0 environments and 2 images, 10 kB" in said and "of+site" not in said
    assert [entry["file"] for entry in json.loads(cache_command("list", "--json").stdout)] == [
        "lab%new+1.sif",
        "lab%old+1.sif",
    ]
    assert (
        "0 environments and 1 images, 5 kB would be freed"
        in cache_command("prune", "--older-than", "30d", "--dry-run").stdout
    )
    assert cache_command("prune", "--older-than", "30d").returncode == 0
    assert sorted(path.name for path in folder.glob("[!.]*.sif")) == ["lab%new+1.sif", "of+site.sif"]
    assert list(folder.glob(".????????.*")) == []


def test_prune_leaves_images_that_a_job_uses_or_waits_for(
    site: EnvSite, cache_command: CacheCommand, apptainer: None, run_python: PythonRunner
) -> None:
    found = images(site)
    for name in ("lab/used:1", "lab/waited:1"):
        found.stage(name, site.say, share=True)
    folder = site.folder / "root" / "images"
    attempt = site.folder / "root" / "runs" / "0123456789abcdef" / "01234567"
    attempt.mkdir(parents=True)
    write_record(attempt / "stage.json", StagedTask(StagedSource(Origin.SCRIPT), None, image="lab%waited+1.sif"))
    job = run_python(USES_IMAGE, str(folder), stdin=subprocess.PIPE)
    assert job.stdout is not None
    while "used\n" not in (line := job.stdout.readline()):
        assert line
    long_ago = (SYSTEM.now() - timedelta(days=40)).timestamp()
    for path in folder.glob(".uses/*.sif"):
        os.utime(path, (long_ago, long_ago))
    inode = (folder / "lab%used+1.sif").stat().st_ino
    found.stage("lab/used:1", site.say, share=True, force=True)
    for path in [*folder.glob(".????????.*"), *folder.glob(".uses/*.sif")]:
        os.utime(path, (long_ago, long_ago))
    cache_command("prune", "--max-size", "0")
    assert sorted(path.name for path in folder.glob("[!.]*.sif")) == ["lab%used+1.sif", "lab%waited+1.sif"]
    # The file that the job has opened is there, under another name.
    assert [path.stat().st_ino for path in folder.glob(".????????.*")] == [inode]
    job.communicate("")
    cache_command("prune", "--max-size", "0")
    assert [path.name for path in folder.glob("[!.]*.sif")] == ["lab%waited+1.sif"]
    assert list(folder.glob(".????????.*")) == []


def test_task_is_warmed_by_its_id(
    site: EnvSite, cache_command: CacheCommand, clearml_server: ClearmlServer, tmp_path: Path
) -> None:
    """Through a real server: what a compute node would have missed is staged by the command that its error names."""
    from hpc_agent.api.client import Client
    from hpc_agent.config.load import load
    from hpc_agent.retry import INTERACTIVE

    text = f"--no-index\n--find-links {site.wheels.folder}\nbeta\n"
    client = Client(load(clearml_server.conf).settings.api, budget=INTERACTIVE)
    task = client.tasks.create(
        {"name": "warm me", "type": "training", "project": None,
         "script": {"entry_point": "x.py", "diff": "print(1)\n", "requirements": {"pip": text}}}
    )  # fmt: skip
    conf = site.folder / "clearml.conf"
    conf.write_text(clearml_server.conf.read_text() + conf.read_text())
    answer = cache_command("warm", "--id", task)
    assert answer.returncode == 0, answer.stderr
    assert f"Task {task} is staged: environment {site.published[0]}" in answer.stdout
    # The same words find it offline.
    assert site.store().find(site.request("beta")) == site.published[0]
