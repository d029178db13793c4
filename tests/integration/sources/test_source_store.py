"""Code on its way from a repository to a node, with real git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from capabilities import missing
from http_git import HttpRemote
from msgspec.structs import replace
from source_site import Repository, SourceSite

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret
from hpc_agent.sources.layout import Origin, StagedSource
from hpc_agent.sources.workspace import EntryKind

EDIT = """diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -1,0 +2 @@
+print("uncommitted")
"""


def test_commit_with_uncommitted_changes_arrives(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "print('committed')\n", "src/lib.py": ""})
    commit = repository.git("rev-parse", "HEAD")
    repository.commit({"train.py": "print('later')\n"})
    script = TaskScript(repository.url, commit=commit, entry_point="train.py", diff=EDIT)
    staged = world.store().stage(script, world.say)
    travelled = msgspec.json.decode(msgspec.json.encode(staged), type=StagedSource)
    assert travelled == staged
    workspace = world.store().checkout(script, travelled, world.runs, world.say)
    assert workspace.root.name == "model"
    assert (workspace.cwd / "train.py").read_text() == "print('committed')\nprint(\"uncommitted\")\n"
    ran = subprocess.run(workspace.command(Path(sys.executable), {}), cwd=workspace.cwd, capture_output=True, text=True)
    assert ran.stdout.split() == ["committed", "uncommitted"]
    # What a user's script asks git itself about.
    seen = subprocess.run(["git", "rev-parse", "HEAD"], cwd=workspace.cwd, capture_output=True, text=True)
    assert seen.stdout.strip() == commit


def test_node_needs_no_remote(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "", "data/big.bin": "x" * 300_000})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    shutil.rmtree(repository.path)
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert (workspace.root / "data" / "big.bin").stat().st_size == 300_000
    # Borrowed, not copied.
    own = [p for p in (workspace.root / ".git" / "objects").rglob("*") if p.is_file()]
    assert [p.name for p in own] == ["alternates"]
    assert world.store().find(script) == staged


def test_mirror_is_fetched_only_when_something_is_missing(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    first = repository.git("rev-parse", "HEAD")
    script = TaskScript(repository.url, commit=first, entry_point="train.py")
    world.store().stage(script, world.say)
    shutil.move(repository.path, repository.path.with_name("away"))
    assert world.store().stage(script, world.say).commit == first
    assert len(world.said) == 1
    with pytest.raises(SourceError, match=r"for branch main: fatal: '/.*/model'.*is the address right"):
        world.store().stage(replace(script, commit="", branch="main"), world.say)


def test_branch_is_resolved_at_the_remote_each_time(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    script = TaskScript(repository.url, branch="origin/main", entry_point="train.py")
    world.store().stage(script, world.say)
    latest = repository.commit({"train.py": "2"})
    assert world.store().stage(script, world.say).commit == latest


@pytest.mark.parametrize("fields", [{}, {"branch": "main"}, {"tag": "v1"}, {"commit": "v1"}, {"branch": "v1"}])
def test_revision_by_every_kind_of_name(world: SourceSite, fields: dict[str, Any]) -> None:
    repository = world.repository("model", {"train.py": "1"})
    repository.git("tag", "v1")
    staged = world.store().stage(TaskScript(repository.url, entry_point="train.py", **fields), world.say)
    assert staged.commit == repository.git("rev-parse", "HEAD")


def test_default_branch_of_another_name(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    repository.git("branch", "--move", "main", "trunk")
    staged = world.store().stage(TaskScript(repository.url, entry_point="train.py"), world.say)
    assert staged.commit == repository.git("rev-parse", "HEAD")


def test_short_commit_is_found(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    commit = repository.git("rev-parse", "HEAD")
    assert world.store().stage(TaskScript(repository.url, commit=commit[:9]), world.say).commit == commit


def test_commit_of_a_deleted_branch_is_fetched_by_its_hash(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    repository.git("checkout", "--quiet", "-b", "gone")
    commit = repository.commit({"train.py": "2"})
    repository.git("checkout", "--quiet", "main")
    repository.git("branch", "--delete", "--force", "gone")
    assert world.store().stage(TaskScript(repository.url, commit=commit), world.say).commit == commit


def test_branch_that_became_a_folder_of_branches(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    repository.git("branch", "feature")
    world.store().stage(TaskScript(repository.url, branch="feature"), world.say)
    repository.git("branch", "--delete", "feature")
    repository.git("branch", "feature/a")
    assert world.store().stage(TaskScript(repository.url, branch="feature/a"), world.say).commit


def test_commit_that_was_never_pushed_is_named(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    with pytest.raises(SourceError, match="commit 0123456789abcdef0123456789abcdef01234567 is not in repository"):
        world.store().stage(TaskScript(repository.url, commit="0123456789abcdef0123456789abcdef01234567"), world.say)


@pytest.mark.parametrize("name", ["--upload-pack=touch x", "-b", "a..b", "a b", "x^{tree}", "HEAD@{1}", "a:b", "/x"])
def test_name_that_is_not_a_revision_is_refused(world: SourceSite, name: str) -> None:
    repository = world.repository("model", {"train.py": "1"})
    for script in (TaskScript(branch=name), TaskScript(tag=name), TaskScript(commit=name)):
        with pytest.raises(SourceError, match="refused"):
            world.store().stage(replace(script, repository=repository.url), world.say)


def test_password_is_asked_for_and_shown_nowhere(
    world: SourceSite, http_remote: HttpRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is in no argument list, no file and no message; git gets it anyway."""
    world.repository("model", {"train.py": "1"})
    seen = tmp_path / "arguments"
    spy = tmp_path / "bin"
    spy.mkdir()
    # A real program between us and git: whatever ends up in a process list passes through here.
    real = shutil.which("git")
    (spy / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec {real} "$@"\n')
    (spy / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    git = GitSettings(user=http_remote.user, password=Secret(http_remote.password), host="127.0.0.1")
    script = TaskScript(f"{http_remote.url}/model", branch="main", entry_point="train.py")
    staged = world.store(git).stage(script, world.say)
    workspace = world.store(git).checkout(script, staged, world.runs, world.say)
    assert (workspace.cwd / "train.py").exists()
    assert http_remote.asked
    everything = seen.read_text() + "".join(world.said) + repr(staged)
    for folder in (world.mirrors, workspace.root / ".git"):
        everything += "".join(p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file())
    assert http_remote.password not in everything
    assert "pa55" not in everything


def test_password_in_the_tasks_own_address_works_and_is_dropped(world: SourceSite, http_remote: HttpRemote) -> None:
    world.repository("model", {"train.py": "1"})
    address = http_remote.url.replace("://", "://researcher:pa55%20w%40rd%3A%2F@") + "/model"
    staged = world.store().stage(TaskScript(address, branch="main", entry_point="train.py"), world.say)
    assert staged.repository == f"{http_remote.url}/model"


@pytest.mark.parametrize(
    ("host", "git_says", "advice"),
    [
        ("127.0.0.1", "Authentication failed", "are there credentials for it (git_user and git_pass"),
        ("", "could not read Username", "git_user and git_pass were not sent there"),
    ],
)
def test_wrong_password_is_one_sentence_without_it(
    world: SourceSite, http_remote: HttpRemote, host: str, git_says: str, advice: str
) -> None:
    world.repository("model", {"train.py": "1"})
    git = GitSettings(user="researcher", password=Secret("wr0ng"), host=host)
    with pytest.raises(SourceError) as error:
        world.store(git).stage(TaskScript(f"{http_remote.url}/model", branch="main"), world.say)
    words = str(error.value)
    assert git_says in words
    assert advice in words
    assert "wr0ng" not in words


def test_no_password_fails_at_once_instead_of_asking(world: SourceSite, http_remote: HttpRemote) -> None:
    world.repository("model", {"train.py": "1"})
    with pytest.raises(SourceError, match="cannot be fetched"):
        world.store().stage(TaskScript(f"{http_remote.url}/model", branch="main"), world.say)


def test_credentials_of_one_host_are_not_offered_to_another(world: SourceSite, http_remote: HttpRemote) -> None:
    world.repository("model", {"train.py": "1"})
    git = GitSettings(user=http_remote.user, password=Secret(http_remote.password), host="github.com")
    with pytest.raises(SourceError, match="cannot be fetched"):
        world.store(git).stage(TaskScript(f"{http_remote.url}/model", branch="main"), world.say)


def test_ssh_runs_without_prompts(world: SourceSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.repository("model", {"train.py": "1"})
    seen = tmp_path / "arguments"
    spy = tmp_path / "bin"
    spy.mkdir()
    # An ssh that runs the command on this machine.
    (spy / "ssh").write_text(f'#!/bin/sh\necho "$@" >> {seen}\nfor last; do :; done\nexec sh -c "$last"\n')
    (spy / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    script = TaskScript(f"git@host:{world.folder}/remotes/model", branch="main", entry_point="train.py")
    assert world.store().stage(script, world.say).commit
    assert "-oBatchMode=yes" in seen.read_text()


def test_submodules_arrive_whole_and_nested(world: SourceSite) -> None:
    inner = world.repository("inner", {"deep.py": "deep = 1\n"})
    outer = world.repository("outer", {"sub.py": "sub = 1\n"})
    outer.git("submodule", "--quiet", "add", "../inner", "vendor/inner")
    outer.commit({})
    top = world.repository("top", {"train.py": "1"})
    top.git("submodule", "--quiet", "add", outer.url, "lib/outer")
    # The parent's address is a path, so that ../inner is one too.
    top.commit({})
    script = TaskScript(str(top.path), branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    assert [module.path for module in staged.submodules] == ["lib/outer", "lib/outer/vendor/inner"]
    for repository in (inner, outer, top):
        shutil.rmtree(repository.path)
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert (workspace.root / "lib/outer/vendor/inner/deep.py").read_text() == "deep = 1\n"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=workspace.root, capture_output=True, text=True)
    assert status.stdout == ""


def test_uncommitted_changes_inside_a_submodule_apply(world: SourceSite) -> None:
    outer = world.repository("outer", {"sub.py": "sub = 1\n"})
    top = world.repository("top", {"train.py": "1"})
    top.git("submodule", "--quiet", "add", outer.url, "lib/outer")
    top.commit({})
    (top.path / "lib/outer/sub.py").write_text("sub = 2\n")
    diff = top.git("diff", "--submodule=diff")
    assert diff.startswith("Submodule ")
    script = TaskScript(top.url, branch="main", entry_point="train.py", diff=diff)
    workspace = world.store().checkout(script, world.store().stage(script, world.say), world.runs, world.say)
    assert (workspace.root / "lib/outer/sub.py").read_text() == "sub = 2\n"


def test_missing_submodule_is_reported_and_does_not_fail_the_task(world: SourceSite) -> None:
    outer = world.repository("outer", {"sub.py": ""})
    top = world.repository("top", {"train.py": "1"})
    top.git("submodule", "--quiet", "add", outer.url, "lib/outer")
    top.commit({})
    shutil.rmtree(outer.path)
    script = TaskScript(top.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert any("submodule lib/outer will be missing" in note for note in workspace.notes)


def test_submodule_cannot_run_programs(world: SourceSite, tmp_path: Path) -> None:
    top = world.repository("top", {"train.py": "1"})
    marker = tmp_path / "ran"
    (top.path / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch {marker}"\n')
    top.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    top.git("add", ".gitmodules")
    top.git("commit", "--quiet", "--message", "evil")
    staged = world.store().stage(TaskScript(top.url, branch="main"), world.say)
    assert "refused" in staged.notes[0]
    assert not marker.exists()


def test_changes_create_files_that_the_commit_does_not_have(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1\n"})
    diff = "diff --git a/deep/requirements.txt b/deep/requirements.txt\n--- a/deep/requirements.txt\n" \
           "+++ b/deep/requirements.txt\n@@ -0,0 +1 @@\n+clearml"  # fmt: skip
    script = TaskScript(repository.url, branch="main", entry_point="train.py", diff=diff)
    workspace = world.store().checkout(script, world.store().stage(script, world.say), world.runs, world.say)
    assert (workspace.root / "deep/requirements.txt").read_text() == "clearml\n"


def test_changes_that_do_not_fit_name_the_commit(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1\n"})
    diff = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-never there\n+x\n"
    script = TaskScript(repository.url, branch="main", entry_point="train.py", diff=diff)
    staged = world.store().stage(script, world.say)
    with pytest.raises(SourceError, match=rf"do not fit commit {staged.commit} of file://.*train.py.*not pushed"):
        world.store().checkout(script, staged, world.runs, world.say)


@pytest.mark.parametrize("name", ["../../escaped", "link/escaped", ".git/hooks/post-checkout"])
def test_changes_stay_inside_the_workspace(world: SourceSite, tmp_path: Path, name: str) -> None:
    repository = world.repository("model", {"train.py": "1\n"})
    (repository.path / "link").symlink_to(tmp_path)
    repository.commit({})
    diff = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"
    script = TaskScript(repository.url, branch="main", entry_point="train.py", diff=diff)
    staged = world.store().stage(script, world.say)
    with pytest.raises(SourceError):
        world.store().checkout(script, staged, world.runs, world.say)
    assert not list(tmp_path.glob("**/escaped"))
    assert not list(world.runs.glob("**/hooks/*"))


@pytest.mark.parametrize("fields", [{"working_dir": "link"}, {"entry_point": "link/secret.py"}])
def test_links_out_of_the_workspace_are_not_followed(world: SourceSite, tmp_path: Path, fields: dict[str, Any]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("")
    repository = world.repository("model", {"train.py": "", "secret.py": ""})
    (repository.path / "link").symlink_to(outside)
    repository.commit({})
    script = replace(TaskScript(repository.url, branch="main", entry_point="train.py"), **fields)
    staged = world.store().stage(script, world.say)
    with pytest.raises(SourceError, match="outside"):
        world.store().checkout(script, staged, world.runs, world.say)


def test_missing_entry_point_is_named(world: SourceSite) -> None:
    repository = world.repository("model", {"src/train.py": ""})
    script = TaskScript(repository.url, branch="main", entry_point="trian.py", working_dir="src")
    staged = world.store().stage(script, world.say)
    with pytest.raises(SourceError, match=r"entry point 'trian.py' does not exist in folder src of commit"):
        world.store().checkout(script, staged, world.runs, world.say)
    script = replace(script, working_dir="nowhere")
    with pytest.raises(SourceError, match=r"working folder 'nowhere' does not exist"):
        world.store().checkout(script, staged, world.runs, world.say)


def test_script_alone_runs_from_its_own_text(world: SourceSite) -> None:
    script = TaskScript(entry_point="some/train.py", diff="import sys\nprint('alone', sys.argv[0])\n")
    staged = world.store().stage(script, world.say)
    assert staged.origin is Origin.SCRIPT
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    ran = subprocess.run(workspace.command(Path(sys.executable), {}), cwd=workspace.cwd, capture_output=True, text=True)
    assert ran.stdout == "alone train.py\n"


def test_script_next_to_a_repository_does_not_replace_a_file(world: SourceSite) -> None:
    repository = world.repository("model", {"there.py": "kept\n"})
    for name, text in (("there.py", "kept\n"), ("new.py", "mine\n")):
        script = TaskScript(repository.url, branch="main", entry_point=name, working_dir="", diff="mine\n")
        workspace = world.store().checkout(script, world.store().stage(script, world.say), world.runs, world.say)
        assert (workspace.cwd / name).read_text() == text


def test_module_without_any_code_runs_in_an_empty_folder(world: SourceSite) -> None:
    script = TaskScript(entry_point="-m platform")
    staged = world.store().stage(script, world.say)
    assert staged.origin is Origin.NOTHING
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert workspace.entry.kind is EntryKind.MODULE
    assert list(workspace.cwd.iterdir()) == []


def test_injected_init_is_moved_only_where_the_file_would_break(world: SourceSite) -> None:
    broken = "from clearml import Task\nTask.init()\nfrom __future__ import annotations\nprint(1)\n"
    script = TaskScript(entry_point="x.py", diff=broken)
    workspace = world.store().checkout(script, world.store().stage(script, world.say), world.runs, world.say)
    repaired = (workspace.cwd / "x.py").read_text()
    assert repaired == "from __future__ import annotations\nfrom clearml import Task\nTask.init()\nprint(1)\n"


def test_requeued_attempt_starts_from_clean_files(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1\n"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py", diff=EDIT)
    staged = world.store().stage(script, world.say)
    for _ in range(2):
        workspace = world.store().checkout(script, staged, world.runs, world.say)
        assert (workspace.cwd / "train.py").read_text() == '1\nprint("uncommitted")\n'
        (workspace.cwd / "left-over").touch()
    assert [p.name for p in world.runs.iterdir()] == ["model"]


def test_requirement_files_are_those_of_the_commit_with_changes(world: SourceSite) -> None:
    repository = world.repository(
        "model",
        {
            "requirements.txt": "six\n-r more/base.txt\n",
            "more/base.txt": "idna\n-c limits.txt\n",
            "more/limits.txt": "six<2\n",
            "src/app/requirements.txt": "click\n",
            "other/requirements.txt": "nope\n",
            "extra.txt": "extra\n",
            "src/app/train.py": "",
        },
    )
    diff = "diff --git a/more/base.txt b/more/base.txt\n--- a/more/base.txt\n+++ b/more/base.txt\n" \
           "@@ -0,0 +1 @@\n+attrs\n"  # fmt: skip
    script = TaskScript(
        repository.url,
        branch="main",
        entry_point="train.py",
        working_dir="src/app",
        diff=diff,
        requirements=Requirements(pip=("-r ../../extra.txt",)),
    )
    store = world.store()
    found = store.requirement_files(script, store.stage(script, world.say))
    assert found.roots == ("requirements.txt", "src/app/requirements.txt")
    assert found.texts == {
        "requirements.txt": "six\n-r more/base.txt\n",
        "more/base.txt": "attrs\nidna\n-c limits.txt\n",
        "more/limits.txt": "six<2\n",
        "src/app/requirements.txt": "click\n",
        "extra.txt": "extra\n",
    }
    assert found.working_dir == "src/app"


@pytest.fixture
def large_file(world: SourceSite) -> Repository:
    """A repository whose ``model.bin`` is kept in Git LFS, made by the real git-lfs."""
    if subprocess.run(["git", "lfs", "version"], capture_output=True).returncode:
        missing("git-lfs", "git-lfs is not installed")
    repository = world.repository("model")
    repository.git("lfs", "install", "--local")
    repository.git("lfs", "track", "*.bin")
    repository.commit({"train.py": "", "weights/model.bin": "w" * 5000})
    return repository


@pytest.mark.git_lfs
def test_large_files_arrive_without_git_lfs_on_the_node(
    world: SourceSite, large_file: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = TaskScript(large_file.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    assert staged.notes == ()
    shutil.rmtree(large_file.path)
    # A node with git but without git-lfs.
    monkeypatch.setenv("PATH", str(_only_git(tmp_path)))
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert (workspace.root / "weights/model.bin").read_text() == "w" * 5000
    assert workspace.notes == ()


@pytest.mark.git_lfs
def test_large_files_that_cannot_be_had_are_named(
    world: SourceSite, large_file: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(_only_git(tmp_path)))
    script = TaskScript(large_file.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    assert "git-lfs is not installed" in staged.notes[0]
    workspace = world.store().checkout(script, staged, world.runs, world.say)
    assert (workspace.root / "weights/model.bin").read_text().startswith("version https://git-lfs")
    assert "1 files are Git LFS pointers" in workspace.notes[1]
    assert "weights/model.bin" in workspace.notes[1]


def _only_git(folder: Path) -> Path:
    """A folder of programs for PATH that has no git-lfs."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("git", "sh", "nice"):
        program = shutil.which(name)
        assert program is not None, name
        (programs / name).symlink_to(program)
    return programs


@pytest.mark.parametrize("working_dir", ["app", "app/deep"])
def test_project_file_counts_where_the_commit_has_no_list(world: SourceSite, working_dir: str) -> None:
    files = {"pyproject.toml": "[a]\n", "app/pyproject.toml": "[b]\n", "app/setup.py": "1\n", "app/deep/x": ""}
    repository = world.repository("model", files)
    diff = "diff --git a/requirements.txt b/requirements.txt\n--- a/requirements.txt\n+++ b/requirements.txt\n" \
           "@@ -0,0 +1 @@\n+clearml\n"  # fmt: skip
    script = TaskScript(repository.url, branch="main", entry_point="x", working_dir=working_dir, diff=diff)
    store = world.store()
    found = store.requirement_files(script, store.stage(script, world.say))
    assert (found.projects, found.roots, found.listed) == (("app", ""), ("requirements.txt",), False)
    assert (found.texts["app/pyproject.toml"], found.texts["app/setup.py"]) == ("[b]\n", "1\n")
    repository.commit({"requirements.txt": "six\n"})
    assert store.requirement_files(script, store.stage(script, world.say)).listed


def test_killed_fetch_leaves_nothing_that_blocks_the_next(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    mirror = world.mirrors / staged.mirror
    for lock in ("packed-refs.lock", "refs/heads/main.lock", "config.lock", "shallow.lock"):
        (mirror / lock).touch()
    # A lease whose holder died on this host, and a mirror that was being made.
    lease = world.mirrors / f".{staged.mirror}.lease"
    lease.mkdir()
    (lease / "owner").write_text(f"{os.uname().nodename} 999999 1 dead 0\n")
    latest = repository.commit({"train.py": "2"})
    assert world.store().stage(script, world.say).commit == latest


def test_mirror_is_read_while_others_fetch_and_tidy_it(world: SourceSite) -> None:
    """Checkouts go on while the branch is rewritten upstream, fetched again and the mirror is packed again."""
    repository = world.repository("model", {f"f{n}.txt": str(n) * 1000 for n in range(50)} | {"train.py": ""})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    staged = world.store().stage(script, world.say)
    stop = threading.Event()
    failed: list[Exception] = []

    def churn() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                repository.git("commit", "--quiet", "--amend", "--allow-empty", "--message", str(number))
                world.store().stage(script, world.say)
                mirror = ["git", f"--git-dir={world.mirrors / staged.mirror}"]
                subprocess.run([*mirror, "gc", "--quiet", "--prune=now"], check=True, capture_output=True)
        except (SourceError, subprocess.CalledProcessError) as error:
            failed.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for number in range(8):
            workspace = world.store().checkout(script, staged, world.runs / str(number), world.say)
            assert len(list(workspace.root.glob("f*.txt"))) == 50
    finally:
        stop.set()
        thread.join()
    assert failed == []


@pytest.mark.parametrize(("mode", "files"), [(0o2775, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_mirror_has_the_access_of_the_cache(world: SourceSite, mode: int, files: int) -> None:
    """Whatever the umask: a group's cache is the group's, a private one stays private."""
    world.mirrors.parent.mkdir()
    world.mirrors.parent.chmod(mode)
    repository = world.repository("model", {"train.py": "1"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    before = os.umask(0o077)
    try:
        world.store().stage(script, world.say)
        repository.commit({"train.py": "2"})
        world.store().stage(script, world.say)
    finally:
        os.umask(before)
    folders = [path for path in world.mirrors.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {mode & 0o777}
    # Packs are read-only for all users.
    found = {path.stat().st_mode & 0o444 for path in world.mirrors.rglob("*") if path.is_file()}
    assert found == {files & 0o444}


def test_many_at_once_make_one_mirror(world: SourceSite) -> None:
    repository = world.repository("model", {"train.py": "1"})
    script = TaskScript(repository.url, branch="main", entry_point="train.py")
    results: list[object] = []

    def stage() -> None:
        try:
            results.append(world.store().stage(script, world.say).commit)
        except SourceError as error:
            results.append(error)

    threads = [threading.Thread(target=stage) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [repository.git("rev-parse", "HEAD")] * 8
    assert len([p for p in world.mirrors.iterdir() if not p.name.startswith(".")]) == 1
    assert [p for p in world.mirrors.iterdir() if p.name.startswith(".")] == []
