"""What we make is nobody else's to change, and what somebody else has made is not taken for ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import other_users
from attacks.case import Case
from attacks.users import LAB, OWNER, as_user, ground

from hpc_agent.access import weakness_of

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


@pytest.fixture(scope="module", autouse=True)
def _world() -> Iterator[None]:
    with other_users.world():
        yield


@pytest.mark.parametrize("case", other_users.CASES, ids=lambda case: case.name[:90])
def test_nothing_gets_in(case: Case, tmp_path: Path) -> None:
    assert case.attempt(tmp_path) == ""


SAFE = [
    ("a folder of our own below a sticky one", 0o755, 0, 0o1777),
    ("a private one below our own", 0o700, OWNER.uid, 0o755),
    ("one in a project's folder, which belongs to its head and is the group's", 0o700, 61_009, 0o2770),
]


@pytest.mark.parametrize(("what", "mode", "above", "mode_above"), SAFE, ids=[what for what, *_ in SAFE])
def test_what_is_safe_enough_is_taken(what: str, mode: int, above: int, mode_above: int) -> None:
    with ground() as place:
        parent = place / "parent"
        parent.mkdir()
        os.chown(parent, above, LAB)
        parent.chmod(mode_above)
        folder = parent / "hpc"
        folder.mkdir()
        os.chown(folder, OWNER.uid, LAB)
        folder.chmod(mode)
        assert as_user(OWNER, lambda: str(weakness_of(folder))) == "None"
        assert as_user(OWNER, lambda: str(weakness_of(folder / "not" / "there"))) == "None"


def test_our_own_link_is_followed_to_what_it_leads_to() -> None:
    with ground() as place:
        for name, mode in (("good", 0o700), ("bad", 0o777)):
            (place / name).mkdir()
            os.chown(place / name, OWNER.uid, LAB)
            (place / name).chmod(mode)
            (place / f"to-{name}").symlink_to(name)
            os.chown(place / f"to-{name}", OWNER.uid, LAB, follow_symlinks=False)
        assert as_user(OWNER, lambda: str(weakness_of(place / "to-good"))) == "None"
        assert "everybody can write" in as_user(OWNER, lambda: str(weakness_of(place / "to-bad")))
        (place / "round").symlink_to("round")
        assert "too many links" in str(weakness_of(place / "round"))


def test_a_group_of_ones_own_is_nobody_elses(tmp_path: Path) -> None:
    """root's own group, as on this machine."""
    folder = tmp_path / "hpc"
    folder.mkdir()
    folder.chmod(0o775)
    assert weakness_of(folder) is None
    os.chown(folder, 0, LAB)
    assert "the group" in str(weakness_of(folder))
