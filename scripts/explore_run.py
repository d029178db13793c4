"""Property tests on new examples: the state machine of the daemon, the decision table, the tables of Slurm.

    scripts/explore --minutes 1 --seed 1                              # as continuous integration does
    scripts/explore                                                   # until it fails, or is interrupted
    scripts/explore --seed 7 --rounds 1                               # the same examples again
    scripts/explore --minutes 5 -- tests/property/test_courses.py -x  # other tests; the rest goes to pytest

Without ``--`` all tests that generate their examples are explored in turn. Each round has a seed of its own, which is
printed before it runs. Exit code 1 if a test fails: the example is printed, and kept in ``.hypothesis/examples``, from
where the next exploration takes it first. 2 for a wrong argument, 3 if pytest could not run.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/integration/test_no_task_is_lost.py",
    "tests/property/test_decide_on_any_facts.py",
    "tests/integration/test_no_task_is_lost.py",
    "tests/property/test_slurm_tables.py",
)
"""What is explored, a round each. Most of the time goes to the state machine."""
TIMES = 2
"""As many examples in a round as the tests look at otherwise: with fewer they might not reach what they must."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="explore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no round after so long (without end)")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds at most (any number)")
    parser.add_argument(
        "--times", type=int, default=TIMES, metavar="N", help=f"examples of a round, in those of a usual run ({TIMES})"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the first round; the next ones count on (random)")
    parser.add_argument("tests", nargs="*", metavar="-- PYTEST-ARGUMENT", help="instead of the tests named above")
    given = parser.parse_args()
    if given.times < 1 or (given.minutes is not None and given.minutes <= 0):
        parser.error("--times and --minutes must be more than 0")
    return given


def explore(given: argparse.Namespace) -> int:
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    begun = time.monotonic()
    number = 0
    while given.rounds is None or number < given.rounds:
        left = float("inf") if given.minutes is None else given.minutes * 60 - (time.monotonic() - begun)
        if left <= 0:
            break
        tests = given.tests or [TESTS[number % len(TESTS)]]
        print(f"round {number + 1}: --seed {seed + number} --times {given.times} -- {' '.join(tests)}", flush=True)
        code = _round(tests, seed + number, given.times)
        if code:
            print(f"again: scripts/explore --rounds 1 --seed {seed + number} --times {given.times} -- ", end="")
            print(*tests)
            return 1 if code == 1 else 3
        number += 1
    print(f"{number} rounds in {time.monotonic() - begun:.0f} s, none failed")
    return 0


def _round(tests: list[str], seed: int, times: int) -> int:
    """The exit code of pytest."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "--show-capture=no", "-p", "no:cacheprovider", "--timeout=0"]
    environ = {**os.environ, "EXPLORE": str(times), "EXPLORE_SEED": str(seed)}
    return subprocess.run([*argv, *tests], env=environ, cwd=ROOT, check=False).returncode


def main() -> int:
    try:
        return explore(arguments())
    except KeyboardInterrupt:
        print("\ninterrupted; nothing had failed")
        return 130


if __name__ == "__main__":
    sys.exit(main())
