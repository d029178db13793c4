"""Pytest plugin: the markers that tell what each test needs, and the options that go with them.

A test states its needs by a marker (``@pytest.mark.podman``) or by a fixture of FIXTURES; each need then is a marker of
the test, so that ``-m "not slurm"`` selects by it. ``quick`` is the marker of the tests below tests/unit and
tests/property, which start no service, that need no capability either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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


def needs_of(item: pytest.Item) -> Iterator[str]:
    """The capabilities that a test states."""
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    provided = {FIXTURES[name] for name in fixtures if name in FIXTURES}
    for capability in CAPABILITIES:
        if capability in provided or item.get_closest_marker(marker_of(capability)):
            yield capability


def is_quick(item: pytest.Item) -> bool:
    folders = [TESTS / folder for folder in QUICK_FOLDERS]
    return any(item.path.is_relative_to(folder) for folder in folders) and not any(needs_of(item))


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
        for capability in needs_of(item):
            item.add_marker(marker_of(capability))
        if is_quick(item):
            item.add_marker("quick")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        missing("root", "only root can mount and be another user")
