"""The folder of the tests' own things that take long to make, used by several runs at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import shared_cache

MAKES = """
import sys, time
sys.path.insert(0, sys.argv[1])
from shared_cache import made_once
def make(folder):
    time.sleep(0.2)
    (folder / "made").touch()
    print("made")
print(made_once("thing", make).name)
"""


def test_of_those_that_want_it_at_once_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    argv = [sys.executable, "-c", MAKES, str(Path(shared_cache.__file__).parent)]
    runs = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [run.communicate()[0].split() for run in runs]
    assert sorted(printed) == [["made", "thing"], ["thing"], ["thing"]]
    assert (shared_cache.cache() / "thing" / "made").exists()


def test_what_could_not_be_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        shared_cache.made_once("thing", fail)
    assert list(shared_cache.made_once("thing", lambda folder: (folder / "whole").touch()).iterdir()) != []
