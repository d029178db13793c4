"""The configuration's own variables and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.config.apply import apply_environment, apply_files
from hpc_agent.config.load import Configuration, load
from hpc_agent.errors import ConfigError


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "there")

    def configuration(text: str) -> Configuration:
        conf = tmp_path / "clearml.conf"
        conf.write_text(text)
        return load(conf, {})

    return configuration


def warnings_of(configuration: Configuration) -> list[str]:
    said: list[str] = []
    apply_files(configuration, said.append)
    return said


def test_variables_are_exported_over_what_is_there(read: Any) -> None:
    environ = {"A": "before", "B": "kept"}
    apply_environment(read('environment { A: after, N: 3, EMPTY: null, "X.Y": dotted }'), environ)
    assert environ == {"A": "after", "B": "kept", "N": "3", "EMPTY": "", "X.Y": "dotted"}


def test_a_site_may_switch_both_off(read: Any, tmp_path: Path) -> None:
    text = f'environment {{ A: x }}, files {{ f {{ path: "{tmp_path}/f", contents: x }} }}'
    configuration = read(f"{text}\nagent {{ apply_environment: false, apply_files: false }}")
    environ: dict[str, str] = {}
    apply_environment(configuration, environ)
    apply_files(configuration, print)
    assert environ == {}
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("described", "content"),
    [
        ("contents: plain", b"plain"),
        ('contents: "aGk=", format: base64', b"hi"),
        ('contents: "/wA=", format: base64, target_format: bytes', b"\xff\x00"),
        ("contents { a: 1, b: [x, y] }, target_format: json", json.dumps({"a": 1, "b": ["x", "y"]}, indent=2).encode()),
        ("contents { a: 1 }, target_format: yaml", b"a: 1"),
    ],
)
def test_files_are_written_in_the_form_asked_for(read: Any, tmp_path: Path, described: str, content: bytes) -> None:
    assert warnings_of(read(f'files {{ f {{ path: "~/$WHERE/f", {described} }} }}')) == []
    assert (tmp_path / "there" / "f").read_bytes() == content


def test_a_file_is_private_unless_its_mode_says_otherwise(read: Any, tmp_path: Path) -> None:
    warnings_of(read('files { a { path: "~/a", contents: x }, b { path: "~/b", contents: x, mode: 644 } }'))
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o600, 0o644]


def test_a_file_that_is_there_is_kept_if_so_wished_and_not_rewritten_if_the_same(read: Any, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "same").write_text("x")
    before = (tmp_path / "same").stat().st_ino
    text = 'files { a { path: "~/kept", contents: x, overwrite: false }, b { path: "~/same", contents: x } }'
    warnings_of(read(text))
    assert (tmp_path / "kept").read_text() == "mine"
    assert (tmp_path / "same").stat().st_ino == before


def test_a_file_that_cannot_be_written_is_a_warning(read: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [said] = warnings_of(read('files { mine { path: "~/file/below", contents: x } }'))
    assert said.startswith("the configuration's file mine cannot be written")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("files { mine { contents: x } }", "files.mine says no path"),
        ("files { mine: x }", "files.mine says no path"),
        ('files { mine { path: "~/f", contents: x, mode: rw } }', "files.mine cannot be understood"),
        ('files { mine { path: "~/f", contents: "%", format: base64 } }', "files.mine cannot be understood"),
        ("files: x", "expected a section"),
    ],
)
def test_what_is_described_wrongly_is_named(read: Any, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        warnings_of(read(text))
