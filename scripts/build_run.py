"""Runs ``scripts/build``: the two packages of a release, and its notes from the changelog."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hpc_agent import __version__

ROOT = Path(__file__).resolve().parent.parent


class ReleaseError(Exception):
    """Tag, version and changelog do not agree; the message says how."""


def entry(changelog: str, version: str) -> str:
    """What the changelog says of a version, without its heading.

    Raises:
        ReleaseError: it has no dated heading for the version, or nothing under it.
    """
    parts = re.split(r"^## \[(.+?)\](.*)$", changelog, flags=re.MULTILINE)
    found = {name: (rest, text.strip()) for name, rest, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}
    rest, text = found.get(version, ("", ""))
    if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", rest.rstrip()):
        raise ReleaseError(f"CHANGELOG.md has no heading '## [{version}] - YYYY-MM-DD': write it and tag again")
    if not text:
        raise ReleaseError(f"CHANGELOG.md says nothing under [{version}]: write what changed for users")
    return text


def release_notes(tag: str, version: str, changelog: str) -> str:
    """
    Raises:
        ReleaseError: the tag is not that of ``version``, or as for ``entry``.
    """
    if tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, but hpc_agent.__version__ is {version}: the tag must be v{version}")
    return entry(changelog, version)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/build", description="Builds sdist and wheel into dist/.")
    parser.add_argument("--tag", help="the release's tag, which must agree with version and changelog")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="FOLDER")
    options = parser.parse_args()
    notes = ""
    if options.tag:
        try:
            notes = release_notes(options.tag, __version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
        except ReleaseError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    shutil.rmtree(options.into, ignore_errors=True)
    # The wheel is made from the sdist, so that what is left out of that shows.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(options.into), str(ROOT)], check=True)
    if notes:
        (options.into / "notes.txt").write_text(notes + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
