"""Captures what real Slurms print, as data for the tests of what reads it: tests/data/slurm/VERSION/NAME.json.

    scripts/capture-slurm-answers 22.05 24.11      # some five minutes each, side by side

For each version a cluster is started in a temporary folder, jobs of every kind are submitted, and Slurm's commands are
asked with the argument lists and the environment that the product uses. The folder of each version is written again.
Exit code 1 where a version's cluster or one of its jobs did not do what it should.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slurm_captures import endings, live, outages, refusals
from slurm_captures.bench import Bench
from slurm_cluster.errors import ClusterError
from slurm_cluster.layout import Cluster
from slurm_cluster.lifecycle import start, stop
from slurm_cluster.releases import SUITES

DATA = Path(__file__).parents[1] / "tests" / "data" / "slurm"


def capture(version: str, folder: Path) -> None:
    """Write all answers of one version.

    Raises:
        ClusterError: its cluster did not start, or a job did not come as far as it should.
    """
    cluster = Cluster(folder / "cluster", version)
    cluster.dir.mkdir(parents=True)
    try:
        start(cluster)
        bench = Bench(cluster, folder / "work", folder / "answers")
        # Its answers of ended jobs are taken while the controller remembers them (MinJobAge, 300 s).
        endings.capture(bench)
        live.capture(bench)
        refusals.capture(bench)
        outages.capture(bench)
    finally:
        stop(cluster, [])
    shutil.rmtree(DATA / version, ignore_errors=True)
    shutil.copytree(folder / "answers", DATA / version)


def capture_each(versions: list[str]) -> int:
    """Each version in a process of its own, all at once."""
    children = [subprocess.Popen([sys.executable, __file__, version]) for version in versions]
    return max(child.wait() for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="capture-slurm-answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="+", choices=SUITES, metavar="VERSION", help=", ".join(SUITES))
    versions = parser.parse_args().versions
    if len(versions) > 1:
        return capture_each(versions)
    with tempfile.TemporaryDirectory(prefix="slurm-answers-") as folder:
        try:
            capture(versions[0], Path(folder))
        except ClusterError as error:
            print(f"capture-slurm-answers {versions[0]}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
