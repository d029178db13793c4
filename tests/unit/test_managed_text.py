"""A section of a person's file that a program writes again without losing edits."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hpc_agent.errors import ConfigError, InputError
from hpc_agent.setup.managed_text import BEGIN, END, in_section, last_written, whole_file, without_section, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clearml.conf"


def put(file: Path, *lines: str) -> None:
    write(in_section(file, lines))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def test_a_new_file_is_private_and_a_section_is_added_below_what_is_there(file: Path) -> None:
    put(file, "a: 1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("mine { }", "utf-8")
    file.chmod(0o640)
    put(file, "a: 1")
    assert file.read_text("utf-8").startswith(f"mine {{ }}\n\n{BEGIN}\n")
    assert file.read_text("utf-8").endswith(f"a: 1\n{END}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_edits_stay_and_other_lines_follow(file: Path) -> None:
    file.write_text("before\n", "utf-8")
    put(file, "a: 1", "b: 1", "c: 1")
    edit(file, "b: 1", "b: 2\nown: 1")
    edit(file, END, f"{END}\nafter")
    put(file, "a: 2", "b: 1", "c: 2")
    text = file.read_text("utf-8")
    assert "a: 2\nb: 2\nown: 1\nc: 2\n" in text
    assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n")
    assert without_section(file) == "before\n\nafter\n"


def test_the_same_text_again_changes_nothing(file: Path) -> None:
    put(file, "a: 1")
    change = in_section(file, ["a: 1"])
    assert not change.is_one and change.difference() == ""


def test_a_line_that_both_changed_is_the_persons_and_the_other_is_reported(file: Path) -> None:
    put(file, "a: 1", "b: 1")
    edit(file, "b: 1", "b: 2")
    change = in_section(file, ["a: 1", "b: 3"])
    assert change.set_aside == (("b: 3",),)
    write(change)
    assert "b: 2" in file.read_text("utf-8") and "b: 3" not in file.read_text("utf-8")
    # Reported once, not each time.
    assert in_section(file, ["a: 1", "b: 3"]).set_aside == ()


def test_without_the_record_all_lines_may_be_edits(file: Path) -> None:
    put(file, "a: 1")
    (file.parent / ".clearml.conf.hpc-agent-init").unlink()
    change = in_section(file, ["a: 2"])
    assert change.unknown_edits and not change.is_one
    assert last_written(file) == ""


def test_a_deleted_section_is_written_again(file: Path) -> None:
    put(file, "a: 1")
    file.write_text("mine\n", "utf-8")
    put(file, "a: 1")
    assert "a: 1" in file.read_text("utf-8")


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_broken_markers_are_named_and_nothing_is_written(file: Path, text: str) -> None:
    file.write_text(f"{text}\n", "utf-8")
    with pytest.raises(ConfigError, match="expected one of each"):
        in_section(file, ["a: 1"])


def test_the_difference_shows_no_other_line_of_the_file(file: Path) -> None:
    file.write_text('secret_key: "hidden"\n', "utf-8")
    put(file, "a: 1", "b: 1")
    difference = in_section(file, ["a: 2", "b: 1"]).difference()
    assert "-a: 1" in difference and "+a: 2" in difference and "hidden" not in difference


def test_a_link_stays_one_and_bytes_that_are_not_utf8_stay(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "conf"
    real.parent.mkdir()
    real.write_bytes(b"# caf\xe9\n")
    file.symlink_to(real)
    put(file, "a: 1")
    assert file.is_symlink() and real.read_bytes().startswith(b"# caf\xe9\n\n")


def test_a_whole_file_is_kept_in_the_same_way(tmp_path: Path) -> None:
    unit = tmp_path / "user" / "hpc-agent.service"
    write(whole_file(unit, ["[Service]", "A=1", "B=1"]))
    unit.write_text(unit.read_text("utf-8").replace("A=1", "A=mine"), "utf-8")
    write(whole_file(unit, ["[Service]", "A=1", "B=2"]))
    assert unit.read_text("utf-8") == "[Service]\nA=mine\nB=2\n"


def test_what_an_editor_wrote_meanwhile_is_not_overwritten(file: Path) -> None:
    file.write_text("mine\n", "utf-8")
    change = in_section(file, ["a: 1"])
    edit(file, "mine", "mine, edited")
    with pytest.raises(InputError, match="was changed by another program meanwhile"):
        write(change)
    assert file.read_text("utf-8") == "mine, edited\n"
