"""HTTPS, and how much may be uploaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from certificates import make_certificate

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.errors import ApiError, ConfigError

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "site")


def client(conf: Path, **environ: str) -> Client:
    return Client(load(conf, environ).settings.api)


def test_clients_verify_the_certificate_with_their_ordinary_setting(
    start_clearml_server: Any, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    server = start_clearml_server(None, "--certfile", str(certificate[0]), "--keyfile", str(certificate[1]))
    assert server.url.startswith("https://")
    conf = server.conf.read_text()
    trusting = tmp_path / "trusting.conf"
    trusting.write_text(f'{conf}\napi.verify_certificate: "{certificate[0]}"\n')
    verified = client(trusting)
    task = verified.tasks.create({"name": "over TLS", "type": "training"})
    (tmp_path / "file").write_text("content")
    url = verified.files.upload(tmp_path / "file", f"p/t.{task}/artifacts/file")
    assert url.startswith("https://")
    with pytest.raises(ConfigError, match=r"certificate of .* was not accepted"):
        client(server.conf).session.login()


def test_only_tls_is_answered(start_clearml_server: Any, certificate: tuple[Path, Path]) -> None:
    server = start_clearml_server(None, "--certfile", str(certificate[0]), "--keyfile", str(certificate[1]))
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url.replace("https", "http") + "/files", timeout=10)
    answer = requests.get(f"{server.url}/files", verify=str(certificate[0]), timeout=10)
    assert answer.text == "OK"


@pytest.mark.parametrize("kind", ["missing", "no certificate", "another's key", "encrypted key", "key alone"])
def test_unusable_certificate_is_reported_in_one_sentence(
    tmp_path: Path, certificate: tuple[Path, Path], kind: str
) -> None:
    _, other_key = make_certificate(tmp_path, "other")
    (tmp_path / "text").write_text("no certificate")
    locked = make_certificate(tmp_path, "locked", "-passout", "pass:secret")
    flags = {
        "missing": ["--certfile", str(tmp_path / "none.pem")],
        "no certificate": ["--certfile", str(tmp_path / "text")],
        "another's key": ["--certfile", str(certificate[0]), "--keyfile", str(other_key)],
        "encrypted key": ["--certfile", str(locked[0]), "--keyfile", str(locked[1])],
        "key alone": ["--keyfile", str(other_key)],
    }[kind]
    done = subprocess.run(
        [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(tmp_path / "data"), *flags],
        env={**os.environ, "HOME": str(tmp_path), "CLEARML_CONFIG_FILE": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "certificate" in done.stderr


def upload(server: Any, tmp_path: Path, name: str, size: int) -> str:
    (tmp_path / "file").write_bytes(b"x" * size)
    return client(server.conf).files.upload(tmp_path / "file", name)


def stored(server: Any) -> set[str]:
    return {path.name for folder in ("files", "incoming") for path in (server.data_dir / folder).rglob("*")}


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(start_clearml_server: Any, tmp_path: Path) -> None:
    server = start_clearml_server(None, "--max-upload-mb", "2")
    upload(server, tmp_path, "fits", 2 * MIB)
    with pytest.raises(ApiError, match=r"a file may have 2 MiB \(hpc.server.max_upload_mb\)") as caught:
        upload(server, tmp_path, "large", 2 * MIB + 1)
    assert caught.value.code == 413
    assert stored(server) == {"fits"}


def test_all_files_together_are_bounded_and_deleting_makes_room(start_clearml_server: Any, tmp_path: Path) -> None:
    server = start_clearml_server(None, "--max-storage-mb", "3")
    upload(server, tmp_path, "first", 2 * MIB)
    with pytest.raises(ApiError, match="max_storage_mb") as caught:
        upload(server, tmp_path, "second", 2 * MIB)
    assert caught.value.code == 507
    # Again and again: what was refused takes no room.
    with pytest.raises(ApiError, match="max_storage_mb"):
        upload(server, tmp_path, "second", 2 * MIB)
    upload(server, tmp_path, "small", MIB // 2)
    upload(server, tmp_path, "small", MIB // 2)
    port = int(server.url.rsplit(":", 1)[1])
    server.stop()
    server = start_clearml_server(server.data_dir, "--max-storage-mb", "3", port=port)
    with pytest.raises(ApiError, match="max_storage_mb"):
        upload(server, tmp_path, "second", 2 * MIB)
    keys = load(server.conf, {}).settings.api
    pair = (keys.access_key, keys.secret_key.reveal())
    token = requests.post(f"{server.url}/auth.login", auth=pair, timeout=10).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.delete(f"{server.url}/files/first", headers=headers, timeout=10).status_code == 200
    upload(server, tmp_path, "second", 2 * MIB)
    assert stored(server) == {"small", "second"}
