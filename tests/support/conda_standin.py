"""Stand-in for micromamba and conda: ``create`` alone, truly done by rattler; see ``conda_channel``.

The forms of the answers are those of micromamba 2.0 and conda 24.5: the first says the address of each package that it
links, the second of those only that it has to load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import rattler
from rattler.exceptions import SolverError


def main() -> int:
    form, folder, *words = sys.argv[1:]
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["create"])
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--channel", action="append", default=[])
    for flag in ("--yes", "--quiet", "--json", "--dry-run", "--override-channels", "--no-deps"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(words)
    lines = [line for line in options.file.read_text().splitlines() if line]
    records = asyncio.run(resolve(form, lines, options))
    if records is None:
        return 1
    if options.dry_run:
        actions = micromamba_actions(records) if form == "micromamba" else conda_actions(records)
        print(json.dumps({"actions": actions, "dry_run": True, "prefix": str(options.prefix), "success": True}))
        return 0
    cache = Path(folder) / "pkgs"
    asyncio.run(rattler.install(records, options.prefix, cache_dir=cache, show_progress=False))
    return 0


async def resolve(form: str, lines: list[str], options: argparse.Namespace) -> list[Any] | None:
    if lines[:1] == ["@EXPLICIT"]:
        found = []
        for line in lines[1:]:
            address, _, digest = line.partition("#")
            channel = address.rpartition("/")[0].rpartition("/")[0]
            records = await rattler.solve(
                [channel], [rattler.MatchSpec(named(address))], platforms=["linux-64", "noarch"]
            )
            record = next(record for record in records if record.url == address)
            assert record.md5 is None or record.md5.hex() == digest
            found.append(record)
        return found
    try:
        return await rattler.solve(
            options.channel, [rattler.MatchSpec(line) for line in lines], platforms=["linux-64", "noarch"]
        )
    except SolverError as error:
        problem = " ".join(str(error).split())
        if form == "micromamba":
            print(json.dumps({"solver_problems": [problem], "success": False}))
        else:
            print(json.dumps({"exception_name": "PackagesNotFoundError", "message": problem, "success": False}))
        return None


def named(address: str) -> str:
    """…/alpha-1.0-0.conda → alpha=1.0=0"""
    name, version, build = address.rpartition("/")[2].removesuffix(".conda").rsplit("-", 2)
    return f"{name}={version}={build}"


def micromamba_actions(records: list[Any]) -> dict[str, Any]:
    links = [
        {
            "build": str(record.build),
            "build_number": record.build_number,
            "channel": record.url.rpartition("/")[0],
            "fn": record.file_name,
            "md5": record.md5.hex() if record.md5 else "",
            "name": record.name.source,
            "subdir": record.subdir,
            "url": record.url,
            "version": str(record.version),
        }
        for record in records
    ]
    return {"FETCH": links, "LINK": links}


def conda_actions(records: list[Any]) -> dict[str, Any]:
    """``python`` is in its cache already, so that nothing says its address."""
    links = [
        {
            "base_url": record.url.rpartition("/")[0].rpartition("/")[0],
            "build_number": record.build_number,
            "build_string": str(record.build),
            "channel": "channel",
            "dist_name": f"{record.name.source}-{record.version}-{record.build}",
            "name": record.name.source,
            "platform": record.subdir,
            "version": str(record.version),
        }
        for record in records
    ]
    fetched = [link for link in micromamba_actions(records)["LINK"] if link["name"] != "python"]
    return {"FETCH": fetched, "LINK": links}


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # rattler's threads may touch an interpreter that is being taken down, and crash
