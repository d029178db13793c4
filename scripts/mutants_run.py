"""Mutation check of the core: each mutant of ``tests/mutants.toml`` is a wrong line; do the quick tests notice it?

    scripts/mutants                              # all
    scripts/mutants --json mutants.json          # … with the figures
    scripts/mutants claim-of-another-job         # some, by name

For each mutant the tests that concern it run in a copy of the tree. Exit code 1 if one survives that is not listed with
a reason, or one that is listed as surviving is killed; 2 if one no longer applies, or if the tests fail without any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from faults.arguments import positive
from mutation.mutants import MutantError, Mutants
from mutation.trial import Outcome, Trial, try_all

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants (all)")
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="so many at once (2)")
    parser.add_argument("--seconds", type=positive, default=180, metavar="N", help="for the tests of one (180)")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="of the tree (this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        mutants = Mutants.read(given.root)
        if given.names:
            mutants = mutants.named(*given.names)
        trials = []
        for trial in try_all(given.root, mutants, jobs=given.jobs, seconds=given.seconds):
            print(line(trial), flush=True)
            trials.append(trial)
    except MutantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = summary(trials)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{figures['mutants']} mutants: {figures['killed']} killed, {figures['survived']} survived", end="")
    print(f" ({figures['survived_as_listed']} of them listed with a reason), {figures['broken']} broken")
    return 0 if all(trial.is_as_listed for trial in trials) else 1


def line(trial: Trial) -> str:
    evidence = trial.mutant.survives if trial.outcome is Outcome.SURVIVED else trial.by
    mark = "" if trial.is_as_listed else "  <-- not as listed"
    return f"{trial.outcome.value:9} {trial.mutant.name}  {trial.seconds:.1f} s  {evidence}{mark}"


def summary(trials: Sequence[Trial]) -> dict[str, object]:
    survived = [trial for trial in trials if trial.outcome is Outcome.SURVIVED]
    return {
        "mutants": len(trials),
        "killed": sum(trial.is_killed for trial in trials),
        "survived": len(survived),
        "survived_as_listed": sum(bool(trial.mutant.survives) for trial in survived),
        "broken": sum(trial.outcome is Outcome.BROKEN for trial in trials),
        "trials": [
            {
                "name": trial.mutant.name,
                "file": trial.mutant.file,
                "outcome": trial.outcome.value,
                "seconds": round(trial.seconds, 1),
                "by": trial.by,
                "survives": trial.mutant.survives,
            }
            for trial in trials
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
