"""No lower bound of a dependency admits a version with a vulnerability that was published when it was set."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIXED = {
    "requests": "2.32.4",  # CVE-2024-35195, CVE-2024-47081
    "urllib3": "2.6.3",  # CVE-2025-50181, CVE-2025-66418, CVE-2025-66471, CVE-2026-21441
    "certifi": "2024.7.4",  # CVE-2024-39689
    "idna": "3.7",  # CVE-2024-3651
    "jinja2": "3.1.6",  # CVE-2024-56201, CVE-2024-56326, CVE-2025-27516
    "virtualenv": "20.36.1",  # CVE-2024-53899, CVE-2026-22702
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "uv": "0.9.6",  # CVE-2025-54368, CVE-2025-62518, CVE-2025-13327
    "starlette": "0.49.1",  # CVE-2024-47874, CVE-2025-54121, CVE-2025-62727
    "python-multipart": "0.0.26",  # CVE-2024-24762, CVE-2024-53981, CVE-2026-24486
    "h11": "0.16",  # CVE-2025-43859
    "pyjwt": "2.12",  # CVE-2024-53861, CVE-2026-32597
}
"""First version without the vulnerabilities known to us."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", FIXED)
def test_the_lower_bound_is_a_fixed_version(name: str) -> None:
    [found] = [each for each in requirements() if canonicalize_name(each.name) == name]
    bounds = [Version(each.version) for each in found.specifier if each.operator == ">="]
    assert bounds, f"{name} has no lower bound"
    assert max(bounds) >= Version(FIXED[name])


def test_every_dependency_has_a_lower_bound() -> None:
    assert [str(each) for each in requirements() if not any(s.operator == ">=" for s in each.specifier)] == []
