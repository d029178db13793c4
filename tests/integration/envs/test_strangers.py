"""Code of packages runs while environments are built, and others may write to the shared cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from env_site import EnvSite

from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey, RequirementFiles
from hpc_agent.envs import archive
from hpc_agent.envs.env_request import EnvRequest, request_for_file
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.redact import Secret

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Builds in a folder of its own, with what its installer gives it.
CURIOUS = """
import json, os, pathlib, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    pathlib.Path({seen!r}).write_text(json.dumps(dict(os.environ)))
    with zipfile.ZipFile(f"{{directory}}/curious-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("curious.py", "")
        wheel.writestr("curious-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: curious\\nVersion: 1\\n")
        wheel.writestr("curious-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("curious-1.dist-info/RECORD", "")
    return "curious-1-py3-none-any.whl"
"""


@pytest.fixture
def seen_by_a_build(site: EnvSite) -> Callable[..., dict[str, str]]:
    """Stages a package that writes down its environment; returns that."""

    def look(kind: Literal["uv", "pip"], *further: str) -> dict[str, str]:
        site.packages = PackageSettings(type=kind)
        seen = site.folder / "seen.json"
        library = site.folder / "code" / "lib"
        library.mkdir(parents=True, exist_ok=True)
        (library / "backend.py").write_text(CURIOUS.format(seen=str(seen)))
        (library / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "curious"\nversion = "1"\n' + "".join(further)
        )
        credentials = [GitCredential("https://host", "me", Secret("GITxS3CRET"))]
        store = EnvStore(site.cache, site.scratch, site.packages, SYSTEM, credentials)
        store.stage(site.request("./lib", diff="1"), site.say, source_root=library.parent)
        found: dict[str, str] = json.loads(seen.read_text())
        return found

    return look


@pytest.mark.parametrize("kind", ["uv", "pip"])
def test_builds_see_nothing_secret(seen_by_a_build: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    names = ("CLEARML_AGENT_GIT_PASS", "AWS_SECRET_ACCESS_KEY", "GH_PAT", "DATABASE_URL", "MY_OWN_THING", "SSHPASS")
    for name in names:
        monkeypatch.setenv(name, "ENVxS3CRET")
    monkeypatch.setenv("CC", "gcc")
    seen = seen_by_a_build(kind)
    assert not [name for name, value in seen.items() if "xS3CRET" in value]
    assert seen["CC"] == "gcc"


@pytest.mark.parametrize(
    ("text", "sees"), [("", False), ('# dependencies = ["x @ git+https://host/x"]\n', True), ("# git = 1\n", True)]
)
def test_builds_see_git_credentials_only_where_repositories_are_fetched(
    seen_by_a_build: Any, text: str, sees: bool
) -> None:
    assert ("GITxS3CRET" in str(seen_by_a_build("uv", text))) is sees


@pytest.mark.parametrize("name", ["CLEARML_AGENT_GIT_PASS", "HTTPS_PROXY", "PIP_PASSWORD_OF_MINE"])
def test_variables_in_the_metadata_of_packages_have_no_secret_values(
    site: EnvSite, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """uv expands upper-case variables in addresses that a package's metadata names, and shows them."""
    monkeypatch.setenv(name, "xS3CRET")
    site.wheels.add("evil", requires=(f"x @ http://127.0.0.1:9/${{{name}}}/x-1-py3-none-any.whl",))
    with pytest.raises(EnvironmentBuildError) as error:
        site.store().stage(site.request("evil"), site.say)
    assert "xS3CRET" not in str(error.value) + "".join(site.said)


def test_record_of_a_failure_is_for_its_owner_and_has_no_passwords(site: EnvSite) -> None:
    with pytest.raises(EnvironmentBuildError):
        site.store().stage(site.request("x @ http://me:pa/xS3CRET@127.0.0.1:9/x-1.0-py3-none-any.whl"), site.say)
    [record] = site.cache.glob("requests/*.failed")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert "xS3CRET" not in record.read_text()


def disturbed_tar(folder: Path, monkeypatch: pytest.MonkeyPatch, disturb: str) -> Path:
    """Put a tar on PATH that runs the machine's own, and ``disturb`` while that reads ``$FILE``, the one named ``big``.

    Returns a file with its exit codes."""
    spy = folder / "bin"
    spy.mkdir()
    codes = folder / "codes"
    (spy / "tar").write_text(
        "#!/bin/bash\nset -o pipefail\n"
        "for word; do case $word in --directory=*) root=${word#--directory=};; --extract) unpacks=1;; esac; done\n"
        f'if [ "$unpacks" ]; then exec {shutil.which("tar")} "$@"; fi\n'
        'FILE=$(find "$root" -name big -print -quit)\n'
        # The pipe is full: the rest of the file waits until it is read.
        f'{shutil.which("tar")} "$@" | {{ head -c 1048576; {disturb}; cat; }}\n'
        f"code=$?; echo $code >> {codes}; exit $code\n"
    )
    (spy / "tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    return codes


def folder_to_pack(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    (root / "a").mkdir(parents=True)
    (root / "a" / "big").write_bytes(bytes(16) + os.urandom(12 << 20))
    (root / "b").write_text("b")
    (root / "c").symlink_to("a/big")
    (root / "d").hardlink_to(root / "b")
    (root / "kü").mkdir()
    return root


def test_file_that_another_build_links_while_it_is_packed_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tar finds "file changed as we read it": the number of links changed, and nothing else."""
    root = folder_to_pack(tmp_path)
    codes = disturbed_tar(tmp_path, monkeypatch, f'ln "$FILE" {tmp_path}/link')
    packed = archive.pack(root, tmp_path / "env.tar.zst")
    assert codes.exists()
    into = tmp_path / "into"
    into.mkdir()
    archive.unpack(tmp_path / "env.tar.zst", into, packed.sha256)
    assert (into / "a" / "big").read_bytes() == (root / "a" / "big").read_bytes()
    assert (into / "d").samefile(into / "b")


@pytest.mark.parametrize(
    "disturb",
    [
        'printf x | dd of="$FILE" bs=1 seek=5 conv=notrunc status=none',
        'truncate -s 11M "$FILE"',
        'echo more >> "$FILE"',
    ],
)
def test_file_that_is_written_to_while_it_is_packed_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturb: str
) -> None:
    root = folder_to_pack(tmp_path)
    disturbed_tar(tmp_path, monkeypatch, disturb)
    with pytest.raises(ProcessError, match=r"changed|shrank"):
        archive.pack(root, tmp_path / "env.tar.zst")


def test_environment_is_built_while_others_link_the_same_files(
    site: EnvSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What uv has in its cache need not be copied: links to it come and go while it is packed."""
    site.wheels.add("large", files={"large/big": os.urandom(12 << 20)})
    codes = disturbed_tar(tmp_path, monkeypatch, f'ln "$FILE" {tmp_path}/link')
    store = site.store()
    key = store.stage(site.request("large"), site.say).key
    root = store.use(key, site.say).root
    assert codes.exists()
    [big] = root.rglob("big")
    assert big.read_bytes() == (tmp_path / "link").read_bytes()


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize(
    "line", ["Alpha==1.0", "alpha[x]==1.0", "alpha @ file://{wheel}", "file://{wheel}", "./alpha.whl"]
)
def test_file_with_another_hash_than_the_task_gives_is_not_installed(
    site: EnvSite, installer: Literal["uv", "pip"], line: str
) -> None:
    """A resolver writes down the hashes of all files that it finds: those of the task are what counts."""
    site.packages = PackageSettings(type=installer)
    [wheel] = site.wheels.folder.glob("alpha-*.whl")
    line = line.format(wheel=wheel).replace("alpha.whl", wheel.name)
    code = site.folder / "code"
    code.mkdir()
    shutil.copy(wheel, code)
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    request = site.request(f"{line} --hash=sha256:{right}", repository="r", diff="1")
    assert site.store().stage(request, site.say, source_root=code).key
    request = site.request(f"{line} --hash=sha256:{'0' * 64}", repository="r", diff="2")
    with pytest.raises(EnvironmentBuildError, match=r"(?i)do not match the hashes|hash mismatch"):
        site.store().stage(request, site.say, source_root=code)


def test_hash_in_a_constraint_counts(site: EnvSite) -> None:
    files = RequirementFiles(texts={"limits.txt": f"alpha==1.0 --hash=sha256:{'0' * 64}\n"})
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash mismatch"):
        site.store().stage(site.request("-c limits.txt", "alpha", files=files), site.say)


def test_hashes_are_for_all_where_the_task_requires_them(site: EnvSite) -> None:
    [wheel] = site.wheels.folder.glob("beta-*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(EnvironmentBuildError, match=r"alpha==1\.0 has no --hash"):
        site.store().stage(site.request("--require-hashes", f"beta==1.0 --hash=sha256:{digest}"), site.say)


def test_packing_that_fails_is_tried_again(site: EnvSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tar complains of, it is nothing that the task asks for."""
    spy = tmp_path / "bin"
    spy.mkdir()
    (spy / "tar").write_text(
        f"#!/bin/sh\nif mkdir {tmp_path}/once 2>/dev/null\n"
        "then echo 'tar: ./x: file changed as we read it' >&2; exit 1\nfi\n"
        f'exec {shutil.which("tar")} "$@"\n'
    )
    (spy / "tar").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    store, request = site.store(), site.request("alpha")
    with pytest.raises(EnvironmentBuildError, match="file changed") as error:
        store.stage(request, site.say)
    assert error.value.retryable
    assert store.stage(request, site.say).packages == ("alpha==1.0",)


def exchanged(site: EnvSite, request: EnvRequest, folder: Path) -> EnvKey:
    """Stage, then put another environment's archive, whole in itself, in the place of the one that was staged."""
    staged = site.store().stage(request, site.say)
    other = folder / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").write_text("#!/bin/sh\necho EVIL\n")
    target = site.cache / "envs" / staged.key / "env.tar.zst"
    target.unlink()
    packed = archive.pack(other, target)
    manifest = target.with_name("manifest.json")
    text = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**text, "size": packed.size}))
    return staged.key


def test_archive_with_another_checksum_than_its_manifest_is_not_used(site: EnvSite, tmp_path: Path) -> None:
    key = exchanged(site, site.request("alpha"), tmp_path)
    with pytest.raises(EnvironmentBuildError, match="checksum"):
        site.store().use(key, site.say)
    assert not list(site.scratch.rglob("bin/python"))


@pytest.mark.parametrize("target", ["../../outside", "{outside}"])
def test_hard_link_in_an_archive_leads_to_no_file_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """On a node without tar."""
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    link, over = tarfile.TarInfo("h"), tarfile.TarInfo("h")
    link.type, link.linkname, over.size = tarfile.LNKTYPE, target.format(outside=outside), 4
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(link)
        tar.addfile(over, io.BytesIO(b"evil"))
    packed = tmp_path / "env.tar.zst"
    packed.write_bytes(zstd.compress(plain.getvalue()))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(archive.ArchiveError):
        archive.unpack(packed, folder)
    assert outside.read_text() == "untouched"


def test_incomplete_environment_is_not_repaired_from_another_archive(site: EnvSite, tmp_path: Path) -> None:
    request = site.request("alpha")
    env = site.store().use(site.store().stage(request, site.say).key, site.say)
    exchanged(site, request, tmp_path)
    victim = next(env.root.glob("lib/python*/site-packages/alpha"))
    victim.chmod(0o700)
    (victim / "__init__.py").unlink()
    with pytest.raises(EnvironmentBuildError, match="not the archive"):
        site.store().use(env.key, site.say)


def test_environment_that_was_replaced_since_it_was_staged_is_not_used(site: EnvSite) -> None:
    staged = site.store().stage(site.request("alpha"), site.say)
    assert site.store().use(staged.key, site.say, sha256=staged.sha256).access == "unpacked"
    with pytest.raises(EnvironmentBuildError, match="another archive than the one that was staged"):
        site.store().use(staged.key, site.say, sha256="0" * 64)


@pytest.mark.parametrize("line", ["./${HOME_TOKEN}", "x @ https://host/${HOME_TOKEN}/x.whl", "-r ${HOME_TOKEN}"])
def test_variable_in_a_line_is_never_expanded(site: EnvSite, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("HOME_TOKEN", "ENVxS3CRET")
    with pytest.raises(EnvironmentBuildError, match="variables such as") as error:
        site.store().stage(request_for_file(line, RequirementFiles()), site.say)
    assert "xS3CRET" not in str(error.value)
