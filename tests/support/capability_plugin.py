"""Pytest plugin: the markers that tell what each test needs, and the options that go with them.

A test states its needs by a marker (``@pytest.mark.podman``) or by a fixture of FIXTURES; each need then is a marker of
the test, so that ``-m "not slurm"`` selects by it. ``quick`` is the marker of the tests below tests/unit and
tests/property, which start no service, that need no capability either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from capabilities import CAPABILITIES, UnknownCapabilityError, missing, parse_names, require

FIXTURES = {"slurm_cluster": "slurm", "second_slurm_cluster": "slurm", "peers": "peers"}
"""Fixtures of tests/conftest.py → the capability that each provides."""

QUICK_FOLDERS = ("unit", "property")
TESTS = Path(__file__).parents[1]


def marker_of(capability: str) -> str:
    """``git-lfs`` → ``git_lfs``"""
    return capability.replace("-", "_")


OF_MARKER = {marker_of(capability): capability for capability in CAPABILITIES}


def needs_of(item: pytest.Item) -> set[str]:
    """The capabilities that a test states."""
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    provided = {FIXTURES[name] for name in fixtures if name in FIXTURES}
    return provided | {OF_MARKER[marker.name] for marker in item.iter_markers() if marker.name in OF_MARKER}


@cache
def _is_below_quick_folder(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / folder) for folder in QUICK_FOLDERS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="NAMES",
        help=f"fail, not skip, the tests that lack one of these: {', '.join(CAPABILITIES)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    for name, what in CAPABILITIES.items():
        config.addinivalue_line("markers", f"{marker_of(name)}: needs {what}")
    config.addinivalue_line("markers", "quick: needs no capability and starts no service (from the test's folder)")
    try:
        require(parse_names(config.getoption("--require")))
    except UnknownCapabilityError as error:
        pytest.exit(str(error), returncode=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before pytest selects by ``-m``."""
    for item in items:
        needs = needs_of(item)
        for capability in sorted(needs):
            item.add_marker(marker_of(capability))
        if not needs and _is_below_quick_folder(item.path):
            item.add_marker("quick")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        missing("root", "only root can mount and be another user")
